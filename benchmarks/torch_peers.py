"""torch in processes of its own, alone or as DistributedDataParallel; imported in them alone."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from cases import Case
from peers import Peers, told


class TorchProcesses(Peers):
    """One process a rank, each with its share of the batch.

    slowness: how many times as long as it could the last rank takes for its work.
    """

    def __init__(self, case: Case, world: int, fused: bool = False, slowness: float = 1.0) -> None:
        self._folder = TemporaryDirectory()
        meeting = str(Path(self._folder.name) / "meeting")
        paces = [1.0] * (world - 1) + [slowness]
        super().__init__(
            serve, [(case, rank, world, fused, meeting, pace) for rank, pace in enumerate(paces)]
        )

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def serve(
    pipe: Connection,
    case: Case,
    rank: int,
    world: int,
    fused: bool,
    meeting: str,
    slowness: float,
) -> None:
    """What a process does: train when told to, and answer with seconds a step."""
    from torch_loop import Loop, group

    with group(rank, world, meeting):
        loop = Loop(case, rank, world, fused, slowness)
        while (epochs := told(pipe)) is not None:
            pipe.send(loop.round(epochs))

"""torch in processes of its own, alone or as DistributedDataParallel, told by a pipe when to run.

The processes live through all rounds, so that launching them is not counted, and between rounds
they sleep on their pipe. torch is imported in them alone.
"""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from cases import Case


class TorchProcesses:
    """See contestants.py: Contestant. One process a rank, each with its share of the batch.

    slowness: how many times as long as it could the last rank takes for its work.
    """

    def __init__(self, case: Case, world: int, fused: bool = False, slowness: float = 1.0) -> None:
        self._folder = TemporaryDirectory()
        meeting = Path(self._folder.name) / "meeting"
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(world):
            mine, theirs = context.Pipe()
            pace = slowness if rank == world - 1 else 1.0
            arguments = (theirs, case, rank, world, fused, str(meeting), pace)
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def round(self, epochs: int) -> float:
        for pipe in self._pipes:
            pipe.send(epochs)
        return max(float(pipe.recv()) for pipe in self._pipes)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()
        self._folder.cleanup()


def told(pipe: Connection) -> int | None:
    """Epochs of the next round; None when there is none, or nobody left to ask for one."""
    try:
        epochs: int | None = pipe.recv()
    except EOFError:
        return None
    return epochs


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

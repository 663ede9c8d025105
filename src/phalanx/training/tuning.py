"""Workers by n_jobs="auto": as many as the training runs quickest with."""

from __future__ import annotations

from time import monotonic

from phalanx.arena import Arena
from phalanx.clusters.base import Watch
from phalanx.clusters.control import Control
from phalanx.exchange.board import OPENED
from phalanx.pure.tuner import Tuner


def tuned(control: Control, watch: Watch | None) -> Watch:
    """A watch that changes the number of workers until the training runs quickest."""
    tuner = Tuner(control.workers)

    def look(arena: Arena) -> None:
        if watch is not None:
            watch(arena)
        wanted = tuner.look(monotonic(), int(arena["door"][OPENED]))
        if wanted != control.workers:
            control.resize(wanted)

    return look

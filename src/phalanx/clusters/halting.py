"""What sessions of all clusters have in common: above all, ending a lease at a step's edge."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from phalanx.arena import Arena
from phalanx.clusters.interrupt import on_interrupt
from phalanx.engine.courier import Courier
from phalanx.exchange.board import HALT, INTERRUPT, REGROUP


class Halting:
    """See clusters/base.py: Session."""

    arena: Arena
    _courier: Courier | None
    is_interrupted = False

    def interruptible(self) -> AbstractContextManager[None]:
        return on_interrupt(self.interrupt)

    def interrupt(self) -> None:
        self.is_interrupted = True
        self._halt(INTERRUPT)

    def in_callback(self) -> AbstractContextManager[None]:
        return nullcontext()

    def pause(self) -> None:
        self._halt(REGROUP)

    def _halt(self, why: int) -> None:
        door, courier = self.arena["door"], self._courier
        if courier is None:
            door[HALT] = max(why, door[HALT])
        else:
            # all hosts are to halt after the same step
            courier.wish = max(why, courier.wish)

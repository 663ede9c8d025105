"""Ending a lease at a step's edge: the part that sessions of all clusters have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager

from phalanx.arena import Arena
from phalanx.clusters.interrupt import on_interrupt
from phalanx.engine.courier import Courier
from phalanx.exchange.board import HALT, INTERRUPT, REGROUP


class Halting:
    """See clusters/base.py: Session."""

    arena: Arena
    _courier: Courier | None

    def interruptible(self) -> AbstractContextManager[None]:
        return on_interrupt(lambda: self._halt(INTERRUPT))

    def pause(self) -> None:
        self._halt(REGROUP)

    def _halt(self, why: int) -> None:
        if self._courier is None:
            self.arena["door"][HALT] = why
        else:
            # all hosts are to halt after the same step
            self._courier.wish = max(why, self._courier.wish)

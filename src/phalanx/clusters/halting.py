"""What sessions of all clusters have in common: above all, ending a lease at a step's edge."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from phalanx.arena import Arena
from phalanx.engine.courier import Courier
from phalanx.exchange.board import HALT, INTERRUPT, REGROUP


class Halting:
    """See clusters/base.py: Session."""

    arena: Arena
    _courier: Courier | None

    def interrupt(self) -> None:
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

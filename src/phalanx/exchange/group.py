"""What hosts say to each other: the operations of a process group that the exchange needs.

All hosts call the same operations in the same order. `clusters/hosts/gloo.py` has them from
torch.distributed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from phalanx.pure.arrays import Array
from phalanx.pure.hosts import Place

Look = Callable[[], None]


class Pending(Protocol):
    """An operation under way."""

    def wait(self, look: Look) -> None:
        """Until it is done. Raises HostLost where another host has failed or is out of reach, and
        what `look` raises, which is called now and then."""


class Group(Protocol):
    """The hosts that train together, seen by one of them."""

    place: Place

    def all_to_all(self, pieces_H: Sequence[Array], places_H: Sequence[Array]) -> Pending:
        """Send each host its piece, and bring each host's to its place; my own are empty.

        They are contiguous, and are not to be touched before the operation is done.
        """

    def all_gather(self, row_n: Array, into_Hn: Array) -> Pending:
        """Bring every host's row; all are of one size."""

    def broadcast(self, array_n: Array, host: int) -> Pending:
        """Bring what one host has to all."""

    def check(self) -> None:
        """Raise HostLost where another host is known to have failed or to be out of reach."""

    def failed(self, why: str) -> None:
        """Let the others know that this host cannot go on."""

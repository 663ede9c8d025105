"""The exchange with other hosts, as a worker sees it.

Where a worker is the only one of its host it does the exchange itself, at the places named here;
else somebody beside the workers does (courier.py), and they wait for its words as for each other's.
"""

from __future__ import annotations

from typing import Protocol

from phalanx.pure.timetable import Timetable


class Exchange(Protocol):
    """What is brought into the arena is published there as if the courier had done it."""

    def begin(self, timetable: Timetable) -> None:
        """A lease begins."""

    def look(self, tick: int) -> None:
        """Send what is ready, without waiting for anything."""

    def shards(self, tick: int) -> None:
        """Send this host's shards, bring the others'."""

    def blocks(self, tick: int) -> None:
        """Send the blocks that were reduced here, bring the others."""

    def chunks(self, tick: int) -> None:
        """Send the sums of the chunks that were scored here, bring the others'."""


class Nobody:
    """There is no other host, or somebody else brings what comes from there."""

    def begin(self, timetable: Timetable) -> None:
        pass

    def look(self, tick: int) -> None:
        pass

    def shards(self, tick: int) -> None:
        pass

    def blocks(self, tick: int) -> None:
        pass

    def chunks(self, tick: int) -> None:
        pass


NOBODY = Nobody()

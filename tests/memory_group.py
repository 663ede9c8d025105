"""A group of hosts that are threads of one process: what each sends lies in memory for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class MemoryGroup:
    """See exchange/group.py: Group. How hosts get lost is a matter of who derives from it.

    They have `place`, `check`, `failed`; `_send(kind, told)`, which returns the number of the
    operation; and `_receive(number, kind, look)`, which returns what each host has told.
    """

    place: Any

    def all_to_all(self, pieces_H, places_H):
        here = self.place.host
        assert not len(pieces_H[here])
        assert not len(places_H[here])

        def land(told_H):
            for place_n, pieces in zip(places_H, told_H, strict=True):
                assert len(place_n) == len(pieces[here])
                place_n[...] = pieces[here]

        return self._begun("all_to_all", [piece_n.copy() for piece_n in pieces_H], land)

    def all_gather(self, row_n, into_Hn):
        def land(told_H):
            into_Hn[...] = told_H

        return self._begun("all_gather", row_n.copy(), land)

    def broadcast(self, array_n, host):
        def land(told_H):
            array_n[...] = told_H[host]

        return self._begun("broadcast", array_n.copy(), land)

    def _begun(self, kind, told, land):
        return Pending(self, self._send(kind, told), kind, land)


@dataclass
class Pending:
    """See exchange/group.py: Pending."""

    group: MemoryGroup
    number: int
    kind: str
    land: Any

    def wait(self, look):
        self.land(self.group._receive(self.number, self.kind, look))

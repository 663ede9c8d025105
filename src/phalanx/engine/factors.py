"""The factors of a step's batch: at home, or with whoever has taken a shard over."""

from __future__ import annotations

from collections.abc import Sequence

from phalanx.arena import Arena
from phalanx.engine.slots import HOME
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.factors import FactorLayout


class Factors:
    """A shard's columns lie at home if its owner by the plan has computed it, else where its doer
    has room for a batch of its own: nobody ever writes where another may."""

    def __init__(self, arena: Arena, layout: FactorLayout) -> None:
        self._home, self._away_Wn = arena["factors"], arena["factors_away"]
        self._layout = layout
        self._known: dict[int, list[Array]] = {}
        self._together: list[Array] = []

    def at(self, doer: int, owner: int) -> list[Array]:
        """The batch where a shard is, or is to be: a view [size, C] of each factor; the same list
        every time, and known by that."""
        place = HOME if doer == owner else doer
        if place not in self._known:
            flat_n = self._home if place == HOME else self._away_Wn[place]
            self._known[place] = self._layout.views(flat_n)
        return self._known[place]

    def whole(self, doers: Sequence[int], owners: Sequence[int]) -> list[Array]:
        """Those of a batch whose shards were computed by `doers`, all in one place."""
        places = [self.at(doer, owner) for doer, owner in zip(doers, owners, strict=False)]
        if all(place is places[0] for place in places):
            return places[0]
        if not self._together:  # laid out as home is, so that products come to equal bits
            flat_n = aligned_empty((self._layout.size,), self._home.dtype)
            self._together = self._layout.views(flat_n)
        for s, place in enumerate(places):
            columns = self._layout.columns([s])
            for mine, theirs in zip(self._together, place, strict=True):
                mine[:, columns] = theirs[:, columns]
        return self._together

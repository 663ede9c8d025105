"""The slots of the shards' gradients: at home, or with whoever has taken a shard over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from phalanx.arena import Arena
from phalanx.pure.arrays import Array, padded_rows

HOME = -1


class Slots:
    """Elements start..stop of them. A shard's gradient lies at home if its owner by the plan has
    computed it, else in a slot of its doer."""

    def __init__(self, arena: Arena, start: int, stop: int) -> None:
        self._home_Sn = arena["grads"][:, start:stop]
        self._away_WSN, self._start, self._stop = arena["grads_away"], start, stop
        self._known: dict[tuple[int, int], Array] = {}

    def one(self, s: int, doer: int, owner: int) -> Array:
        """The gradient [n] of a shard; the same array every time, since models know it by that."""
        key = s, HOME if doer == owner else doer
        if key not in self._known:
            self._known[key] = self._at(*key)
        return self._known[key]

    def _at(self, s: int, place: int) -> Array:
        if place == HOME:
            return np.asarray(self._home_Sn[s])
        return np.asarray(self._away_WSN[place, s, self._start : self._stop])

    def home(self, stop: int, start: int = 0) -> Array:
        """The gradients [stop - start, n] of shards that all lie at home, side by side."""
        return np.asarray(self._home_Sn[start:stop])

    def gathered(
        self, shards: range, doers: Sequence[int] | Mapping[int, int], owners: Sequence[int]
    ) -> Array:
        """The gradients [len(shards), n] of shards, from where their doers put them: in rows that
        lie as those at home do, so that they are reduced to equal bits.

        doers, owners: by shard.
        """
        gathered_Sn = padded_rows(len(shards), self._stop - self._start, self._home_Sn.dtype)
        for row_n, s in zip(gathered_Sn, shards, strict=True):
            row_n[...] = self.one(s, doers[s], owners[s])
        return gathered_Sn

"""The panels: gradients of several blocks, made at once out of the factors that shards left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from phalanx.arena import Arena
from phalanx.engine.factors import Factors
from phalanx.engine.post import Post
from phalanx.models.base import FactoredModel
from phalanx.pure.aggregation import scales
from phalanx.pure.arrays import Array
from phalanx.pure.layout import Region


class Panels:
    """Seen by one worker. Of the panels only the last one is kept: whoever owns a panel updates its
    blocks one after another, and an heir of some of them makes it again, to equal bits."""

    def __init__(self, post: Post, arena: Arena, model: FactoredModel) -> None:
        layout = post.job.model.factors
        assert layout is not None
        self.post, self.model = post, model
        self._factors, self._width = Factors(arena, layout), layout.width
        self._starts = {region.panel: region.start for region in post.job.model.regions}
        self._made: tuple[int, int | None] = (-1, None)  # in which tick, which one
        self._grad_n = np.empty(0)
        self._last: tuple[Any, ...] = ()  # what the last step's factors and scale follow from

    def begin(
        self, doers: Sequence[int] | None, counts: Sequence[int], weights: list[float]
    ) -> None:
        """A step's shards are done: by whom, or by their owners if None, of how many rows and of
        which weights."""
        owners = self.post.share.owners
        if doers is not None or self._last != (counts, weights):  # as in next to no step
            self._layers = self._factors.whole(doers or owners, owners)
            self._scale = self._scale_of(counts, weights)
            self._last = () if doers is not None else (counts, weights)
        self._n_shards = len(counts)

    def _scale_of(self, counts: Sequence[int], weights: list[float]) -> float | Array:
        """One for the whole batch, where it is the same for all shards."""
        job = self.post.job
        scale_S = scales(job.aggregation, weights, sum(counts))
        if len(set(scale_S)) == 1:
            return scale_S[0]
        return np.repeat(np.array(scale_S, job.model.dtype), self._width)

    def of(self, block: Region) -> Array:
        """The gradient of a block of a panel, a view that the next panel overwrites."""
        wanted = self.post.tick, block.panel
        if wanted != self._made:
            assert block.panel is not None
            self._grad_n = self.model.panel(block.panel, self._layers, self._n_shards, self._scale)
            self._made = wanted
        start = self._starts[block.panel]
        return self._grad_n[block.start - start : block.stop - start]

"""The panels: gradients of several blocks, made at once out of the factors that shards left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from phalanx.arena import Arena
from phalanx.data.entries import SparseRows
from phalanx.engine.factors import Factors
from phalanx.engine.joining import may_join
from phalanx.engine.post import Post
from phalanx.engine.recipe import Bench, Recipe, Scale
from phalanx.pure.aggregation import scales
from phalanx.pure.arrays import Array
from phalanx.pure.factors import MAX_PANEL, outwards, stretches_of
from phalanx.pure.layout import Region

Edges = tuple[int, ...]  # of a stretch of panels: where the first begins, and where each ends


class Panels:
    """Seen by one worker. It makes neighbours that fall to it together, and keeps the last ones
    only: whoever owns panels updates their blocks one after another, and an heir of some blocks
    makes theirs again, to equal bits."""

    def __init__(self, post: Post, arena: Arena) -> None:
        layout, regions = post.job.model.factors, post.job.model.regions
        assert layout is not None
        self.post, self._layout, self._factors = post, layout, Factors(arena, layout)
        self._panels = [(region.start, region.stop) for region in regions]
        largest = max(MAX_PANEL, *(stop - start for start, stop in self._panels))
        largest = min(largest, regions[-1].stop)
        model = post.job.model
        self._bench = Bench(layout, model.multiply, model.dtype, largest)
        self._recipes: dict[tuple[Any, ...], Recipe] = {}
        self._mine: Sequence[int] = ()  # blocks, at the last look
        self._stretches: dict[int, Edges] = {}
        self._made: tuple[int, Recipe] | None = None  # in which tick, which one
        self._last: tuple[Any, ...] = ()  # what the last step's factors and scale follow from

    def begin(
        self,
        doers: Sequence[int] | None,
        counts: Sequence[int],
        weights: list[float],
        given: SparseRows | None,
    ) -> None:
        """A step's shards are done: by whom, or by their owners if None, of how many rows and of
        which weights. given: the samples of all columns, if they are not among the factors."""
        owners = self.post.share.owners
        if doers is not None or self._last != (counts, weights):  # as in next to no step
            self._batch = self._factors.whole(doers or owners, owners)
            self._scale = self._scale_of(counts, weights)
            self._last = () if doers is not None else (counts, weights)
        self._n_shards, self._given = len(counts), given

    def _scale_of(self, counts: Sequence[int], weights: list[float]) -> Scale:
        """By what to multiply each sample's part: one number, where it is the same for all shards,
        or one for each column [C]."""
        job = self.post.job
        scale_S = scales(job.aggregation, weights, sum(counts))
        if len(set(scale_S)) == 1:
            return scale_S[0]
        in_order = [scale_S[s] for s in outwards(len(scale_S))]
        return np.repeat(np.array(in_order, job.model.dtype), self._layout.width)

    def of(self, block: Region) -> Array:
        """The gradient of a block of a panel, a view that the next stretch overwrites."""
        start, stop = block[:2]
        if not self._is_made(start):
            recipe = self._recipe(block)
            recipe.make(self._scale, self._given)
            self._made = self.post.tick, recipe
        assert self._made is not None
        recipe = self._made[1]
        return recipe.grad_n[start - recipe.start : stop - recipe.start]

    def _is_made(self, element: int) -> bool:
        if self._made is None or self._made[0] != self.post.tick:
            return False
        recipe = self._made[1]
        return recipe.start <= element < recipe.start + len(recipe.grad_n)

    def _recipe(self, block: Region) -> Recipe:
        """How to make the panels that a block's is made with, of this step's factors. Kept, since a
        batch's factors never move."""
        edges = self._stretch(block)
        key = edges, id(self._batch), self._n_shards
        if key not in self._recipes:
            ends = edges[0], edges[-1]
            self._recipes[key] = Recipe(self._bench, self._batch, self._n_shards, *ends)
        return self._recipes[key]

    def _stretch(self, block: Region) -> Edges:
        """The panels that are made with a block's: the neighbours that are mine, if they come to
        the same bits so."""
        assert block.panel is not None
        job, mine = self.post.job, self.post.share.reductions
        if mine is not self._mine:
            self._mine = mine
            panels = {panel for k in mine if (panel := job.blocks[k].panel) is not None}
            runs = stretches_of(self._panels, panels)
            self._stretches = {panel: self._edges(run) for run in runs for panel in run}
        edges = self._stretches.get(block.panel, ())
        if not self.post.share.is_whole:  # others wait for an heir: no time for a trial
            return self._panels[block.panel]
        kind = job.model.multiply, job.model.dtype.name
        if len(edges) > 2 and may_join(self._layout, *kind, edges, self._n_shards):
            return edges
        return self._panels[block.panel]

    def _edges(self, run: range) -> Edges:
        return self._panels[run[0]][0], *(self._panels[panel][1] for panel in run)

"""The panels: gradients of several blocks, made at once out of the factors that shards left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phalanx.arena import Arena
from phalanx.engine.post import Post
from phalanx.engine.slots import Slots
from phalanx.models.base import FactoredModel
from phalanx.pure.aggregation import shares
from phalanx.pure.arrays import Array
from phalanx.pure.layout import Region


class Panels:
    """Seen by one worker. Of the panels only the last one is kept: whoever owns a panel updates its
    blocks one after another, and an heir of some of them makes it again, to equal bits."""

    def __init__(self, post: Post, arena: Arena, model: FactoredModel) -> None:
        self.post, self.model = post, model
        self._slots = Slots(arena, 0, post.job.model.slot_size)
        self._starts = {region.panel: region.start for region in post.job.model.regions}
        self._made: tuple[int, int | None] = (-1, None)  # in which tick, which one
        self._grad_n = np.empty(0)

    def begin(self, doers: Sequence[int], counts: Sequence[int], weights_S: Array) -> None:
        """A step's shards are done: by whom, of how many rows and of which weights."""
        job, owners = self.post.job, self.post.share.owners
        self._counts = counts
        self._shares_S = shares(job.aggregation, weights_S, job.model.dtype)
        self._filled = [self._slots.one(s, doers[s], owners[s]) for s in range(len(counts))]

    def of(self, block: Region) -> Array:
        """The gradient of a block of a panel, a view that the next panel overwrites."""
        wanted = self.post.tick, block.panel
        if wanted != self._made:
            assert block.panel is not None
            self._grad_n = self.model.panel(block.panel, self._filled, self._counts, self._shares_S)
            self._made = wanted
        start = self._starts[block.panel]
        return self._grad_n[block.start - start : block.stop - start]

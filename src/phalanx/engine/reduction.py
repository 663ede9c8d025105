"""The reduction: from the gradients of a step's shards to one gradient a block, in shard order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phalanx.arena import Arena
from phalanx.data.entries import SparseRows
from phalanx.engine.block import Block
from phalanx.engine.panels import Panels
from phalanx.engine.post import Post
from phalanx.pure.aggregation import checked, mean
from phalanx.pure.arrays import Array, padded_rows
from phalanx.pure.layout import Kind
from phalanx.pure.rounding import rounded


class Reduction:
    """Seen by one worker; the same bits wherever the gradients lie."""

    def __init__(self, post: Post, arena: Arena, blocks: list[Block]) -> None:
        self.post, self.blocks = post, blocks
        self._panels = None if post.job.model.factors is None else Panels(post, arena)
        self.aggregate = rounded(checked(post.job.aggregation), post.job.rounding)
        self._sends_means, self._host_rows_HN = post.job.sends_means, arena["host_rows"]
        self._weights: list[float] = []  # of the shards, at the last look
        self._homes: list[Array] = []  # of each block, the gradients where all lie at home

    def begin(
        self,
        doers: Sequence[int] | None,
        counts: Sequence[int],
        weights: list[float],
        given: SparseRows | None,
    ) -> None:
        """A step's shards are done: by whom, or by their owners if None, of how many rows and of
        which weights. given: see Panels.begin."""
        if self._panels is not None:
            self._panels.begin(doers, counts, weights, given)
            return
        self._doers = doers
        if weights != self._weights:  # as in next to no step
            self._weigh(weights)

    def _weigh(self, weights: list[float]) -> None:
        if len(weights) != len(self._weights):
            self._homes = [block.slots.home(len(weights)) for block in self.blocks]
        self._weights = weights
        self._weights_R = np.array(self._by_host(weights) if self._sends_means else weights)

    def of(self, k: int) -> Array:
        """A block's gradient, the caller's to change until it asks for another; of what is not
        learnt, the mean or first."""
        block = self.blocks[k]
        if self._panels is not None:
            return self._panels.of(block.region)
        rows_Rn = self._rows(k)
        if block.is_trained:
            return self.aggregate(rows_Rn, self._weights_R)
        if block.kind is Kind.COPIED:
            return np.array(rows_Rn[0])
        return mean(rows_Rn, self._weights_R)

    def _rows(self, k: int) -> Array:
        """What a block is reduced from: the gradients of shards, or their means of hosts."""
        if self._sends_means:
            return self._host_rows(*self.post.job.blocks[k][:2])
        if self._doers is None:
            return self._homes[k]
        live = range(len(self._weights))
        return self.blocks[k].slots.gathered(live, self._doers, self.post.share.owners)

    def _by_host(self, weights: list[float]) -> list[float]:
        """Weights of the hosts that have shards in this step."""
        parts = self.post.job.live_parts(len(weights))
        self._hosts = [host for host, part in enumerate(parts) if part]
        return [sum(weights[part.start : part.stop]) for part in parts if part]

    def _host_rows(self, start: int, stop: int) -> Array:
        """The means of the hosts that have shards, which always lie alike."""
        rows_HN = self._host_rows_HN
        if len(self._hosts) == len(rows_HN):
            return np.asarray(rows_HN[:, start:stop])
        rows_Rn = padded_rows(len(self._hosts), stop - start, rows_HN.dtype)
        rows_Rn[...] = rows_HN[self._hosts, start:stop]
        return rows_Rn

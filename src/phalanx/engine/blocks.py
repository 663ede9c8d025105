"""The blocks of the parameters: each is reduced, saved and updated by its owner, or its heir."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from phalanx.arena import Arena
from phalanx.engine.all_reduced import AllReduced
from phalanx.engine.block import Block
from phalanx.engine.journal import Journal
from phalanx.engine.ledger import Ledger
from phalanx.engine.post import Post
from phalanx.engine.reduction import Reduction
from phalanx.engine.shards import Shards
from phalanx.job import UNCLIPPED
from phalanx.pure.arrays import Array, aligned_empty


class Blocks:
    """Seen by one worker. A block has one writer at a time, alive or found dead."""

    def __init__(self, post: Post, arena: Arena, shards: Shards) -> None:
        job = post.job
        self.post, self.shards = post, shards
        # one for all, so that it stays in the cache
        shared_n = aligned_empty((job.largest_block,), arena["values"].dtype)
        self.blocks = [Block(job, arena, k, at, shared_n) for k, at in enumerate(job.blocks)]
        self.journal = Journal(arena, post.rank)
        self.ledger = Ledger(arena, job.n_validation > 0)
        self.reduction = Reduction(post, arena, self.blocks)
        self.all_reduced: AllReduced | None = None
        if job.divides_blocks or job.clip.norm is not None:
            self.all_reduced = AllReduced(post, arena, self.reduction)
        self.done = post.board.blocks
        self.clip, self._clips = job.clip, job.clip != UNCLIPPED
        self._skips = job.nonfinite == "skip"
        self.losses, self.weights = arena.words("losses"), arena.words("weights")
        self.penalties, self.measures_TM = arena.words("penalties"), arena["measures"]

    def update_mine(self, doers: Sequence[int] | None) -> None:
        """Update those that fall to me from the shards that `doers` computed."""
        losses, weights, *measures = self.shards.outcomes(doers or self.post.share.owners)
        self._loss, self._weight = sum(losses), sum(weights)
        self._measures = [sum(measure_S) for measure_S in measures]
        self._is_skipped = self._skips and not isfinite(self._loss)
        self._rate = self.ledger.rate(self.post.moment.row)
        self.reduction.begin(doers, self.shards.counts, weights, self.shards.given())
        self._scale = 1.0
        if self.all_reduced is not None and (self.all_reduced.are_divided or not self._is_skipped):
            self._scale = self.all_reduced.make()
        self.inherit()

    def inherit(self) -> None:
        """Update those that fall to me and are not yet done."""
        for k in self.post.share.blocks:
            if self.done[k] < self.post.tick:
                self._update(k)

    def are_done(self) -> bool:
        """Whether everybody's are."""
        return all(done >= self.post.tick for done in self.done)

    def mend(self, tick: int) -> None:
        """Undo what a former process in my seat had begun in a tick that is still open."""
        k = self.journal.unfinished(tick)
        if k is not None and self.done[k] < tick:
            self.journal.restore(tick, k, self.blocks[k].values_Xn)
            self.journal.clear()

    def _update(self, k: int) -> None:
        post, block = self.post, self.blocks[k]
        tick, moment = post.tick, post.moment
        penalty = 0.0
        if self._is_skipped:
            block.skip(moment)
        else:
            post.presence.at("reduce", k)
            if not post.share.is_whole:
                self.journal.restore(tick, k, block.values_Xn)
            grad_n = self._gradient(k)
            self.journal.save(tick, k, block.values_Xn)
            post.presence.at("update", k)
            penalty = block.update(grad_n, self._weight, moment, self._rate)
        self.penalties[moment.step * len(self.blocks) + k] = penalty
        if k == 0:
            self._note_outcome(moment.step)
        post.presence.at("commit", k)
        post.board.publish(self.done, k, tick)

    def _gradient(self, k: int) -> Array:
        """The gradient that a block is to be updated by, which the update may change."""
        grad_n = self.reduction.of(k) if self.all_reduced is None else self.all_reduced.take(k)
        if self._clips and self.blocks[k].is_trained:
            self.clip.apply(grad_n, self._scale)
        return grad_n

    def _note_outcome(self, step: int) -> None:
        """What the step's shards came to, for the epoch's loss: with the first block, since it is
        done once by whoever updates it."""
        self.losses[step] = self._loss
        self.weights[step] = self._weight or 1.0  # of samples that all weigh nothing
        if self._measures:
            self.measures_TM[step] = self._measures

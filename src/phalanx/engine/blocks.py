"""The blocks of the parameters: each is reduced, saved and updated by its owner, or its heir."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phalanx.aggregation import checked
from phalanx.arena import Arena
from phalanx.engine.block import Block
from phalanx.engine.journal import Journal
from phalanx.engine.ledger import Ledger
from phalanx.engine.post import Post
from phalanx.engine.shards import Shards


class Blocks:
    """Seen by one worker. A block has one writer at a time, alive or found dead."""

    def __init__(self, post: Post, arena: Arena, shards: Shards) -> None:
        self.post, self.shards = post, shards
        self.blocks = [Block(post.job, arena, bounds) for bounds in post.job.blocks]
        self.journal = Journal(arena, post.rank)
        self.ledger = Ledger(arena, post.job.n_validation > 0)
        self.aggregate = checked(post.job.aggregation)
        self.done = post.board.blocks
        self.losses, self.weights = arena.words("losses"), arena.words("weights")
        self.penalties_TK = arena["penalties"]

    def update_mine(self, doers: Sequence[int] | None) -> None:
        """Update those that fall to me from the shards that `doers` computed."""
        self._doers = doers
        losses, weights = self.shards.outcomes(doers or self.post.share.owners)
        self._loss, self._weight = sum(losses), sum(weights)
        self._weights_S = np.array(weights)
        self._rate = self.ledger.rate(self.post.moment.row)
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

    def _update(self, k: int) -> None:
        post, block = self.post, self.blocks[k]
        tick, moment = post.tick, post.moment
        post.presence.at("reduce", k)
        if not post.share.is_whole:
            self.journal.restore(tick, k, block.values_Xn)
        grads_Sn = block.grads(self.shards.live, self._doers, post.share.owners)
        grad_n = self.aggregate(grads_Sn, self._weights_S)
        self.journal.save(tick, k, block.values_Xn)
        post.presence.at("update", k)
        penalty = block.update(grad_n, self._weight, moment.updates + 1, self._rate)
        self.penalties_TK[moment.step, k] = penalty
        if k == 0:
            self.losses[moment.step], self.weights[moment.step] = self._loss, self._weight
        post.presence.at("commit", k)
        post.board.publish(self.done, k, tick)

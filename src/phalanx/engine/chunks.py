"""The chunks of the validation samples, scored after an epoch."""

from __future__ import annotations

import numpy as np

from phalanx.arena import Arena
from phalanx.data.samples import Samples
from phalanx.engine.post import Post
from phalanx.exchange.board import fence
from phalanx.exchange.tally import Tally
from phalanx.models.base import Model, Score
from phalanx.pure.randomness import Key


class Chunks:
    """Seen by one worker. Like a shard, a chunk may be scored twice; like a shard's gradient, its
    sums lie in memory of whoever scored it."""

    def __init__(
        self, post: Post, arena: Arena, samples: Samples, score: Score, model: Model
    ) -> None:
        self.post, self.model, self.score = post, model, score
        self.bounds = post.job.chunks
        self._here = post.job.chunk_parts[post.job.place.host]
        self.samples = samples.gatherer(self.bounds[0][1])
        self.done = Tally(arena, "chunks_done", post.rank)
        self.partials_VM = arena["partials"][post.rank]

    def score_mine(self) -> None:
        """Score those that fall to me and are not yet done."""
        for v in self.post.share.chunks:
            if not self._is_done(v):
                self._score(v)

    def wait_for_other_hosts(self) -> None:
        """Until they have this host's sums, and this one theirs."""
        self.post.exchange.chunks(self.post.tick)
        if self.post.is_exchanged:
            return
        for _ in self.post.waiting():
            if self.post.is_exchanged:
                return
            if self.post.hear():
                self.score_mine()

    def score_late(self) -> bool:
        """Score one that its owner is late with; False if there is none for me."""
        late = (v for v in self._here if not self._is_done(v))
        v = next(late, None) if self.post.share.may_help else None
        if v is not None:
            self._score(v)
        return v is not None

    def are_done(self) -> bool:
        """Whether everybody's are."""
        return self.post.is_exchanged and all(self._is_done(v) for v in range(len(self.bounds)))

    def _is_done(self, v: int) -> bool:
        everybody = (*self.post.share.others, self.post.rank)
        return self.done.doer(v, self.post.tick, everybody) is not None

    def _score(self, v: int) -> None:
        """Sums of the score over one chunk; published unless somebody else was quicker, since by
        then the parameters may be changing again."""
        post = self.post
        post.presence.at("evaluate", v)
        key = Key.of_chunk(v, post.job.plan.seed)
        rows = self.samples.rows(np.arange(*self.bounds[v]), key)
        sums = self.score.sums(self.model, rows)
        fence()  # they are read before I look
        if self.done.doer(v, post.tick, post.share.others) is None:
            self.partials_VM[v, : len(sums)] = sums
            self.done.publish(v, post.tick)

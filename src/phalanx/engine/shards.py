"""The shards of a step: computing those that fall to a worker, and waiting for the others'."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from phalanx.arena import Arena
from phalanx.data.entries import SparseRows
from phalanx.data.samples import Samples
from phalanx.engine.ledger import Ledger
from phalanx.engine.making import Batch, maker_of
from phalanx.engine.post import Post
from phalanx.errors import NonFiniteLoss
from phalanx.exchange.board import fence
from phalanx.exchange.tally import Tally
from phalanx.models.base import Model
from phalanx.models.local import LocalModel
from phalanx.pure.arrays import Array


class Shards:
    """Seen by one worker. What a shard of mine leaves goes home if I own it by the plan, else to a
    place of mine, so that nobody ever writes where another may."""

    def __init__(self, post: Post, arena: Arena, samples: Samples, model: Model) -> None:
        self.post, self.model = post, model
        self.plan = post.job.plan
        self._maker = maker_of(post, arena, samples, model)
        self._stops = post.job.nonfinite == "stop"
        self._local = model if isinstance(model, LocalModel) else None
        self._ledger, self._settings = Ledger(arena, is_scored=False), arena["settings"]
        self.done = Tally(arena, "shards_done", post.rank)
        self.results = arena.words("results")  # of all workers: (loss, weight) of each shard
        self._width = 2 + post.job.model.n_measures
        self._stride = self._width * self.plan.n_shards
        self._order: tuple[int, Array] = (-1, np.empty(0, np.intp))
        self._grouped: tuple[Any, Any, list[Sequence[int]]] = (None, None, [])
        self._doers: Sequence[int] = ()  # at the last look,
        self._places: list[int] = []  # and where their results lay
        self.batch = Batch(self._order[1], [])  # of this step
        self.live = 0  # shards that have samples in it,
        self.counts: list[int] = []  # and how many

    def begin(self) -> None:
        """A step begins."""
        moment = self.post.moment
        if self._order[0] != moment.epoch:
            self._order = moment.epoch, self.plan.order(moment.epoch)
        start, stop = self.plan.batch(moment.step)
        bounds = self.plan.offsets(stop - start)
        if bounds is not self.batch.bounds:  # the same list in nearly all steps
            self.counts = [last - first for first, last in bounds]
        self.batch = Batch(self._order[1][start:stop], bounds)
        self.live = len(bounds)
        if self._local is not None:
            rate, beat = self._ledger.rate(moment.row), self.post.presence.beat
            self._local.begin(moment, rate, self._settings, beat)

    def compute_mine(self) -> int:
        """Compute those that fall to me; how many they were."""
        share = self.post.share
        if share.is_regular:
            groups = self._groups()
            for group in groups:
                self._compute(group)
            return sum(map(len, groups))
        computed = 0
        for s in share.shards:
            if s < self.live and not self._is_taken(s):
                self._compute([s])
                computed += 1
        return computed

    def _groups(self) -> list[Sequence[int]]:
        """Of my shards that have samples, those together that are computed at once."""
        shards, bounds = self.post.share.shards, self.batch.bounds
        if self._grouped[0] is not shards or self._grouped[1] is not bounds:
            mine = [s for s in shards if s < self.live]
            self._grouped = shards, bounds, self._maker.groups(mine)
        return self._grouped[2]  # the same in nearly all steps

    def wait_for_all(self) -> Sequence[int] | None:
        """Wait until every shard is done; who did each, or None if every owner did its own."""
        post, words = self.post, self.done.words
        post.presence.at("wait")
        post.exchange.shards(post.tick)
        tick, share = post.tick, post.share
        for place in share.expected[: self.live]:
            if words[place] < tick and not post.board.spin(words, place, tick):
                return self._help()
        if not post.is_gathered:
            return self._help()
        fence()
        return None if share.is_whole else share.heirs[: self.live]

    def given(self) -> SparseRows | None:
        """The samples of this step, if they are a factor that nobody leaves."""
        return self._maker.given(self.batch)

    def outcomes(self, doers: Sequence[int]) -> list[list[float]]:
        """By shard: the losses, the weights, and each of the measures."""
        results = self.results
        if doers is not self._doers or len(self._places) != self.live:
            stride, width = self._stride, self._width
            self._doers = doers  # the same list in nearly all steps
            self._places = [doers[s] * stride + s * width for s in range(self.live)]
        columns = range(self._width)
        return [[results[place + column] for place in self._places] for column in columns]

    def _help(self) -> Sequence[int]:
        """While a shard is missing, compute those that nobody else will, or not soon."""
        post = self.post
        for wait in post.waiting():
            doers = [self._doer(s) for s in range(self.live)]
            missing = [s for s, doer in enumerate(doers) if doer is None]
            if not missing and post.is_gathered:
                break
            post.hear()
            s = post.share.to_help(missing, post.tick, wait.is_long) if missing else None
            while s is not None:
                self._compute([s])
                wait.begin_anew()
                missing.remove(s)
                s = post.share.to_help(missing, post.tick, False) if missing else None
        fence()
        return [doer for doer in doers if doer is not None]

    def _doer(self, s: int) -> int | None:
        """Who has done a shard; its owner before others, since its slot is the quickest to read."""
        share, post = self.post.share, self.post
        return self.done.doer(s, post.tick, (share.owners[s], *share.others, post.rank))

    def _is_taken(self, s: int) -> bool:
        """Whether somebody else has done a shard of mine, or is at it."""
        post = self.post
        return self._doer(s) is not None or post.share.is_begun(s, post.tick)

    def _compute(self, group: Sequence[int]) -> None:
        """Compute shards, those of a group at once, and let the others have them."""
        post = self.post
        for s in group:
            post.share.begin(s, post.tick)
        outcomes = self._maker.make(group, self.batch)
        for s, outcome in zip(group, outcomes, strict=True):
            self._publish(s, outcome)
        post.exchange.look(post.tick)

    def _publish(self, s: int, outcome: Sequence[float]) -> None:
        """Let the others have a shard, unless it is published already."""
        post = self.post
        if self._stops and not isfinite(outcome[0]):
            moment = post.moment
            raise NonFiniteLoss(outcome[0], moment.updates, moment.epoch, s)
        post.presence.at("publish", s)
        # If it is published already, the update may have begun while I computed: mine may be of
        # half-changed parameters, and nobody needs it. If not, it cannot have.
        fence()  # they are read before I look
        if self.done.doer(s, post.tick, post.share.others) is None:
            for place, figure in enumerate(outcome, post.rank * self._stride + self._width * s):
                self.results[place] = figure
            self.done.publish(s, post.tick)

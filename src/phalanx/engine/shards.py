"""The shards of a step: computing those that fall to a worker, and waiting for the others'."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from phalanx.arena import Arena
from phalanx.data.samples import Samples
from phalanx.engine.ledger import Ledger
from phalanx.engine.post import Post
from phalanx.engine.slots import Slots
from phalanx.errors import NonFiniteLoss
from phalanx.exchange.board import fence
from phalanx.exchange.tally import Tally
from phalanx.models.base import FactoredModel, Model
from phalanx.models.local import LocalModel
from phalanx.pure.arrays import Array
from phalanx.pure.layout import Kind
from phalanx.pure.randomness import Key
from phalanx.pure.rounding import EXACT


class Shards:
    """Seen by one worker. A shard's gradient goes to its home slot if I own the shard by the plan,
    else to a slot of mine, so that nobody ever writes where another may."""

    def __init__(self, post: Post, arena: Arena, samples: Samples, model: Model) -> None:
        self.post, self.model = post, model
        self.plan = post.job.plan
        self._stops = post.job.nonfinite == "stop"
        self._local = model if isinstance(model, LocalModel) else None
        self._ledger, self._settings = Ledger(arena, is_scored=False), arena["settings"]
        self._factored = model if isinstance(model, FactoredModel) else None
        rows, self._at_once = self.plan.max_shard_rows, 1
        # where there are other hosts, one shard travels while the next is computed
        if self._factored is not None and post.job.place.is_alone:
            self._at_once = max(1, self._factored.rows_at_once // rows)
        if self._local is not None:  # replicas take their rows step by step
            self._gatherers: Any = [self._local.gatherer(samples)]
        else:  # one for each shard that is computed at once
            self._gatherers = [samples.gatherer(rows) for _ in range(self._at_once)]
        self.done = Tally(arena, "shards_done", post.rank)
        self.results = arena.words("results")  # of all workers: (loss, weight) of each shard
        self._width = 2 + post.job.model.n_measures
        self._stride = self._width * self.plan.n_shards
        self._slots = Slots(arena, 0, post.job.model.slot_size)
        self._order: tuple[int, Array] = (-1, np.empty(0, np.intp))
        self.live = 0  # shards of this step that have samples
        self._rounding = post.job.rounding
        regions = post.job.model.regions if post.job.wire != EXACT else ()
        self._rounded = [slice(r.start, r.stop) for r in regions if r.kind is Kind.TRAINED]
        self._doers: Sequence[int] = ()  # at the last look,
        self._places: list[int] = []  # and where their results lay
        self._batch_B = self._order[1]  # samples of this step
        self._offsets: list[tuple[int, int]] = []  # of the shards in it,
        self.counts: list[int] = []  # and their rows

    def begin(self) -> None:
        """A step begins."""
        moment = self.post.moment
        if self._order[0] != moment.epoch:
            self._order = moment.epoch, self.plan.order(moment.epoch)
        start, stop = self.plan.batch(moment.step)
        self._batch_B = self._order[1][start:stop]
        offsets = self.plan.offsets(stop - start)
        if offsets is not self._offsets:  # the same list in nearly all steps
            self._offsets, self.counts = offsets, [last - first for first, last in offsets]
        self.live = len(offsets)
        if self._local is not None:
            rate, beat = self._ledger.rate(moment.row), self.post.presence.beat
            self._local.begin(moment, rate, self._settings, beat)

    def compute_mine(self) -> int:
        """Compute those that fall to me; how many they were."""
        computed, post = 0, self.post
        if self._at_once > 1 and post.share.is_regular and self._is_full:
            return self._compute_together(post.share.shards)
        for s in post.share.shards:
            if s < self.live and (post.share.is_regular or not self._is_taken(s)):
                self._compute(s)
                post.exchange.look(post.tick)
                computed += 1
        return computed

    @property
    def _is_full(self) -> bool:
        """Whether the step's batch is as large as others: what is quicker is found out by size."""
        return len(self._batch_B) == self.plan.batch_size

    def _compute_together(self, shards: list[int]) -> int:
        """As many at once as the model is quicker with."""
        assert self._factored is not None
        for first in range(0, len(shards), self._at_once):
            group = shards[first : first + self._at_once]
            tasks = [self._task(s, place) for place, s in enumerate(group)]
            outcomes = self._factored.gradients(tasks)
            for s, (_, slot_N, _), outcome in zip(group, tasks, outcomes, strict=True):
                self._publish(s, slot_N, outcome)
                self.post.exchange.look(self.post.tick)
        return len(shards)

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
                self._compute(s)
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

    def _compute(self, s: int) -> None:
        task = self._task(s)
        self._publish(s, task[1], self.model.gradient(*task))

    def _task(self, s: int, place: int = 0) -> tuple[Any, Array, Key]:
        """Begin with a shard: its rows, its slot and its key. place: how many are begun already."""
        post, share, at = self.post, self.post.share, self.post.presence.at
        share.begin(s, post.tick)
        at("read", s)
        first, last = self._offsets[s]
        key = Key(self.plan.seed, post.moment.updates, s)
        rows = self._gatherers[place].rows(self._batch_B[first:last], key)
        at("compute", s)
        return rows, self._slots.one(s, post.rank, share.owners[s]), key

    def _publish(self, s: int, grad_N: Array, outcome: Sequence[float]) -> None:
        """Let the others have a shard, unless it is published already."""
        post = self.post
        for trained in self._rounded:
            self._rounding.apply(grad_N[trained])
        if self._stops and not isfinite(outcome[0]):
            moment = post.moment
            raise NonFiniteLoss(outcome[0], moment.updates, moment.epoch, s)
        post.presence.at("publish", s)
        # If it is published already, the update may have begun while I computed: mine may be of
        # half-changed parameters, and nobody needs it. If not, it cannot have.
        if self.done.doer(s, post.tick, post.share.others) is None:
            for place, figure in enumerate(outcome, post.rank * self._stride + self._width * s):
                self.results[place] = figure
            self.done.publish(s, post.tick)

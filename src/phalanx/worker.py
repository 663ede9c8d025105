"""A worker: the step as a transaction.

Every shard's gradient is computed by somebody, every block is reduced in shard order and updated
by somebody, then the step is committed: the leader opens the next one. Nothing here depends on
how many workers there are or who does what; that is the assignment's business, and where an owner
is dead or late its tasks fall to others (share.py says to whom).
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import numpy as np

from phalanx.aggregation import checked
from phalanx.arena import Arena
from phalanx.arrays import Array
from phalanx.block import Block
from phalanx.data.samples import Gatherer, Samples
from phalanx.exchange.board import ABORT, LAST, OPENED, Aborted, Board, Pause, fence
from phalanx.exchange.seats import Seats
from phalanx.exchange.tally import Tally
from phalanx.faults import Script
from phalanx.job import SPAN_COLUMNS, Job, Lease
from phalanx.journal import Journal
from phalanx.leader import Leader
from phalanx.presence import Presence
from phalanx.randomness import DROPOUT, keyed
from phalanx.share import Share
from phalanx.timetable import EVALUATION, Moment

BEGUN, COMPUTE, UPDATE, WAIT, SHARDS = range(SPAN_COLUMNS)


class Worker:
    """One worker's view of a job: its buffers, its share, and the arena that it shares."""

    def __init__(
        self,
        job: Job,
        arena: Arena,
        training: Samples,
        validation: Samples | None,
        rank: int,
        life: int = 1,
        script: Script = (),
    ) -> None:
        self.job, self.rank, self.life = job, rank, life
        self.board, self.seats = Board(arena), Seats(arena)
        self.presence = Presence(self.seats, rank, life, script)
        self.share = Share(job, arena, self.board, self.seats, rank)
        self.leader = Leader(job, arena, self.board, self.seats)
        self.journal = Journal(arena, rank)
        self.shards = Tally(arena, "shards_done", rank)
        self.chunks = Tally(arena, "chunks_done", rank)
        self.model = job.model.build(arena["values"][0])
        self.training = Gatherer(training, job.plan.max_shard_rows)
        self.validation = Gatherer(validation, job.chunks[0][1]) if validation else None
        self.losses, self.weights = arena.words("losses"), arena.words("weights")
        self.penalties_TK, self.partials_VM = arena["penalties"], arena["partials"][rank]
        self.results = arena.words("results")  # of all workers: (loss, weight) of each shard
        self.slots = list(arena["grads"])
        self.slots_away = list(arena["grads_away"][rank]) if len(arena["grads_away"]) else []
        self.speed = arena.words("speed")[2 * rank : 2 * rank + 2]  # shards computed, seconds
        self.spans = arena.words("spans")
        self.blocks = [Block(job, arena, bounds) for bounds in job.blocks]
        self.aggregate = checked(job.aggregation)
        self._order: tuple[int, Array] = (-1, np.empty(0, np.intp))

    def run(self, lease: Lease) -> None:
        """Train for the epochs of a lease, or until the leader closes the door."""
        self.timetable = self.job.timetable(lease)
        self.leader.begin(lease, self.timetable)
        first = self._admission(lease.tick)
        if first is None:
            return
        self.tick = first
        with np.errstate(all="ignore"):  # a NaN shows in the loss, and at the end of the run
            arrived = monotonic()
            while self._enter():
                if self.moment.step == EVALUATION:
                    arrived = self._evaluate(arrived)
                else:
                    arrived = self._step(arrived)

    def _admission(self, tick: int) -> int | None:
        """Wait until the leader has let me in; the tick before the first that I count in.

        None if the door was closed before.
        """
        self.presence.tick = tick
        self.presence.at("join")
        self.board.publish(self.seats.born, self.rank, self.life)
        pause, door, seats = Pause(), self.board.door, self.seats
        while seats.admitted[self.rank] < self.life or seats.since[self.rank] > door[OPENED]:
            if door[ABORT]:
                raise Aborted
            if door[OPENED] > door[LAST]:
                return None
            self.presence.beat()
            pause()
        first = int(max(tick, seats.since[self.rank] - 1))
        block = self.journal.unfinished(first + 1)
        if block is not None and self.board.blocks[block] <= first:
            self.journal.restore(first + 1, block, self.blocks[block].values_Xn)
        if door[OPENED] == first:  # else there is a tick to enter, and it is looked at then
            self.share.muster(first)
        return first

    def _enter(self) -> bool:
        """Begin the next tick once everything before it is done; False if there is none."""
        door = self.board.door
        if self.share.leads:
            if self._all_left():
                self._open()
        else:
            self.board.spin(door, OPENED, self.tick + 1)
        if door[OPENED] <= self.tick:
            self._linger()
        fence()
        if door[OPENED] > door[LAST]:
            return False
        self.tick = self.presence.tick = door[OPENED]  # I may have been away for some ticks
        self.moment: Moment = self.timetable.at(self.tick)
        self.presence.step = self.moment.updates
        if self.share.is_outdated():
            self.share.muster(self.tick)
        self.presence.at("enter")
        return True

    def _step(self, arrived: float) -> float:
        """One step; returns the time of its end."""
        if self._order[0] != self.moment.epoch:
            self._order = self.moment.epoch, self.job.plan.order(self.moment.epoch)
        begun = monotonic()
        start, stop = self.job.plan.batch(self.moment.step)
        self.live = min(stop - start, len(self.slots))  # shards that have samples
        computed = self._compute()
        after = monotonic()
        self.speed[0] += computed
        self.speed[1] += after - begun
        self.presence.at("wait")
        doers = self._all_shards()
        ready = monotonic()
        self._update(doers)
        done = monotonic()
        self._note(after - begun, done - ready, begun - arrived + ready - after, computed)
        return done

    def _compute(self) -> int:
        """The gradients of the shards that fall to me; how many they were."""
        computed = 0
        for s in self.share.shards:
            if s < self.live and not self._is_taken(s):
                self._compute_shard(s)
                computed += 1
        return computed

    def _is_taken(self, s: int) -> bool:
        """Whether somebody else has done a shard of mine, or is at it."""
        if self.share.is_regular:
            return False
        return self._doer(s) is not None or self.share.is_begun(s, self.tick)

    def _compute_shard(self, s: int) -> None:
        """One shard's gradient, into its home slot if I own it, else into a slot of mine."""
        self.share.begin(s, self.tick)
        self.presence.at("read", s)
        start, stop = self.job.plan.shard(self.moment.step, s)
        rows = self.training.rows(self._order[1][start:stop])
        self.presence.at("compute", s)
        draws = self.job.model.draws
        rng = keyed(self.job.plan.seed, DROPOUT, self.moment.updates, s) if draws else None
        slots = self.slots if self.share.owners[s] == self.rank else self.slots_away
        loss, weight = self.model.gradient(rows, slots[s], rng)
        self.presence.at("publish", s)
        # If it is published already, the update may have begun while I computed: mine may be of
        # half-changed parameters, and nobody needs it. If not, it cannot have.
        if self.shards.doer(s, self.tick, self.share.others) is None:
            place = 2 * (self.rank * len(self.slots) + s)
            self.results[place], self.results[place + 1] = loss, weight
            self.shards.publish(s, self.tick)

    def _all_shards(self) -> Sequence[int] | None:
        """Wait until every shard is done; who did each, or None if each did its own."""
        words = self.shards.words
        for s in range(self.live):
            if not self.board.spin(words, self.share.expected[s], self.tick):
                return self._help()
        fence()
        return None if self.share.is_whole else self.share.heirs

    def _help(self) -> Sequence[int]:
        """While a shard is missing, compute those that nobody else will, or not soon."""
        pause, since, own_time = Pause(), monotonic(), self._shard_time()
        while True:
            doers = [self._doer(s) for s in range(self.live)]
            missing = [s for s, doer in enumerate(doers) if doer is None]
            if not missing:
                fence()
                return [doer for doer in doers if doer is not None]
            self._hear()
            self.presence.beat()
            waited = monotonic() - since
            s = self.share.to_help(missing, self.tick, waited > own_time)
            if s is None:
                pause()
            else:
                self._compute_shard(s)
                since = monotonic()

    def _doer(self, s: int) -> int | None:
        """Who has done a shard; its owner before others, since its slot is the quickest to read."""
        owner = self.share.owners[s]
        return self.shards.doer(s, self.tick, (owner, *self.share.others, self.rank))

    def _shard_time(self) -> float:
        """Seconds that I wait before I compute what another is late with: twice my own time."""
        shards, seconds = self.speed
        return 0.002 + 2 * (seconds / shards if shards else 0.01)

    def _update(self, doers: Sequence[int] | None) -> None:
        """Reduce each of my blocks in shard order and let the optimiser change it."""
        self._doers = doers
        who, stride = doers or self.share.owners, 2 * len(self.slots)
        places = [who[s] * stride + 2 * s for s in range(self.live)]
        self._losses = [self.results[place] for place in places]
        weights = [self.results[place + 1] for place in places]
        self._weights_S, self._weight = np.array(weights), sum(weights)
        for k in self.share.blocks:
            self._update_block(k)
        self.presence.at("leave")
        self.board.publish(self.seats.left, self.rank, self.tick)

    def _update_block(self, k: int) -> None:
        if self.board.blocks[k] >= self.tick:
            return
        block, step = self.blocks[k], self.moment.step
        self.presence.at("reduce", k)
        if not self.share.is_whole:
            self.journal.restore(self.tick, k, block.values_Xn)
        grads_Sn = block.grads(self.live, self._doers, self.share.owners)
        grad_n = self.aggregate(grads_Sn, self._weights_S)
        weight = self._weight
        self.journal.save(self.tick, k, block.values_Xn)
        self.presence.at("update", k)
        rate = self.leader.ledger.rate(self.moment.row)
        self.penalties_TK[step, k] = block.update(grad_n, weight, self.moment.updates + 1, rate)
        if k == 0:
            self.losses[step], self.weights[step] = sum(self._losses), weight
        self.presence.at("commit", k)
        self.board.publish(self.board.blocks, k, self.tick)

    def _evaluate(self, arrived: float) -> float:
        """Score the validation samples; returns the time of the end."""
        begun = monotonic()
        for v in self.share.chunks:
            self._score(v)
        self.presence.at("leave")
        self.board.publish(self.seats.left, self.rank, self.tick)
        done = monotonic()
        self._note(done - begun, 0.0, begun - arrived, 0)
        return done

    def _score(self, v: int) -> None:
        """Sums of the score over one chunk of the validation samples."""
        assert self.job.score is not None
        assert self.validation is not None
        self.presence.at("evaluate", v)
        rows = self.validation.rows(np.arange(*self.job.chunks[v]))
        target = rows.classes_B if rows.classes_B is not None else rows.target_OB.T
        weight_B = np.ones(rows.count) if rows.weight_B is None else rows.weight_B
        sums = self.job.score.partial(target, self.model.outputs(rows), weight_B)
        if self.chunks.doer(v, self.tick, self.share.others) is None:
            self.partials_VM[v, : len(sums)] = sums
            self.chunks.publish(v, self.tick)

    def _all_left(self) -> bool:
        """Whether all who owned something in this tick have soon done with it."""
        left = self.seats.left
        if not self.share.is_whole or self.tick == self.timetable.tick:
            return self._is_complete()
        return all(self.board.spin(left, rank, self.tick) for rank in self.share.active)

    def _open(self) -> None:
        if self.leader.open(self.tick + 1):
            self.presence.at("open")
            self.board.open(self.tick + 1)

    def _linger(self) -> None:
        """Wait for the next tick; do what the dead have left undone, and lead if it falls to me."""
        pause, since, own_time = Pause(), monotonic(), self._shard_time()
        door = self.board.door
        while door[OPENED] <= self.tick:
            self.presence.beat()
            if self._hear():
                self._inherit()
            if self.share.leads and self._is_complete():
                self._open()
            elif monotonic() - since > own_time and self._score_late():
                since = monotonic()
            else:
                pause()

    def _hear(self) -> bool:
        """Whether somebody has died since I last looked. Raises Aborted if somebody failed."""
        if self.board.door[ABORT]:
            raise Aborted
        return self.share.hear(self.tick)

    def _inherit(self) -> None:
        """Do what has fallen to me in the tick that I am in."""
        if self.tick == self.timetable.tick:
            return
        if self.moment.step != EVALUATION:
            for k in self.share.blocks:
                self._update_block(k)
        else:
            for v in self.share.chunks:
                if self.chunks.doer(v, self.tick, self.seats.members()) is None:
                    self._score(v)

    def _score_late(self) -> bool:
        """Score a chunk that its owner is late with; False if there is none."""
        if self.tick == self.timetable.tick or self.moment.step != EVALUATION:
            return False
        everybody = self.seats.members()
        for v in range(len(self.job.chunks)):
            if self.share.may_help and self.chunks.doer(v, self.tick, everybody) is None:
                self._score(v)
                return True
        return False

    def _is_complete(self) -> bool:
        """Whether everything of this tick is done, by whomever."""
        if self.tick == self.timetable.tick:
            return True
        if self.moment.step != EVALUATION:
            return all(done >= self.tick for done in self.board.blocks)
        everybody = self.seats.members()
        chunks = range(len(self.job.chunks))
        return all(self.chunks.doer(v, self.tick, everybody) is not None for v in chunks)

    def _note(self, compute: float, update: float, wait: float, shards: int) -> None:
        """Add to the line of this epoch."""
        place = SPAN_COLUMNS * (self.rank * (len(self.spans) // SPAN_COLUMNS // self.seats.count)
                                + self.moment.row)  # fmt: skip
        spans = self.spans
        if not spans[place]:
            spans[place] = monotonic() - compute - update - wait
        spans[place + COMPUTE] += compute
        spans[place + UPDATE] += update
        spans[place + WAIT] += wait
        spans[place + SHARDS] += shards

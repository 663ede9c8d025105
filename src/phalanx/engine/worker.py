"""A worker: the step as a transaction.

Every shard's gradient is computed by somebody, every block is reduced in shard order and updated
by somebody, then the step is committed: the leader opens the next one. Nothing here depends on
how many workers there are or who does what; that is the assignment's business, and where an owner
is dead or late its tasks fall to others (share.py says to whom).
"""

from __future__ import annotations

from time import monotonic

import numpy as np

from phalanx.arena import Arena
from phalanx.data.samples import Samples
from phalanx.engine.blocks import Blocks
from phalanx.engine.chunks import Chunks
from phalanx.engine.exchange import NOBODY, Exchange
from phalanx.engine.leader import Leader
from phalanx.engine.post import Post
from phalanx.engine.shards import Shards
from phalanx.exchange.board import ABORT, LAST, OPENED, Aborted, fence
from phalanx.job import Job, Lease
from phalanx.pure.faults import Script
from phalanx.pure.timetable import EVALUATION


class Worker:
    """One worker's view of a job: its post, its parts, and the arena that it shares."""

    def __init__(
        self,
        job: Job,
        arena: Arena,
        training: Samples,
        validation: Samples | None,
        rank: int,
        life: int = 1,
        script: Script = (),
        exchange: Exchange = NOBODY,
    ) -> None:
        self.post = Post(job, arena, rank, life, script, exchange)
        self.board, self.door = self.post.board, self.post.board.door
        self.leader = Leader(job, arena, self.board, self.post.seats)
        model = job.model.build(arena["values"][0])
        self.shards = Shards(self.post, arena, training, model)
        self.blocks = Blocks(self.post, arena, self.shards)
        self.chunks: Chunks | None = None
        if validation is not None and job.score is not None:
            self.chunks = Chunks(self.post, arena, validation, job.score, model)

    def run(self, lease: Lease) -> None:
        """Train for the epochs of a lease, or until the leader closes the door."""
        self.post.timetable = self.post.job.timetable(lease)
        self.post.exchange.begin(self.post.timetable)
        self.leader.begin(lease, self.post.timetable)
        if not self._is_admitted(lease.tick):
            return
        arrived = monotonic()
        with np.errstate(all="ignore"):  # a NaN shows in the loss, and at the end of the run
            while self._enter():
                is_step = self.post.moment.step != EVALUATION
                arrived = self._step(arrived) if is_step else self._evaluate(arrived)

    def _step(self, arrived: float) -> float:
        """Compute, wait, update; returns the time of the end, to which the next step adds."""
        post = self.post
        self.shards.begin()
        begun = monotonic()
        computed = self.shards.compute_mine()
        after = monotonic()
        post.speed[0] += computed
        post.speed[1] += after - begun
        doers = self.shards.wait_for_all()
        ready = monotonic()
        self.blocks.update_mine(doers)
        post.leave()
        done = monotonic()
        post.note(after - begun, done - ready, begun - arrived + ready - after, computed)
        return done

    def _evaluate(self, arrived: float) -> float:
        """Score the validation samples; returns the time of the end."""
        assert self.chunks is not None
        begun = monotonic()
        self.chunks.score_mine()
        self.chunks.wait_for_other_hosts()
        self.post.leave()
        done = monotonic()
        self.post.note(done - begun, 0.0, begun - arrived, 0)
        return done

    def _is_admitted(self, tick: int) -> bool:
        """Wait until the leader lets me in, at the tick that I then count from; False if the door
        was closed before."""
        post, seats = self.post, self.post.seats
        post.tick = tick
        post.presence.enter(tick, 0)
        post.presence.at("join")
        self.board.publish(seats.born, post.rank, post.life)
        for _ in post.waiting():
            if self.door[ABORT]:
                raise Aborted
            since = seats.counts_from(post.rank, post.life)
            if since <= self.door[OPENED]:
                break
            if self.door[OPENED] > self.door[LAST]:
                return False
        post.tick = max(tick, since - 1)
        post.share.leads = False  # who led in an earlier lease finds out anew
        self.blocks.mend(post.tick + 1)
        if self.door[OPENED] == post.tick:  # else there is a tick to enter, and I look then
            post.share.muster(post.tick)
        return True

    def _enter(self) -> bool:
        """Begin the next tick once everything before it is done; False if there is none."""
        door, tick = self.door, self.post.tick
        if not self.post.share.leads:
            self.board.spin(door, OPENED, tick + 1)
        elif self._have_all_left():
            self._open()
        if door[OPENED] <= tick:
            self._linger()
        opened = door[OPENED]  # once: it may grow, and the next tick need not be one to enter
        fence()
        if opened > door[LAST]:
            return False
        self.post.enter(opened)  # I may have been away for some ticks
        return True

    def _open(self) -> None:
        """Open the next tick, unless whoever led before me did, and died in it: I lead since I saw
        that death, and what the dead wrote came before it."""
        tick, presence = self.post.tick + 1, self.post.presence
        fence()
        if self.door[OPENED] >= tick:
            return
        presence.say("open")  # to decide may end a process: the assignment may be the user's own
        if self.leader.open(tick):
            presence.at("open")
            self.board.open(tick)
        else:
            presence.say("leave")

    def _have_all_left(self) -> bool:
        """Whether all owners have soon done with this tick, and so with all that they own."""
        share, post = self.post.share, self.post
        if not share.is_whole or not post.has_begun:
            return self._is_complete()
        for rank in share.active:  # noqa: SIM110 (a generator would take longer than the look)
            if not self.board.spin(post.seats.left, rank, post.tick):
                return False
        return True

    def _is_complete(self) -> bool:
        """Whether everything of this tick is done, by whomever."""
        if not self.post.has_begun:
            return True
        return (self.chunks if self._evaluates else self.blocks).are_done()  # type: ignore

    @property
    def _evaluates(self) -> bool:
        return self.post.has_begun and self.post.moment.step == EVALUATION

    def _linger(self) -> None:
        """Wait for the next tick; do what the dead have left undone, and lead if it falls to me."""
        for wait in self.post.waiting():
            if self.door[OPENED] > self.post.tick:
                return
            if self.post.hear():
                self._inherit()
            if self.post.share.leads and self._is_complete():
                self._open()
            elif self._evaluates and wait.is_long and self.chunks and self.chunks.score_late():
                wait.begin_anew()

    def _inherit(self) -> None:
        """Do what has fallen to me in the tick that I am in."""
        if not self.post.has_begun:
            return
        if self._evaluates:
            assert self.chunks is not None
            self.chunks.score_mine()
        else:
            self.blocks.inherit()

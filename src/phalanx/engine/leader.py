"""The leader: the worker that speaks for all between two ticks.

Whoever is first among the living leads; if it dies, the next one decides anew. That is safe since
everything that the leader knows lies in the arena, and nobody goes by what it decided before it
has opened the tick, which is a single word. It decides by the pure rules alone.
"""

from __future__ import annotations

from time import monotonic

import numpy as np

from phalanx.arena import Arena
from phalanx.engine.ledger import Ledger
from phalanx.exchange.board import (
    ABORT,
    DEATHS,
    HALT,
    PLAN,
    SNAPSHOT_DUE,
    SNAPSHOT_TAKEN,
    WANTED,
    Aborted,
    Board,
    fence,
)
from phalanx.exchange.seats import Seats
from phalanx.job import EPOCH_SUMS, Job, Lease
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.assignment import assign, follows_speed, is_time_to_plan
from phalanx.pure.layout import bundles_of
from phalanx.pure.speeds import estimated
from phalanx.pure.stopping import judge
from phalanx.pure.timetable import Timetable


class Leader:
    """Opens ticks, admits newcomers, plans the assignment, judges epochs."""

    def __init__(self, job: Job, arena: Arena, board: Board, seats: Seats) -> None:
        self.job, self.arena, self.board, self.seats = job, arena, board, seats
        self.ledger = Ledger(arena, job.n_validation > 0)
        self._seen_W2 = np.zeros((job.n_seats, 2))
        self._settled = (-1, -1)  # deaths and wishes at which all who are wanted had their part
        self._speeds = [0.0] * job.n_seats  # until something was measured
        self._follows_speed = follows_speed(job.assignment)
        starts = [job.plan.batch(step)[0] for step in range(job.plan.n_steps)]
        host, blocks = job.place.host, job.blocks
        self._tasks = {
            "shard_owner": [range(s, s + 1) for s in job.shard_parts[host]],
            "block_owner": bundles_of(blocks, range(len(blocks))),
        }
        if job.divides_blocks:
            self._tasks["block_reducer"] = bundles_of(blocks, job.block_parts[host])
        self._penalty_weights_K = aligned_empty((len(job.blocks),), np.float64)
        self._penalty_weights_K[...] = 0.5 * job.alpha
        self._rows_T = np.diff([*starts, job.plan.n_visited]).astype(float)

    def begin(self, lease: Lease, timetable: Timetable) -> None:
        """Take a lease."""
        self._lease, self._timetable = lease, timetable
        self._begun = monotonic()

    def open(self, tick: int) -> bool:
        """Let `tick` begin, all before being done; False if the door was closed instead."""
        if self.board.door[ABORT]:
            raise Aborted
        before = tick - 1
        is_over = False
        if before > self._lease.tick and self._timetable.ends_epoch(before):
            is_over = self._judge(self._timetable.at(before).row)
        if self.job.keeps_snapshots:
            self._take_snapshot(before)
        if is_over or self.board.door[HALT]:
            self.board.close_after(before)
            return False
        self._regroup(tick)
        return True

    def _judge(self, row: int) -> bool:
        """Write an epoch's line into the ledger; whether the lease ends with it."""
        progress = self.ledger.progress(row)
        loss, sums = self._loss(), self._sums()
        score = self.job.score.final(sums) if self.job.score and len(sums) else None
        progress, reason = judge(self.job.rule, progress, self.job.plan.n_visited, loss, score)
        if progress.improved:
            self.arena["best"][:] = self.arena["values"][0]
        now = monotonic()
        self.ledger.write(row + 1, loss, score, now - self._begun, progress, reason)
        if self.job.model.n_measures or len(sums):
            self.ledger.write_sums(row + 1, self.arena["measures"].sum(axis=0), sums)
        self._begun = now
        return reason is not None or row + 1 == self._lease.n_epochs

    def _take_snapshot(self, tick: int) -> None:
        """Copy what a checkpoint needs, if the driver has asked for one by now."""
        door = self.board.door
        if not door[SNAPSHOT_TAKEN] < door[SNAPSHOT_DUE] <= tick:
            return
        for name in ("values", "best", "scalars", *EPOCH_SUMS):
            self.arena[f"snapshot_{name}"][...] = self.arena[name]
        self.board.publish(door, SNAPSHOT_TAKEN, tick)

    def _regroup(self, tick: int) -> None:
        """Admit who waits; divide the tasks anew if the living changed, or their speeds may have.

        Not while an owner is still at an earlier tick: it may be writing its shard's gradient into
        the slot that goes with the ownership.
        """
        door = self.board.door
        is_due = self._follows_speed and is_time_to_plan(tick)
        known = door[DEATHS], door[WANTED]  # read before the seats, which may change meanwhile
        if self._settled == known and not is_due and not self._is_torn:
            return
        fence()
        self._admit(self.seats.newcomers(), tick)
        owners, living = self.seats.active(), self.seats.alive(tick)
        wanted = [rank for rank in living if rank < door[WANTED]] or living[:1]
        is_wrong = wanted != owners or self._is_torn
        if (is_due or is_wrong) and self._all_left(owners, living, tick - 1):
            self._divide(wanted)
            is_wrong = False
        if not is_wrong and wanted == list(range(door[WANTED])):  # nobody is missing
            self._settled = known

    def _admit(self, newcomers: list[int], tick: int) -> None:
        """Let them count from a tick on."""
        if newcomers:
            self._renew_plan(by=2)
            for rank in newcomers:
                self.seats.admit(rank, tick)
            self._renew_plan(by=2)

    @property
    def _is_torn(self) -> bool:
        """Whether a leader has died while it divided, and left a plan that is none."""
        return bool(self.board.door[PLAN] % 2)

    def _all_left(self, owners: list[int], living: list[int], tick: int) -> bool:
        """Whether every living owner has done with `tick`, given a moment for its last word."""
        if tick == self._lease.tick:
            return True
        left = self.seats.left
        return all(self.board.spin(left, rank, tick) for rank in owners if rank in living)

    def _divide(self, ranks: list[int]) -> None:
        """Assign shards and blocks to these ranks, by their measured speeds; of whom nothing is
        known is taken for as quick as the others.

        Every owner is among the active at any time, so nobody relies on one that I did not live to
        make known.
        """
        self._measure()
        known = [self._speeds[rank] for rank in ranks if self._speeds[rank]]
        usual = sum(known) / len(known) if known else 1.0
        speeds = [self._speeds[rank] or usual for rank in ranks]
        self._renew_plan(by=2 if self._is_torn else 1)  # odd: if I die in here, it is divided anew
        for rank in ranks:
            self.seats.actives[rank] = True
        for name, tasks in self._tasks.items():
            owners = self.arena[name]
            theirs = np.full(len(owners), self.job.courier)
            if tasks:
                assigned = assign(self.job.assignment, len(tasks), speeds)
                if name != "shard_owner" and self.job.model.factors is not None:
                    assigned.sort()  # as many panels as it says, but neighbours: made at once
                for task, place in zip(tasks, assigned, strict=True):
                    theirs[task.start : task.stop] = ranks[place]
            owners[:] = theirs
        for rank in range(self.seats.count):
            self.seats.actives[rank] = rank in ranks
        self._renew_plan(by=1)

    def _renew_plan(self, by: int) -> None:
        """Before a change as well as after it: whoever looks meanwhile looks anew."""
        fence()
        self.board.door[PLAN] += by
        fence()

    def _measure(self) -> None:
        """Follow the speeds by what was done since the last look."""
        now_W2, owners = self.arena["speed"].copy(), set(self.arena["shard_owner"].tolist())
        self._speeds = estimated(self._speeds, now_W2 - self._seen_W2, owners)
        self._seen_W2 = now_W2

    def _loss(self) -> float:
        """The epoch's mean loss with the penalty, batches weighted by their number of samples."""
        loss_T = self.arena["penalties"].dot(self._penalty_weights_K)
        loss_T += self.arena["losses"]
        loss_T /= self.arena["weights"]
        if self.job.nonfinite != "skip":
            return float(np.dot(loss_T, self._rows_T) / self.job.plan.n_visited)
        made_T = np.isfinite(loss_T)
        return float(np.dot(loss_T[made_T], self._rows_T[made_T]) / self._rows_T[made_T].sum())

    def _sums(self) -> Array:
        """The sums over all validation chunks; none where there are no chunks."""
        n_chunks = len(self.job.chunks)
        if not n_chunks:
            return np.empty(0)
        doers_V = self.arena["chunks_done"].argmax(axis=0)  # who did a chunk in the latest tick
        fence()
        partials_VM = self.arena["partials"][doers_V, np.arange(n_chunks)]
        return np.asarray(partials_VM.sum(axis=0))

"""The leader: the worker that speaks for all between two ticks.

Only it opens a tick, so whatever it writes before (who does what, the learning rate, the last
tick) is seen alike by everybody after. It decides by the pure rules alone.
"""

from __future__ import annotations

from time import monotonic

import numpy as np

from phalanx.arena import Arena
from phalanx.assignment import assign, follows_speed
from phalanx.exchange.board import HALT, LAST, NEVER, Board
from phalanx.job import Job, Lease
from phalanx.run import EpochRecord
from phalanx.stopping import Progress, Reason, judge

REPLAN_EVERY = 16  # ticks; long enough to measure, short enough to follow a worker that slows down


class Leader:
    """Opens ticks, plans the assignment, judges epochs."""

    def __init__(self, job: Job, arena: Arena, board: Board) -> None:
        self.job, self.arena, self.board = job, arena, board
        self._seen_W2 = np.zeros((job.n_workers, 2))
        self._speeds = [1.0] * job.n_workers
        self._planned = False
        starts = [job.plan.batch(step)[0] for step in range(job.plan.n_steps)]
        self._rows_T = np.diff([*starts, job.plan.n_samples]).astype(float)

    def begin(self, lease: Lease) -> None:
        """Take a lease: what was decided before it, and from which tick on."""
        self._first = lease
        self._progress: Progress = lease.progress
        self._reason: Reason | None = None
        self._epochs: list[EpochRecord] = []
        self._begun = monotonic()
        self._first_tick = lease.tick
        self.arena["rate"][0] = lease.progress.rate
        self.board.door[LAST] = NEVER

    def open(self, tick: int) -> None:
        """Commit everything before `tick` and let it begin, unless somebody asked to halt."""
        self._committed(tick - 1)
        if self.board.door[HALT]:
            self._reason = Reason.INTERRUPTED
            self.board.close_after(tick - 1)
            return
        self._replan(tick)
        self.board.open(tick)

    def judge(self, tick: int) -> bool:
        """An epoch's end, once all of `tick` is done; False if it was the last one."""
        self._committed(tick)
        loss, score = self._loss(), self._score()
        samples = self.job.plan.n_samples
        rate = self._progress.rate
        self._progress, self._reason = judge(self.job.rule, self._progress, samples, loss, score)
        if self._progress.improved:
            self.arena["best"][:] = self.arena["parameters"]
        now = monotonic()
        self._epochs.append(
            EpochRecord(loss, score, rate, now - self._begun, self._progress, self._reason)
        )
        self._begun = now
        self.arena["rate"][0] = self._progress.rate
        if self._reason is not None:
            self.board.close_after(tick)
        return self._reason is None

    def end(self, tick: int, updates: int) -> tuple[list[EpochRecord], Lease]:
        """The epochs of the lease, and a lease (without epochs) that begins where it ended."""
        if self._reason is Reason.INTERRUPTED and self._epochs:
            self._epochs[-1] = self._epochs[-1]._replace(reason=self._reason)
        first = self._first.first_epoch + len(self._epochs)
        return self._epochs, Lease(first, 0, tick, updates, self._progress)

    def _committed(self, tick: int) -> None:
        """Wait until everybody has done with `tick`.

        Those who had nothing to do too: whoever still looked at the owners of this tick while the
        next one is planned could take a block for its own that somebody else updates.
        """
        if tick > self._first_tick:
            self.board.wait(self.board.workers, tick)

    def _replan(self, tick: int) -> None:
        """Assign shards and blocks, anew where the measured speeds are to be followed."""
        if self._planned and not (follows_speed(self.job.assignment) and tick % REPLAN_EVERY == 0):
            return
        self._measure()
        for name in ("shard_owner", "block_owner"):
            owners = self.arena[name]
            owners[:] = assign(self.job.assignment, len(owners), self._speeds)
        self._planned = True

    def _measure(self) -> None:
        """Shards a second of each worker since the last look; unchanged for one who had none."""
        now_W2 = self.arena["speed"].copy()
        for rank, (shards, seconds) in enumerate(now_W2 - self._seen_W2):
            if shards > 0 and seconds > 0:
                self._speeds[rank] = float(shards / seconds)
        self._seen_W2 = now_W2

    def _loss(self) -> float:
        """The epoch's mean loss with the penalty, batches weighted by their number of samples."""
        weight_T = np.add.reduce(self.arena["weights"], axis=1)
        weight_T[weight_T == 0] = 1  # a batch of samples that all weigh nothing
        loss_T = np.add.reduce(self.arena["penalties"], axis=1)
        loss_T *= 0.5 * self.job.alpha
        loss_T += np.add.reduce(self.arena["losses"], axis=1)
        loss_T /= weight_T
        return float(np.dot(loss_T, self._rows_T) / self.job.plan.n_samples)

    def _score(self) -> float | None:
        score = self.job.score
        if score is None or not self.job.n_validation:
            return None
        return score.final(self.arena["partials"].sum(axis=0))

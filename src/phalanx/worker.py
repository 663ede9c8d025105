"""A worker: the step as a transaction.

Every shard's gradient is computed by somebody, every block is reduced in shard order and updated
by somebody, then the step is committed: the leader opens the next one. Nothing here depends on
how many workers there are or who does what; that is the assignment's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from phalanx.aggregation import checked
from phalanx.arena import Arena
from phalanx.arrays import Array, aligned_empty
from phalanx.data.samples import Gatherer, Samples
from phalanx.exchange.board import Board
from phalanx.job import Job, Lease
from phalanx.leader import Leader
from phalanx.optimizers import Slice
from phalanx.randomness import DROPOUT, keyed
from phalanx.run import EpochRecord, Span


@dataclass
class Report:
    """What a worker says at the end of a lease; the leader's also holds the epochs."""

    spans: list[Span] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    lease: Lease | None = None  # where the next one begins, from the leader alone


class Worker:
    """One worker's view of a job: its buffers, its share, and the arena that it shares."""

    def __init__(
        self, job: Job, arena: Arena, training: Samples, validation: Samples | None, rank: int
    ) -> None:
        self.job, self.rank = job, rank
        self.board = Board(arena, job.n_workers)
        self.leader = Leader(job, arena, self.board) if rank == 0 else None
        self.model = job.model.build(arena["parameters"])
        self.training = Gatherer(training, job.plan.max_shard_rows)
        self.validation = validation and Gatherer(validation, job.chunks[0][1])
        self.losses_TS, self.weights_TS = arena["losses"], arena["weights"]
        self.penalties_TK, self.partials_VM = arena["penalties"], arena["partials"]
        self.slots = list(arena["grads"])
        self.rate = arena["rate"]
        self.owners = arena["shard_owner"], arena["block_owner"]
        self.speed = arena.words("speed")[2 * rank : 2 * rank + 2]  # shards computed, seconds
        self.blocks = [Block(job, arena, bounds) for bounds in job.blocks]
        self.aggregate = checked(job.aggregation)

    def run(self, lease: Lease) -> Report:
        """Train for the epochs of a lease, or until the leader closes the door."""
        report = Report()
        self.tick, self.updates = lease.tick, lease.updates
        if self.leader:
            self.leader.begin(lease)
        with np.errstate(all="ignore"):  # a NaN shows in the loss, and at the end of the run
            for epoch in range(lease.first_epoch, lease.first_epoch + lease.n_epochs):
                span = Span(self.rank, epoch, monotonic())
                report.spans.append(span)
                if not (self._epoch(epoch, span) and self._judge(span)):
                    break
        if self.leader:
            report.epochs, report.lease = self.leader.end(self.tick, self.updates)
        return report

    def _epoch(self, epoch: int, span: Span) -> bool:
        """All steps of an epoch; False if the door was closed before the last."""
        for step in range(self.job.plan.n_steps):
            arrived = monotonic()
            if not self._enter():
                return False
            if step == 0:  # not before the leader has said that there is such an epoch
                order_B = self.job.plan.order(epoch)
            begun, shards = monotonic(), span.shards
            self._compute(step, order_B, span)
            computed = monotonic()
            self.speed[0] += span.shards - shards
            self.speed[1] += computed - begun
            self.board.wait(self.board.shards, self.tick)
            ready = monotonic()
            self._update(step)
            waited = begun - arrived + ready - computed
            span.add(computed - begun, monotonic() - ready, waited)
        return True

    def _enter(self) -> bool:
        """Begin the next tick once everything before it is done; False if there is none."""
        self.tick += 1
        if self.leader:
            self.leader.open(self.tick)
        if not self.board.wait_opened(self.tick):
            self.tick -= 1
            return False
        return True

    def _compute(self, step: int, order_B: Array, span: Span) -> None:
        """The gradient of each of my shards, into its slot."""
        for s, owner in enumerate(self.owners[0].tolist()):
            if owner == self.rank:
                start, stop = self.job.plan.shard(step, s)
                loss, weight = self._gradient(s, order_B[start:stop])
                self.losses_TS[step, s] = loss
                self.weights_TS[step, s] = weight
                span.shards += 1
                self.board.publish(self.board.shards, s, self.tick)

    def _gradient(self, s: int, index_B: Array) -> tuple[float, float]:
        if not len(index_B):
            return 0.0, 0.0
        draws = self.job.model.draws
        rng = keyed(self.job.plan.seed, DROPOUT, self.updates, s) if draws else None
        return self.model.gradient(self.training.rows(index_B), self.slots[s], rng)

    def _update(self, step: int) -> None:
        """Reduce each of my blocks in shard order and let the optimiser change it."""
        self.updates += 1
        start, stop = self.job.plan.batch(step)
        live = min(stop - start, len(self.slots))  # shards that have samples
        weights_S = self.weights_TS[step, :live]
        total, rate = sum(weights_S.tolist()), float(self.rate[0])
        for k, owner in enumerate(self.owners[1].tolist()):
            if owner == self.rank:
                block = self.blocks[k]
                grad_n = self.aggregate(block.grads_Sn[:live], weights_S)
                self.penalties_TK[step, k] = block.update(grad_n, total, self.updates, rate)
        self.board.publish(self.board.workers, self.rank, self.tick)

    def _judge(self, span: Span) -> bool:
        """An epoch's end: score the validation samples, and let the leader decide."""
        if self.validation:
            arrived = monotonic()
            if not self._enter():
                return False
            begun = monotonic()
            for v in range(self.rank, len(self.job.chunks), self.job.n_workers):
                self._score(v, self.validation)
            self.board.publish(self.board.workers, self.rank, self.tick)
            span.add(monotonic() - begun, 0.0, begun - arrived)
        return self.leader is None or self.leader.judge(self.tick)

    def _score(self, v: int, validation: Gatherer) -> None:
        """Sums of the score over one chunk of the validation samples."""
        assert self.job.score is not None
        rows = validation.rows(np.arange(*self.job.chunks[v]))
        target = rows.classes_B if rows.classes_B is not None else rows.target_OB.T
        weight_B = np.ones(rows.count) if rows.weight_B is None else rows.weight_B
        sums = self.job.score.partial(target, self.model.outputs(rows), weight_B)
        self.partials_VM[v, : len(sums)] = sums


class Block:
    """One block's views into the arena and its update."""

    def __init__(self, job: Job, arena: Arena, bounds: tuple[int, int]) -> None:
        start, stop = bounds
        self.optimizer, self.alpha = job.optimizer, job.alpha
        self.grads_Sn = arena["grads"][:, start:stop]
        params_n, state_Mn = arena["parameters"][start:stop], arena["state"][:, start:stop]
        scratch_n = aligned_empty((stop - start,), params_n.dtype)
        self.slice = Slice(params_n, state_Mn, scratch_n, grad_n=scratch_n)
        self.n_decayed = min(max(job.model.n_decayed - start, 0), stop - start)
        self.decayed, self.pull = params_n[: self.n_decayed], scratch_n[: self.n_decayed]

    def update(self, grad_n: Array, weight: float, step: int, rate: float) -> float:
        """Apply one step; return the sum of squares of the decayed parameters before it."""
        penalty = 0.0
        if self.alpha and weight > 0 and self.n_decayed:
            np.multiply(self.decayed, self.alpha / weight, out=self.pull)
            shrunk = grad_n[: self.n_decayed]
            shrunk += self.pull
            penalty = float(np.dot(self.decayed, self.decayed))
        self.slice.grad_n = grad_n
        self.optimizer.update(self.slice, step, rate)
        return penalty

"""A job: everything that decides a training's answer, and the arena fields that it needs. Pure.

A job is picklable and the same for every worker. The number of workers is not part of the answer;
it is here because the arena has a seat for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from phalanx.arena import Field, Fields
from phalanx.exchange.board import board_fields
from phalanx.exchange.seats import seat_fields
from phalanx.models.base import ModelSpec, Score
from phalanx.pure.aggregation import Aggregation
from phalanx.pure.assignment import Assignment, useful_workers
from phalanx.pure.clipping import Clip
from phalanx.pure.hosts import ALONE, Place, block_parts, dividing_pays, parts
from phalanx.pure.layout import Region, blocks_of
from phalanx.pure.optimizers import Optimizer
from phalanx.pure.plan import Plan
from phalanx.pure.rounding import EXACT, ROUNDINGS, Rounding
from phalanx.pure.rounds import Outer
from phalanx.pure.stopping import Rule
from phalanx.pure.timetable import Timetable

LEASE_EPOCHS = 1024  # at most; the arena keeps a line a worker for each epoch of a lease
LEDGER_COLUMNS = 11
SPAN_COLUMNS = 5
EPOCH_SUMS = ("losses", "weights", "penalties", "measures")  # by step of the epoch
UNCLIPPED = Clip()
CHUNK_ROWS = 256  # rows of a validation or prediction chunk: fixed, so its bits are too


@dataclass(frozen=True)
class Job:
    """A training.

    alpha: L2 penalty, alpha / 2 * |weights|^2, divided by the batch's weight as in scikit-learn.
    score: how the validation samples are judged after each epoch.
    n_workers: who begins. n_seats: how many there may come to be.
    keeps_snapshots: whether checkpoints are to be written beside the training.
    nonfinite: what to do with a step whose loss is NaN or infinite: "keep" the update that comes
    of it, "skip" it, or "stop" with NonFiniteLoss.
    place: this host among those that train together; each has seats of its own.
    wire: how exact gradients are when they travel between hosts; they are as exact on one host.
    exact: whether every shard's gradient travels by itself. If not, a host sends the mean of its
    shards: fewer bytes, and an answer that depends on the number of hosts.
    is_mixed: whether hosts differ in kind, so that what two of them compute need not be equal.
    """

    model: ModelSpec
    plan: Plan
    optimizer: Optimizer
    aggregation: Aggregation
    assignment: Assignment
    rule: Rule
    alpha: float
    n_workers: int = 1
    n_seats: int = 1
    n_validation: int = 0
    score: Score | None = None
    keeps_snapshots: bool = False
    clip: Clip = UNCLIPPED
    nonfinite: str = "keep"
    place: Place = ALONE
    wire: str = EXACT
    exact: bool = True
    is_mixed: bool = False

    @cached_property
    def blocks(self) -> list[Region]:
        """The K blocks."""
        return blocks_of(self.model.regions, self.optimizer.largest_block)

    @cached_property
    def largest_block(self) -> int:
        """Parameters of the largest block."""
        return max(block.stop - block.start for block in self.blocks)

    def useful_workers(self, asked: int) -> int:
        """How many workers find something to do, of those that are asked for."""
        has_factors = self.model.factors is not None
        return useful_workers(asked, self.plan.n_shards, self.blocks, has_factors)

    @cached_property
    def chunks(self) -> list[tuple[int, int]]:
        """Bounds of the V validation chunks."""
        return chunk_bounds(self.n_validation)

    @cached_property
    def rounding(self) -> Rounding:
        """Of gradients."""
        return ROUNDINGS[self.wire]

    @cached_property
    def shard_parts(self) -> list[range]:
        """The shards of each host."""
        return parts(self.plan.n_shards, self.place.count)

    def live_parts(self, n_live: int) -> list[range]:
        """The shards of each host in a step of so many."""
        return [range(part.start, min(part.stop, n_live)) for part in self.shard_parts]

    @cached_property
    def divides_blocks(self) -> bool:
        """Whether each host reduces a part of the blocks only, and gets the others reduced.

        Hosts of several kinds always do: all then update from the same reduced gradient. Else
        those that have all shards' factors do not: to multiply them is sooner done than to send
        what comes of it.
        """
        if self.is_mixed or self.model.factors is not None:
            return self.is_mixed and not self.place.is_alone
        bytes_N = self.model.size * self.model.dtype.itemsize
        n_rows = self.place.count if self.sends_means else self.plan.n_shards
        return dividing_pays(n_rows, self.place.count, bytes_N)

    @property
    def sends_means(self) -> bool:
        """Whether hosts send each other the mean of their shards' gradients."""
        return not (self.exact or self.place.is_alone)

    @cached_property
    def block_parts(self) -> list[range]:
        """The blocks that each host reduces."""
        if not self.divides_blocks:
            return [range(len(self.blocks))] * self.place.count
        return block_parts(self.blocks, self.place.count)

    @cached_property
    def chunk_parts(self) -> list[range]:
        """The validation chunks of each host."""
        return parts(len(self.chunks), self.place.count)

    @property
    def courier(self) -> int:
        """The rank, behind all seats, of who brings what other hosts have done."""
        return self.n_seats

    @property
    def sync_every(self) -> int:
        """Steps of a replica between two exchanges; 1 where the gradients of each are exchanged."""
        return self.optimizer.every if isinstance(self.optimizer, Outer) else 1

    @property
    def n_sums(self) -> int:
        """Sums that a validation chunk comes to."""
        return self.score.width(self.model) if self.score else 0

    @property
    def has_process(self) -> bool:
        """Whether workers are processes, so that each may die and have an heir, if only the next
        process in its seat; else the only one is the caller's own."""
        return self.n_seats > 1 or not self.model.runs_here

    @property
    def fields(self) -> Fields:
        """What the arena holds for this job, samples apart.

        S shards, K blocks, N elements of the vector, W seats, V validation chunks. With one seat
        there is nobody else to take anything over. With several hosts the courier is a doer, too.
        """
        n, w, dtype = self.model.size, self.n_seats, self.model.dtype.name
        s, k, v = self.plan.n_shards, len(self.blocks), len(self.chunks)
        rows, several = 1 + len(self.optimizer.slots), w if w > 1 else 0
        groups, settings = self.optimizer.settings_shape
        measures = self.model.n_measures
        doers, divided = w if self.place.is_alone else w + 1, int(self.divides_blocks)
        return {
            **board_fields(k),
            **seat_fields(w),
            "shards_begun": Field((w, s), "int64"),
            "shards_done": Field((doers, s), "int64"),
            "chunks_done": Field((doers, v), "int64"),
            "values": Field((rows, n), dtype, aligned=True),
            "best": Field((n if self.rule.by_score else 0,), dtype),
            **self._left_fields(several),
            "host_rows": Field((self.place.count * self.sends_means, n), dtype, aligned=True),
            "reduced": Field((divided * n,), dtype, aligned=True),
            "results": Field((doers, s, 2 + measures)),
            "journal": Field((w * self.has_process, rows, self.largest_block), dtype),
            "journal_marks": Field((w,), "int64"),
            "partials": Field((doers, v, self.n_sums)),
            "scalars": Field((2, k, self.optimizer.n_scalars)),
            "settings": Field((self.plan.n_steps if groups else 0, groups, settings)),
            "squares": Field((k,)),
            "shard_owner": Field((s,), "int64"),
            "block_owner": Field((k,), "int64"),
            "block_reducer": Field((divided * k,), "int64"),
            "speed": Field((w, 2)),
            "ledger": Field((LEASE_EPOCHS + 1, LEDGER_COLUMNS)),
            "epoch_sums": Field((LEASE_EPOCHS + 1, measures + self.n_sums)),
            "spans": Field((w, LEASE_EPOCHS, SPAN_COLUMNS)),
            **self._epoch_fields(""),
            **(self._snapshot_fields() if self.keeps_snapshots else {}),
        }

    def _left_fields(self, several: int) -> Fields:
        """What shards leave: at home, with whoever took one over, and as it comes from hosts."""
        s, dtype, layout = self.plan.n_shards, self.model.dtype.name, self.model.factors
        n = self.model.size if layout is None else 0
        factors, parcel = (0, 0) if layout is None else (layout.size, layout.parcel_size)
        parcels = 0 if self.place.is_alone else s
        return {
            "grads": Field((s, n), dtype, aligned=True),
            "grads_away": Field((several, s, n), dtype, aligned=True),
            "factors": Field((factors,), dtype),
            "factors_away": Field((several, factors), dtype, aligned=True),
            "parcels": Field((parcels, parcel), dtype, aligned=True),
        }

    def _epoch_fields(self, prefix: str) -> Fields:
        """Sums over the batches of the epoch, by step."""
        t, k = self.plan.n_steps, len(self.blocks)
        return {
            f"{prefix}losses": Field((t,)),
            f"{prefix}weights": Field((t,)),
            f"{prefix}penalties": Field((t, k)),
            f"{prefix}measures": Field((t, self.model.n_measures)),
        }

    def _snapshot_fields(self) -> Fields:
        """Copies of what a checkpoint holds, taken between two steps."""
        n, dtype = self.model.size, self.model.dtype.name
        return {
            "snapshot_scalars": Field((2, len(self.blocks), self.optimizer.n_scalars)),
            "snapshot_values": Field((1 + len(self.optimizer.slots), n), dtype),
            "snapshot_best": Field((n if self.rule.by_score else 0,), dtype),
            **self._epoch_fields("snapshot_"),
        }

    def timetable(self, lease: Lease) -> Timetable:
        """Which step each tick of a lease is."""
        return Timetable(
            self.plan.n_steps,
            self.n_validation > 0,
            lease.tick,
            lease.first_epoch,
            lease.place,
            lease.updates,
        )


@dataclass(frozen=True)
class Lease:
    """A number of epochs that the workers may run without asking the driver.

    tick: ticks that were opened before; place: ticks of the first epoch that are over; updates:
    optimiser steps made before.
    """

    first_epoch: int
    n_epochs: int
    tick: int
    updates: int
    place: int = 0


def chunk_bounds(n_samples: int) -> list[tuple[int, int]]:
    """Bounds of the chunks in which predictions are made; depends on the samples alone."""
    starts = range(0, n_samples, CHUNK_ROWS)
    return [(start, min(start + CHUNK_ROWS, n_samples)) for start in starts]

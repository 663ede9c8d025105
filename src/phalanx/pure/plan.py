"""The plan: which samples form shard s of step t of epoch e. Pure arithmetic.

A data distribution puts the samples of an epoch in order; a step's batch is the next `batch_size`
of them (the last batch takes what is left); a shard is a contiguous slice of the batch.
Every distribution visits each sample exactly once an epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from phalanx.errors import InvalidInput, UserFunctionError
from phalanx.pure.arrays import Array
from phalanx.pure.randomness import ORDER, keyed
from phalanx.pure.registry import name_of

MIN_ROWS_A_SHARD = 64
MIN_DEEP_ROWS, FEW_SHARDS, CACHED_PARAMETERS = 16, 4, 1_000_000
MIN_LARGE_ROWS, LARGE_PARAMETERS = 128, 4_000_000
MIN_FLOPS_A_SHARD = 4e6
MAX_AUTO_SHARDS = 16
FLOPS_A_PARAMETER = 6  # forward, and backward to the weights and to the layer below: 2 each


class Epoch(NamedTuple):
    """What a data distribution may look at."""

    number: int
    n_samples: int
    n_steps: int
    rng: np.random.Generator  # keyed by (seed, epoch)
    labels_B: Array | None  # class index of each sample; None where there are no classes


Distribution = Callable[[Epoch], Array]


def sequential(epoch: Epoch) -> Array:
    """Samples in the order they were given, every epoch."""
    return np.arange(epoch.n_samples)


def random(epoch: Epoch) -> Array:
    """A new order every epoch, from the seed."""
    return epoch.rng.permutation(epoch.n_samples)


def strided(epoch: Epoch) -> Array:
    """Every T-th sample: step t starts from samples t, t + T, t + 2T ... for T steps an epoch.

    Data that is sorted in time or by class is spread over all steps without a random order.
    """
    samples = np.arange(epoch.n_samples)
    return samples[np.argsort(samples % epoch.n_steps, kind="stable")]


def stratified(epoch: Epoch) -> Array:
    """A new order every epoch in which each class is spread evenly, so batches keep its share."""
    assert epoch.labels_B is not None  # the plan sees to it
    shuffled = epoch.rng.permutation(epoch.n_samples)
    labels = epoch.labels_B[shuffled]
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank_in_class = np.arange(epoch.n_samples) - starts
    offset = epoch.rng.random(len(counts))[labels[by_class]]
    place = (rank_in_class + offset) / np.repeat(counts, counts)
    return shuffled[by_class[np.argsort(place, kind="stable")]]


DISTRIBUTIONS: dict[str, Distribution] = {
    "sequential": sequential,
    "random": random,
    "strided": strided,
    "stratified": stratified,
}


@dataclass(frozen=True)
class Plan:
    """(dataset size, batch size, shards, seed, distribution) -> the samples of every shard."""

    n_samples: int
    batch_size: int
    n_shards: int
    seed: int
    distribution: Distribution
    labels_B: Array | None = None
    max_steps: int | None = None  # steps of an epoch, where not all samples are to be visited

    def __post_init__(self) -> None:
        """Raise InvalidInput where samples cannot be stratified."""
        if self.distribution is stratified and self.labels_B is None:
            raise InvalidInput(
                "data_distribution='stratified' keeps each class's share in every batch, so it "
                "needs one class label a sample; got a target without classes. Use 'random'."
            )

    @cached_property
    def n_steps(self) -> int:
        """Steps an epoch."""
        steps = -(-self.n_samples // self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @cached_property
    def n_visited(self) -> int:
        """Samples of an epoch."""
        return self.batch(self.n_steps - 1)[1]

    @cached_property
    def max_shard_rows(self) -> int:
        """Rows of the largest shard."""
        return -(-self.batch_size // self.n_shards)

    def order(self, epoch: int) -> Array:
        """Sample indices of an epoch in the order they are visited, [n_samples].

        Raises UserFunctionError where a user's distribution does not visit every sample once.
        """
        rng = keyed(self.seed, ORDER, epoch)
        asked = Epoch(epoch, self.n_samples, self.n_steps, rng, self.labels_B)
        if self.distribution in DISTRIBUTIONS.values():
            return self.distribution(asked)
        if self.labels_B is not None:  # the target itself, perhaps, which the user may write into
            asked = asked._replace(labels_B=self.labels_B.copy())
        return checked_order(self.distribution, asked)

    def batch(self, step: int) -> tuple[int, int]:
        """First and past-the-last place, in the epoch's order, of a step's batch."""
        start = step * self.batch_size
        return start, min(start + self.batch_size, self.n_samples)

    def visits(self, steps: int) -> int:
        """Samples that so many steps visit, from the first step of an epoch on."""
        epochs, more = divmod(steps, self.n_steps)
        return epochs * self.n_visited + (self.batch(more - 1)[1] if more else 0)

    def shards(self, step: int) -> list[tuple[int, int]]:
        """First and past-the-last place of each shard of a step that has samples."""
        start, stop = self.batch(step)
        return [(start + first, start + last) for first, last in self.offsets(stop - start)]

    def offsets(self, rows: int) -> list[tuple[int, int]]:
        """Where each shard that has samples lies in a batch of so many; not to be changed."""
        known = self._known_offsets.get(rows)
        if known is None:
            small, larger = divmod(rows, self.n_shards)
            sizes = [small + (s < larger) for s in range(min(rows, self.n_shards))]
            known = list(pairwise([0, *accumulate(sizes)]))
            self._known_offsets[rows] = known
        return known

    @cached_property
    def _known_offsets(self) -> dict[int, list[tuple[int, int]]]:
        return {}

    def shard(self, step: int, s: int) -> tuple[int, int]:
        """First and past-the-last place of shard s of a step.

        Sizes differ by at most one, larger ones first; with fewer rows than shards the last are
        empty.
        """
        shards = self.shards(step)
        end = self.batch(step)[1]
        return shards[s] if s < len(shards) else (end, end)


def auto_shards(batch_size: int, n_parameters: int, is_deep: bool = False) -> int:
    """The power of two that leaves each shard rows and arithmetic worth a worker's while.

    Depends on the job alone, never on the workers. At least 64 rows, so that matrix products run
    near full speed, and 4 MFLOP (about 40 microseconds of one core), which a step's two waits
    do not outweigh. At most 16, since every shard holds a gradient of its own.
    is_deep: a parameter may be used many times for a sample, as in convolutions; then up to four
    shards may have 16 rows only, unless their gradients are too large for a cache, and above 4
    million parameters they have 128 at least, to share the cost of writing a gradient to memory.
    """
    flops = FLOPS_A_PARAMETER * n_parameters * batch_size
    by_rows = batch_size / MIN_ROWS_A_SHARD
    if is_deep and n_parameters <= CACHED_PARAMETERS:
        by_rows = max(by_rows, min(batch_size / MIN_DEEP_ROWS, FEW_SHARDS))
    if is_deep and n_parameters > LARGE_PARAMETERS:
        by_rows = batch_size / MIN_LARGE_ROWS
    most = min(by_rows, flops / MIN_FLOPS_A_SHARD, MAX_AUTO_SHARDS)
    return 1 << max(0, int(most).bit_length() - 1)


def checked_order(distribution: Distribution, epoch: Epoch) -> Array:
    """What a user's distribution returns, if it is a permutation of the samples.

    Raises UserFunctionError if it is not, or if the function itself raises.
    """
    n = epoch.n_samples
    try:
        order_B = np.asarray(distribution(epoch))
    except Exception as error:
        raise UserFunctionError(
            f"the data distribution {name_of(distribution)} raised {type(error).__name__}: "
            f"{error}. It is called with a phalanx.pure.plan.Epoch and returns "
            f"sample indices [{n}]."
        ) from error
    whole = order_B.shape == (n,) and order_B.dtype.kind in "iu"
    if not whole or not np.array_equal(np.sort(order_B), np.arange(n)):
        raise UserFunctionError(
            f"a data distribution must return every index of 0..{n - 1} exactly once, as integers "
            f"of shape ({n},); {name_of(distribution)} returned dtype {order_B.dtype} of shape "
            f"{order_B.shape}. Return a permutation, e.g. epoch.rng.permutation(epoch.n_samples)."
        )
    return order_B.astype(np.intp, copy=False)

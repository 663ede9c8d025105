"""Whether shards that lie side by side may go through a network in one pass.

BLAS packs a matrix before it multiplies, and of a shard of 64 rows that is a third of the work; and
of small networks, most of the time goes into calls. Side by side, shards share both. Kernels add up
each element in the order of the inner dimension, however many columns there are, so a shard comes
to the bits that it comes to alone; but that is theirs to keep, and some do not. So it is tried on
random numbers first, once a process, and where a bit differs, shards go one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from phalanx.data.samples import (
    CLASSES,
    COLUMNS,
    ENTRIES,
    ROWS,
    STARTS,
    TARGETS,
    TableSamples,
)
from phalanx.models.mlp.network import MLPSpec, Network
from phalanx.models.mlp.passing import Pass, room_for
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.factors import FactorLayout, outwards
from phalanx.pure.randomness import Key

TELLING = {"absolute_error": "squared_error", "huber": "squared_error"}  # whose deltas hide no bit
PER_SAMPLE = 8  # entries
LARGEST = 2**24  # parameters; a trial holds as many again for a moment


@lru_cache(maxsize=256)
def tried(spec: MLPSpec, layout: FactorLayout, n_shards: int) -> int | None:
    """How many of so many shards are in each product of a pass over them: all; or one, where wider
    products come to other bits; or None, where such a pass does, too.

    What is added in which order depends on shapes, not on values; so random numbers, of which no
    two sums in another order are likely to be equal, stand for all.
    """
    if spec.n_parameters > LARGEST:
        return None
    specs = {spec, replace(spec, loss=TELLING.get(spec.loss, spec.loss))}
    trials = [_Trial(each, layout, n_shards) for each in specs]
    alone = [trial.one_by_one() for trial in trials]
    for at_once in (n_shards, 1):
        if [trial.joined(at_once) for trial in trials] == alone:
            return at_once
    return None


class _Trial:
    """A network of random numbers, and some shards of them."""

    def __init__(self, spec: MLPSpec, layout: FactorLayout, n_shards: int) -> None:
        rng = np.random.default_rng(0)
        params_N = aligned_empty((spec.size,), spec.dtype)
        rng.random(out=params_N, dtype=spec.dtype.type)
        params_N -= 0.5
        params_N *= 4 / np.sqrt(max(spec.sizes))
        self.network, self.layout, self.shards = Network(spec, params_N), layout, outwards(n_shards)
        self.room = room_for(spec, layout)
        count = n_shards * layout.width
        of_x = _sparse if layout.factors[0].is_given else _dense
        arrays = of_x(count, spec, rng)
        arrays[CLASSES] = rng.integers(spec.n_outputs, size=count)
        arrays[TARGETS] = rng.integers(2, size=(count, spec.n_outputs)).astype(spec.dtype)
        self.samples = TableSamples(arrays, count, spec.sizes[0])

    def one_by_one(self) -> list[bytes]:
        batch, outcomes, width = self._batch(), [], self.layout.width
        for i, s in enumerate(self.shards):
            mine = np.arange(i * width, (i + 1) * width)
            outcomes += self._pass(mine, batch, [s], 1)
        return _bytes(batch, outcomes)

    def joined(self, at_once: int) -> list[bytes]:
        batch, everything = self._batch(), np.arange(self.samples.n_samples)
        return _bytes(batch, self._pass(everything, batch, self.shards, at_once))

    def _pass(
        self, index_C: Array, batch: list[Array], shards: Sequence[int], at_once: int
    ) -> list[tuple[float, float]]:
        through = Pass(self.network, batch, self.layout, shards, at_once, self.room)
        rows = self.samples.gatherer(0).rows_into(through.x_CF, index_C)
        keys = [Key(0, 0, s) for s in shards]
        return through.compute(rows, [self.layout.width] * len(shards), 1, keys)

    def _batch(self) -> list[Array]:
        """Room for a batch's factors."""
        flat_n = aligned_empty((self.layout.size,), self.network.spec.dtype)
        flat_n[...] = 0
        return self.layout.views(flat_n)


def _bytes(batch: list[Array], outcomes: list[tuple[float, float]]) -> list[bytes]:
    """To be compared."""
    return [repr(outcomes).encode(), *(factor.tobytes() for factor in batch)]


def _dense(count: int, spec: MLPSpec, rng: np.random.Generator) -> dict[str, Array]:
    """Random samples."""
    return {ROWS: rng.random((count, spec.sizes[0]), spec.dtype.type) - spec.dtype.type(0.5)}


def _sparse(count: int, spec: MLPSpec, rng: np.random.Generator) -> dict[str, Array]:
    """Random samples of a few entries each."""
    starts = np.arange(0, count * PER_SAMPLE + 1, PER_SAMPLE)
    columns = rng.integers(spec.sizes[0], size=count * PER_SAMPLE, dtype=np.intc)
    entries = rng.random(count * PER_SAMPLE, spec.dtype.type) * spec.dtype.type(PER_SAMPLE)
    return {STARTS: starts, COLUMNS: columns, ENTRIES: entries}

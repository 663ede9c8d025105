"""Whether panels that are neighbours may be made by one product each of their layers.

BLAS packs the samples' side of a product anew for every panel, and works slower on few rows. Each
element is added up along the samples however many rows there are, so a row comes to the bits that
it comes to alone; but nobody promises that, so it is tried on random numbers first, once a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from phalanx.data.entries import Entries, SparseRows
from phalanx.engine.recipe import Bench, Recipe, Scale
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.factors import FactorLayout, Multiply

LARGEST = 2**24  # elements of a batch's factors; a trial holds twice as many for a moment


@lru_cache(maxsize=256)
def may_join(
    layout: FactorLayout,
    multiply: Multiply,
    dtype_name: str,
    edges: tuple[int, ...],
    n_shards: int,
) -> bool:
    """Whether the panels between these edges come to equal bits together and one by one, for so
    many shards. Random numbers stand for all: what is added in which order depends on shapes."""
    try:
        if layout.size > LARGEST:
            return False
        bench = Bench(layout, multiply, np.dtype(dtype_name), edges[-1] - edges[0])
        return _try(bench, edges, n_shards)
    except MemoryError:  # one by one they need less
        return False


def _try(bench: Bench, edges: tuple[int, ...], n_shards: int) -> bool:
    layout, dtype = bench.layout, bench.grad_n.dtype
    rng, batch_n = np.random.default_rng(0), aligned_empty((layout.size,), dtype)
    rng.random(out=batch_n, dtype=dtype.type)
    batch_n -= 0.5
    batch, together = layout.views(batch_n), [(edges[0], edges[-1])]
    columns = layout.width * n_shards
    scales: list[Scale] = [1.0, rng.random(columns).astype(dtype)]
    return all(
        _bytes(bench, batch, n_shards, together, scale)
        == _bytes(bench, batch, n_shards, [*pairwise(edges)], scale)
        for scale in scales
    )


def _bytes(
    bench: Bench,
    batch: Sequence[Array],
    n_shards: int,
    stretches: Sequence[tuple[int, int]],
    scale: Scale,
) -> bytes:
    given = _nothing_given(bench, n_shards)
    made = (
        Recipe(bench, batch, n_shards, *ends).make(scale, given).tobytes() for ends in stretches
    )
    return b"".join(made)


def _nothing_given(bench: Bench, n_shards: int) -> SparseRows:
    """Samples without entries: sparse products need no trial, since their kernels add up each
    element by itself."""
    nobody = np.zeros(bench.layout.width * n_shards, np.intp)
    starts: Array = np.zeros(2, np.intp)
    columns: Array = np.empty(0, np.intc)
    n_features = max(factor.size for factor in bench.layout.factors)
    return Entries(starts, columns, bench.grad_n[:0], n_features).rows(nobody)

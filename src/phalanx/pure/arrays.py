"""Array types, alignment, and the axis letters used in names.

B samples of a batch or an order · S shards · K blocks · N parameters · n elements of one block
W workers · T steps of an epoch, or of a sequence · E epochs · V validation chunks · F features in
O outputs · M rows of optimiser state, or measures · R rows that travel, or figures of a shard
X rows of values (parameters, then optimiser state), or whatever there is · G groups of an optimiser
H hosts, settings of an optimiser, or neurons of a layer · U units of a recurrent layer
C columns of a batch's factors, classes, or an optimiser's scalars
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CACHE_LINE = 64


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An uninitialised C-ordered array whose first element starts a cache line.

    Kernels may choose another code path, hence other last bits, for data that starts elsewhere;
    with every buffer aligned alike, two workers that compute the same shard agree to the bit.
    """
    dtype = np.dtype(dtype)
    nbytes = prod(shape) * dtype.itemsize
    raw = np.empty(nbytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays of one dtype have the same bytes: NaN is NaN, and -0 is not 0."""
    first, second = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
    return np.array_equal(first, second)


def in_cache_lines(elements: int, itemsize: int) -> int:
    """So many elements, of `itemsize` bytes, that what lies behind them begins on a cache line."""
    a_line = CACHE_LINE // itemsize
    return -(-elements // a_line) * a_line


def padded_rows(count: int, size: int, dtype: npt.DTypeLike) -> Array:
    """An uninitialised array [count, size] whose rows begin on a cache line each, with gaps.

    A reduction over rows that lie end to end may take another path than over rows that lie apart,
    and end in other last bits: for rows of one element it does.
    """
    padded = in_cache_lines(size, np.dtype(dtype).itemsize)
    return aligned_empty((count, padded), dtype)[:, :size]

"""Rounding of gradients to 16 bits, so that half as many bytes travel between hosts. Pure.

A rounded gradient changes the answer. It does so alike on one host and on many: every shard's
gradient is rounded when it was computed, wherever that was, and the aggregated one once more.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from phalanx.pure.aggregation import Aggregation
from phalanx.pure.arrays import Array

EXACT = "exact"
_STRETCH = 16_384  # elements that are treated at a time, so that the passes stay in a cache


class Rounding(Protocol):
    """Of arrays of float32 or float64."""

    dtype: np.dtype[Any] | None  # of what travels; None for the array's own

    def apply(self, values_n: Array) -> Array:
        """Round in place; returns the array."""

    def pack(self, values_n: Array, packed_n: Array) -> None:
        """Write rounded values as they travel."""

    def unpack(self, packed_n: Array, values_n: Array) -> None:
        """The other way round; exact."""


class Exact:
    """Nothing is rounded."""

    dtype: np.dtype[Any] | None = None

    def apply(self, values_n: Array) -> Array:
        return values_n

    def pack(self, values_n: Array, packed_n: Array) -> None:
        packed_n[...] = values_n

    def unpack(self, packed_n: Array, values_n: Array) -> None:
        values_n[...] = packed_n


class Brain:
    """bfloat16: the upper half of a float32, rounded to the nearest, to even where two are."""

    dtype: np.dtype[Any] | None = np.dtype(np.uint16)

    def apply(self, values_n: Array) -> Array:
        for start in range(0, len(values_n), _STRETCH):
            part_n = values_n[start : start + _STRETCH]
            single_n = part_n.astype(np.float32, copy=False)
            bits_n = single_n.view(np.uint32)
            rounded_n = bits_n >> 16
            rounded_n &= 1
            rounded_n += np.uint32(0x7FFF)
            rounded_n += bits_n
            rounded_n &= np.uint32(0xFFFF0000)
            is_nan_n = np.isnan(single_n)
            part_n[...] = rounded_n.view(np.float32)
            if is_nan_n.any():
                part_n[is_nan_n] = np.nan
        return values_n

    def pack(self, values_n: Array, packed_n: Array) -> None:
        single_n = np.ascontiguousarray(values_n, np.float32)
        packed_n[...] = single_n.view(np.uint16)[_UPPER::2]

    def unpack(self, packed_n: Array, values_n: Array) -> None:
        for start in range(0, len(values_n), _STRETCH):
            part_n = packed_n[start : start + _STRETCH]
            halves_n = np.zeros(2 * len(part_n), np.uint16)
            halves_n[_UPPER::2] = part_n
            values_n[start : start + _STRETCH] = halves_n.view(np.float32)


class Half:
    """IEEE 754's binary16; what is larger than 65,504 becomes infinite."""

    dtype: np.dtype[Any] | None = np.dtype(np.float16)

    def apply(self, values_n: Array) -> Array:
        values_n[...] = values_n.astype(np.float16)
        return values_n

    def pack(self, values_n: Array, packed_n: Array) -> None:
        packed_n[...] = values_n

    def unpack(self, packed_n: Array, values_n: Array) -> None:
        values_n[...] = packed_n


_UPPER = int(np.array([1], np.uint16).view(np.uint8)[0])  # 1 where the lower half comes first


def rounded(rule: Aggregation, rounding: Rounding) -> Aggregation:
    """A rule whose results are rounded."""
    if isinstance(rounding, Exact):
        return rule
    return lambda grads_Sn, weights_S: rounding.apply(rule(grads_Sn, weights_S))


ROUNDINGS: dict[str, Rounding] = {EXACT: Exact(), "bf16": Brain(), "fp16": Half()}

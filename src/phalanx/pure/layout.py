"""Where parameters lie in the flat vector, and how the vector is cut into blocks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import NamedTuple

from phalanx.pure.arrays import Array

MAX_BLOCK = 24_576  # elements: a block, its journal page and its gradient share a core's cache
MIN_BLOCK = 4_096  # below this, the calls cost more than the arithmetic
ALIGNMENT = 1_024


class Kind(StrEnum):
    """What becomes of a part of the vector in a step.

    TRAINED: the optimiser changes it by the aggregated gradient. AVERAGED: running statistics,
    which become the mean of what the shards made of them. COPIED: counters, of which the first
    shard's are taken.
    """

    TRAINED = "trained"
    AVERAGED = "averaged"
    COPIED = "copied"


class Region(NamedTuple):
    """Elements start..stop of the vector, which are treated alike.

    group: the row of the optimiser's settings that they go by. is_whole: the optimiser looks at
    all of them at once, so that they are one block, however many they are.
    """

    start: int
    stop: int
    kind: Kind = Kind.TRAINED
    group: int = 0
    is_whole: bool = False


@dataclass(frozen=True)
class Layout:
    """Arrays laid end to end in one vector of `size` elements."""

    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """First and past-the-last element of each array."""
        ends, end = [], 0
        for shape in self.shapes:
            ends.append((end, end + prod(shape)))
            end += prod(shape)
        return tuple(ends)

    @cached_property
    def size(self) -> int:
        """Number of elements in all."""
        return self.bounds[-1][1]

    def views(self, flat_N: Array) -> list[Array]:
        """The arrays as views into `flat_N` [size]."""
        return [
            flat_N[start:stop].reshape(shape)
            for (start, stop), shape in zip(self.bounds, self.shapes, strict=True)
        ]


def blocks_of(regions: Sequence[Region], largest: int = MAX_BLOCK) -> list[Region]:
    """The K blocks: each region cut as `block_bounds` says, or left whole."""
    blocks = []
    for region in regions:
        size = region.stop - region.start
        bounds = [(0, size)] if region.is_whole else block_bounds(size, largest)
        start = region.start
        blocks += [region._replace(start=start + a, stop=start + b) for a, b in bounds]
    return blocks


def block_bounds(n_parameters: int, largest: int = MAX_BLOCK) -> list[tuple[int, int]]:
    """First and past-the-last element of each block of so many parameters.

    Depends on the number of parameters alone: in pairs, as few as can be of at most `largest`
    elements, and all alike but for the rounding to 1,024, so that two workers have the same to
    update. Below 4,096 elements they are not cut.

    >>> block_bounds(7510)
    [(0, 4096), (4096, 7510)]
    """
    pairs = max(1, -(-n_parameters // (2 * largest)))
    even = -(-n_parameters // (2 * pairs))
    rounded = -(-even // ALIGNMENT) * ALIGNMENT
    size = min(max(rounded, MIN_BLOCK), largest)
    return [(start, min(start + size, n_parameters)) for start in range(0, n_parameters, size)]

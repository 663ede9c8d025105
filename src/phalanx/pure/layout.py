"""Where parameters lie in the flat vector, and how the vector is cut into blocks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
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
    all of them at once, so that they are one block, however many they are. panel: the number of the
    panel that they are, if their gradient is made of factors (pure/factors.py).
    """

    start: int
    stop: int
    kind: Kind = Kind.TRAINED
    group: int = 0
    is_whole: bool = False
    panel: int | None = None


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
        bounds = [(0, size)]
        if not region.is_whole:  # panels are in pairs already
            bounds = block_bounds(size, largest, are_paired=region.panel is None)
        start = region.start
        blocks += [region._replace(start=start + a, stop=start + b) for a, b in bounds]
    return blocks


def bundles_of(blocks: Sequence[Region], part: range) -> list[range]:
    """Blocks of a part that are best left to one worker: those of a panel; else each by itself.

    >>> bundles_of([Region(k, k + 1, panel=k // 2) for k in range(6)], range(6))
    [range(0, 2), range(2, 4), range(4, 6)]
    """
    bundles: list[range] = []
    for k in part:
        panel = blocks[k].panel
        if bundles and panel is not None and blocks[k - 1].panel == panel:
            bundles[-1] = range(bundles[-1].start, k + 1)
        else:
            bundles.append(range(k, k + 1))
    return bundles


def block_bounds(
    n_parameters: int, largest: int = MAX_BLOCK, are_paired: bool = True
) -> list[tuple[int, int]]:
    """First and past-the-last element of each block of so many parameters.

    Depends on the number of parameters alone: as few as can be of at most `largest` elements, which
    differ by no more than comes of rounding to 1,024; in pairs, so that two workers have the same
    to update. 4,096 elements or fewer are not cut.

    largest: a multiple of 1,024.

    >>> block_bounds(7510)
    [(0, 4096), (4096, 7510)]
    """
    step = 2 if are_paired and n_parameters > MIN_BLOCK else 1
    count = step * -(-n_parameters // (step * largest))
    units = -(-n_parameters // ALIGNMENT)
    edges = [min(units * k // count * ALIGNMENT, n_parameters) for k in range(count + 1)]
    return [(start, stop) for start, stop in pairwise(edges) if stop > start]

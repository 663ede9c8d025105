"""Where parameters lie in the flat vector, and how the vector is cut into blocks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from phalanx.arrays import Array

MAX_BLOCK = 16_384  # elements: a block, its journal page and its gradient share a core's cache
MIN_BLOCK = 4_096  # below this, the calls cost more than the arithmetic
ALIGNMENT = 1_024


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


def block_bounds(n_parameters: int) -> list[tuple[int, int]]:
    """First and past-the-last element of each of the K blocks.

    Depends on the number of parameters alone: at most 16,384 elements a block, and two blocks or
    more as soon as each has 4,096, so that a second worker finds something to update.

    >>> block_bounds(7510)
    [(0, 4096), (4096, 7510)]
    """
    half = -(-n_parameters // 2)
    rounded = -(-half // ALIGNMENT) * ALIGNMENT
    size = min(max(rounded, MIN_BLOCK), MAX_BLOCK)
    return [(start, min(start + size, n_parameters)) for start in range(0, n_parameters, size)]

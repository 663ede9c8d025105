"""Factors: what the shards of a batch leave in place of their gradients. Pure.

The gradient of a layer's weights over a batch is a product of two factors, its deltas [O, B] and
its inputs [F, B]; that of its biases [O] is the sum of the deltas over B. So each shard leaves its
columns of the factors, beside those of the other shards, and no shard's gradient is ever made.
Whoever updates a panel of the parameters multiplies the factors of the whole batch, once: in a
place and an order that depend on the job alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, groupby, pairwise
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np

from phalanx.pure import kernels
from phalanx.pure.aggregation import Aggregation, is_linear
from phalanx.pure.arrays import Array, in_cache_lines
from phalanx.pure.layout import Region
from phalanx.pure.rounding import EXACT

MIN_PANEL = 24_576  # elements; to multiply fewer rows at once takes longer an element
MAX_PANEL = 786_432  # elements, so that a panel's gradient stays near a core until its update
PAIRS = 2  # of panels, if they are not too small, and more where there are shards for more workers
ROWS = 8  # a kernel of BLAS takes so many at a time, and longer for a rest
SPARSE_ROWS = kernels.BAND // 2  # likewise, where the samples are given
LIGHT = 0.7  # work of an element that is made of given samples, a fifth of them not 0, or fewer
UNCUT = 4_096  # elements
FEW = 2**22  # elements; so many factors are worth what they save, whatever a gradient's size

Multiply: TypeAlias = Callable[[Array, Array, Array], object]
"""Of a factor [R, C], another [C, F] or ones [C], and where their product goes, [R, F] or [R]."""


class Factor(NamedTuple):
    """size: its numbers of a sample. is_by_sample: whether these lie side by side in memory.
    is_given: whether it is the samples, and these are sparse: whoever multiplies by them reads them
    where they lie, so nobody leaves them."""

    size: int
    is_by_sample: bool = False
    is_given: bool = False

    @property
    def n_left(self) -> int:
        """What of a sample is left."""
        return 0 if self.is_given else self.size


class Product(NamedTuple):
    """An array of parameters, from `start` on in the vector, whose gradient is the factor `left`
    times the factor `right`, transposed; or the sum of `left` over the columns, where that is None.
    """

    start: int
    left: int
    right: int | None = None


class Piece(NamedTuple):
    """Rows first..last of a product's array, which are elements start..stop of the vector."""

    product: Product
    first: int
    last: int
    start: int
    stop: int


@dataclass(frozen=True)
class FactorLayout:
    """Where the factors of a batch lie in a flat array, of C columns, and what they make.

    products: in the order of the vector. n_shards: each has as many columns as the largest of them
    has rows, filled up to cache lines, so that no two workers write into the same one; in which
    order, `outwards` says. Behind a shard's rows, one factor of each product is zero.
    """

    factors: tuple[Factor, ...]
    products: tuple[Product, ...]
    batch_size: int
    n_shards: int
    itemsize: int

    @cached_property
    def width(self) -> int:
        """Columns of a shard."""
        return in_cache_lines(-(-self.batch_size // self.n_shards), self.itemsize)

    @cached_property
    def parcel_size(self) -> int:
        """Elements of a shard's factors by themselves."""
        return self.width * sum(factor.n_left for factor in self.factors)

    @cached_property
    def size(self) -> int:
        """Elements of a batch's factors."""
        return self.parcel_size * self.n_shards

    def views(self, flat_n: Array) -> list[Array]:
        """The factors as views [size of the factor, C] into `flat_n` [size]; one that is given has
        no columns."""
        columns = self.width * self.n_shards
        ends = [0, *accumulate(factor.n_left * columns for factor in self.factors)]
        parts = [flat_n[start:stop] for start, stop in pairwise(ends)]
        return [
            part_n.reshape(-1, factor.size).T
            if factor.is_by_sample
            else part_n.reshape(factor.size, -1)
            for part_n, factor in zip(parts, self.factors, strict=True)
        ]

    def columns(self, shards: Sequence[int]) -> slice:
        """Those of one shard, or of neighbours from the left to the right."""
        place = outwards(self.n_shards).index(shards[0])
        return slice(place * self.width, (place + len(shards)) * self.width)

    def runs(self, shards: Sequence[int]) -> list[list[int]]:
        """These shards by neighbours, from the left to the right."""
        return [
            list(run)
            for is_mine, run in groupby(outwards(self.n_shards), lambda s: s in shards)
            if is_mine
        ]

    def shape(self, product: Product) -> tuple[int, ...]:
        """Of a product's array."""
        sizes = (product.left,) if product.right is None else (product.left, product.right)
        return tuple(self.factors[i].size for i in sizes)

    def is_of_given(self, product: Product) -> bool:
        """Whether a product is made of samples that nobody leaves."""
        return product.right is not None and self.factors[product.right].is_given

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """What of the products' arrays lies in a panel, which was cut between rows."""
        pieces = []
        for product in self.products:
            n_rows, *row = self.shape(product)
            width, begin = prod(row), product.start
            first, last = (min(max(at - begin, 0) // width, n_rows) for at in (start, stop))
            if first < last:
                ends = begin + first * width, begin + last * width
                pieces.append(Piece(product, first, last, *ends))
        return pieces


def multiply(left_RC: Array, right: Array, out: Array) -> None:
    """By NumPy's BLAS. See Multiply."""
    np.dot(left_RC, right, out=out)


@cache
def outwards(n_shards: int) -> tuple[int, ...]:
    """So many shards from the left to the right, as their columns lie: from the middle to both
    sides. So where two workers have every other one, each has neighbours; and the first ones are
    neighbours, however many of them have rows.

    >>> outwards(7)
    (6, 4, 2, 0, 1, 3, 5)
    """
    return (*reversed(range(0, n_shards, 2)), *range(1, n_shards, 2))


def pack(factors: Sequence[Array], columns: slice, parcel_n: Array) -> None:
    """Put a shard's factors one behind another."""
    for part_n, factor in _parts(factors, columns, parcel_n):
        part_n[...] = factor


def unpack(parcel_n: Array, factors: Sequence[Array], columns: slice) -> None:
    """Put a shard's factors where they belong."""
    for part_n, factor in _parts(factors, columns, parcel_n):
        factor[...] = part_n


def _parts(factors: Sequence[Array], columns: slice, parcel_n: Array) -> list[tuple[Array, Array]]:
    mine = [factor[:, columns] for factor in factors]
    ends = [0, *accumulate(factor.size for factor in mine)]
    return [
        (parcel_n[start:stop].reshape(factor.shape), factor)
        for (start, stop), factor in zip(pairwise(ends), mine, strict=True)
    ]


def factors_pay(layout: FactorLayout, n_parameters: int, fewest: int) -> bool:
    """Whether shards are to leave factors; depends on the job alone.

    fewest: parameters from which on it pays; gradients of fewer are sooner made by each shard than
    by all together.
    """
    factors = layout.batch_size * sum(factor.n_left for factor in layout.factors)
    return n_parameters >= fewest and factors <= max(layout.n_shards * n_parameters, FEW)


def may_leave_factors(rule: Aggregation, wire: str, exact: bool, sync_every: int) -> bool:
    """Whether nobody is to look at, round or average the gradients of single shards."""
    return is_linear(rule) and wire == EXACT and exact and sync_every == 1


def in_panels(regions: Sequence[Region], layout: FactorLayout) -> tuple[Region, ...]:
    """The panels of all regions, numbered in the order of the vector."""
    bounds = [(region, *ends) for region in regions for ends in _panels(region, layout)]
    return tuple(
        region._replace(start=start, stop=stop, panel=number)
        for number, (region, start, stop) in enumerate(bounds)
    )


def stretches_of(panels: Sequence[tuple[int, int]], mine: Collection[int]) -> list[range]:
    """The panels that are one worker's, those together that it makes at once: neighbours, as long
    as their gradient stays near a core until its update.

    panels: first and past-the-last element of each.

    >>> stretches_of([(0, 9), (9, 18), (18, 27), (27, 36)], {0, 1, 3})
    [range(0, 2), range(3, 4)]
    """
    runs: list[range] = []
    for panel in sorted(mine):
        first = runs[-1].start if runs and runs[-1].stop == panel else panel
        if first < panel and panels[panel][1] - panels[first][0] <= MAX_PANEL:
            runs[-1] = range(first, panel + 1)
        else:
            runs.append(range(panel, panel + 1))
    return runs


def _panels(region: Region, layout: FactorLayout) -> list[tuple[int, int]]:
    """Bounds of the panels of a region, cut between rows: of nearly equal work, and in pairs, so
    that two workers have the same."""
    size = region.stop - region.start
    wanted = min(max(PAIRS, layout.n_shards // 4), size // (2 * MIN_PANEL))
    pairs = max(1, wanted, -(-size // (2 * MAX_PANEL)))
    count = 2 * pairs if size > UNCUT else 1
    edges = _edges(region, layout)
    work = _work(layout, region.start, edges)
    evenly = [work[-1] * k / count for k in range(count + 1)]
    return [*pairwise(sorted({edges[_nearest(work, at)] for at in evenly}))]


def _nearest(rising: Sequence[float], wanted: float) -> int:
    """The place of the number that is nearest; the first of two.

    >>> [_nearest([0, 4, 6], wanted) for wanted in (0, 2, 5, 9)]
    [0, 0, 1, 2]
    """
    place = min(max(1, bisect_left(rising, wanted)), len(rising) - 1)
    return place - (wanted - rising[place - 1] <= rising[place] - wanted)


def _edges(region: Region, layout: FactorLayout) -> list[int]:
    """Where panels of a region may begin: at every so many rows of an array; and past the last."""
    starts = []
    for product in layout.products:
        if region.start <= product.start < region.stop:
            n_rows, *row = layout.shape(product)
            step = SPARSE_ROWS if layout.is_of_given(product) else ROWS
            starts += [product.start + first * prod(row) for first in range(0, n_rows, step)]
    return [*starts, region.stop]


def _work(layout: FactorLayout, start: int, edges: Sequence[int]) -> list[float]:
    """What elements take to be made and updated, from `start` to each edge, in elements that are
    made of factors."""
    given = [
        (max(start, product.start), product.start + prod(layout.shape(product)))
        for product in filter(layout.is_of_given, layout.products)
    ]
    light = [sum(max(0, min(edge, end) - begin) for begin, end in given) for edge in edges]
    return [edge - start - (1 - LIGHT) * few for edge, few in zip(edges, light, strict=True)]

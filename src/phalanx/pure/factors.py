"""Factors: what the shards of a batch leave in place of their gradients. Pure.

The gradient of weights [O, F] over a batch is a product of two factors, the deltas [O, B] and the
inputs [F, B]; that of biases [O] is the sum of the deltas over B. So each shard leaves its columns
of the factors, beside those of the other shards, and no shard's gradient is ever made. Whoever
updates a panel of the parameters multiplies the factors of the whole batch, once: in a place and an
order that depend on the job alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

from phalanx.pure.arrays import CACHE_LINE, Array
from phalanx.pure.layout import Layout

MIN_PANEL = 24_576  # elements; to multiply fewer rows at once takes longer an element
MAX_PANEL = 786_432  # elements, so that a panel's gradient stays near a core until its update
PAIRS = 2  # of panels, if they are not too small, and more where there are shards for more workers
ROWS = 8  # a kernel of BLAS takes so many at a time, and longer for a rest
UNCUT = 4_096  # elements
FEW = 2**22  # elements; so many factors are worth what they save, whatever a gradient's size
SMALL = 32_768  # parameters; gradients of fewer are sooner made by each shard than by all together


class Piece(NamedTuple):
    """Rows start..stop of one of the arrays of a layout."""

    array: int
    start: int
    stop: int


class Panel(NamedTuple):
    """Elements start..stop of the vector, whose gradient is made at once; they are these pieces."""

    start: int
    stop: int
    pieces: tuple[Piece, ...]


class Layer(NamedTuple):
    """The factors of a layer's gradient over a batch: what is put in, and its deltas."""

    inputs_FC: Array  # of the first layer as samples come, a view of [C, F]
    deltas_OC: Array


@dataclass(frozen=True)
class FactorLayout:
    """Where the factors of a batch lie in a flat array, of C columns.

    sizes: of the layers, from input to output. n_shards: each has as many columns as the largest of
    them has rows, filled up to cache lines, so that no two workers write into the same one. The
    columns behind a shard's rows have a sample again, and deltas of zero.
    """

    sizes: tuple[int, ...]
    batch_size: int
    n_shards: int
    itemsize: int

    @cached_property
    def width(self) -> int:
        """Columns of a shard."""
        a_line = CACHE_LINE // self.itemsize
        return -(-self.batch_size // (self.n_shards * a_line)) * a_line

    @cached_property
    def _starts(self) -> list[int]:
        """Of each layer's inputs and deltas in turn, and past the last."""
        sizes = [size for pair in pairwise(self.sizes) for size in pair]
        return [0, *accumulate(size * self.width * self.n_shards for size in sizes)]

    @property
    def size(self) -> int:
        """Elements of a batch's factors."""
        return self._starts[-1]

    @cached_property
    def parcel_size(self) -> int:
        """Elements of a shard's factors by themselves."""
        return self.size // self.n_shards

    def layers(self, flat_n: Array) -> list[Layer]:
        """Views into `flat_n` [size]."""
        layers, columns = [], self.width * self.n_shards
        for i, (fan_in, fan_out) in enumerate(pairwise(self.sizes)):
            inputs, deltas, end = self._starts[2 * i : 2 * i + 3]
            input_n = flat_n[inputs:deltas]
            inputs_FC = (
                input_n.reshape(columns, fan_in).T if i == 0 else input_n.reshape(fan_in, columns)
            )
            layers.append(Layer(inputs_FC, flat_n[deltas:end].reshape(fan_out, columns)))
        return layers

    def columns(self, first: int, last: int) -> slice:
        """Those of shards first..last."""
        return slice(first * self.width, last * self.width)


def runs_of(shards: Sequence[int]) -> list[tuple[int, int]]:
    """First and past-the-last of neighbours among shards.

    >>> runs_of([0, 2, 3])
    [(0, 1), (2, 4)]
    """
    runs: list[tuple[int, int]] = []
    for s in shards:
        if runs and runs[-1][1] == s:
            runs[-1] = runs[-1][0], s + 1
        else:
            runs.append((s, s + 1))
    return runs


def pack(layers: Sequence[Layer], columns: slice, parcel_n: Array) -> None:
    """Put a shard's factors one behind another."""
    for part_n, factor in _parts(layers, columns, parcel_n):
        part_n[...] = factor


def unpack(parcel_n: Array, layers: Sequence[Layer], columns: slice) -> None:
    """Put a shard's factors where they belong."""
    for part_n, factor in _parts(layers, columns, parcel_n):
        factor[...] = part_n


def _parts(layers: Sequence[Layer], columns: slice, parcel_n: Array) -> list[tuple[Array, Array]]:
    factors = [factor[:, columns] for layer in layers for factor in layer]
    ends = [0, *accumulate(factor.size for factor in factors)]
    return [
        (parcel_n[start:stop].reshape(factor.shape), factor)
        for (start, stop), factor in zip(pairwise(ends), factors, strict=True)
    ]


def factors_pay(sizes: Sequence[int], n_parameters: int, batch_size: int, n_shards: int) -> bool:
    """Whether shards are to leave factors; depends on the job alone.

    >>> factors_pay((784, 2048, 10), 1_628_170, batch_size=256, n_shards=4)
    True
    >>> factors_pay((784, 2048, 10), 1_628_170, batch_size=10_000, n_shards=4)
    False
    >>> factors_pay((64, 100, 10), 7_510, batch_size=200, n_shards=2)
    False
    """
    factors = batch_size * sum(map(sum, pairwise(sizes)))
    return n_parameters >= SMALL and factors <= max(n_shards * n_parameters, FEW)


def panels_of(layout: Layout, n_shards: int) -> tuple[Panel, ...]:
    """The panels of all arrays, cut between rows: of nearly equal size, and in pairs, so that two
    workers have the same.

    >>> [panel.stop for panel in panels_of(Layout(((100, 64), (10, 100), (100,), (10,))), 2)]
    [3584, 7510]
    """
    edges, size = _edges(layout), layout.size
    wanted = min(max(PAIRS, n_shards // 4), size // (2 * MIN_PANEL))
    pairs = max(1, wanted, -(-size // (2 * MAX_PANEL)))
    count = 2 * pairs if size > UNCUT else 1
    cuts = sorted({min(edges, key=lambda e: abs(e - size * k / count)) for k in range(count + 1)})
    return tuple(Panel(start, stop, _pieces(layout, start, stop)) for start, stop in pairwise(cuts))


def _edges(layout: Layout) -> list[int]:
    """Where panels may begin: at every eighth row of an array; and past the last."""
    starts = [
        start + row * ((stop - start) // shape[0])
        for (start, stop), shape in zip(layout.bounds, layout.shapes, strict=True)
        for row in range(0, shape[0], ROWS)
    ]
    return [*starts, layout.size]


def _pieces(layout: Layout, first: int, last: int) -> tuple[Piece, ...]:
    pieces = []
    for number, ((start, stop), shape) in enumerate(zip(layout.bounds, layout.shapes, strict=True)):
        width = (stop - start) // shape[0]
        here, end = max(first, start), min(last, stop)
        if here < end:
            pieces.append(Piece(number, (here - start) // width, (end - start) // width))
    return tuple(pieces)

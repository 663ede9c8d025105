"""How the gradient of a stretch of the parameters is made out of the factors of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from phalanx.data.entries import SparseRows
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.factors import FactorLayout, Multiply, Piece, outwards

Scale: TypeAlias = float | Array


class Bench:
    """Where one worker makes gradients, one at a time, of at most so many elements."""

    def __init__(
        self, layout: FactorLayout, multiply: Multiply, dtype: np.dtype[Any], largest: int
    ) -> None:
        columns = layout.width * layout.n_shards
        self.layout, self.multiply = layout, multiply
        self.grad_n = aligned_empty((largest,), dtype)
        self.scaled_n = aligned_empty((columns * max(f.n_left for f in layout.factors),), dtype)
        self.ones_C = np.ones(columns, dtype)


class Recipe:
    """For elements start..stop, cut between rows, and for the first so many shards of a batch."""

    def __init__(
        self, bench: Bench, batch: Sequence[Array], n_shards: int, start: int, stop: int
    ) -> None:
        self.start, self.grad_n = start, bench.grad_n[: stop - start]
        self.batch = batch  # by whose identity a recipe is known, so it must live on
        pieces = bench.layout.pieces(start, stop)
        columns = bench.layout.columns(outwards(n_shards))
        self._multiply = bench.multiply
        self._parts = [self._part(piece, bench, columns) for piece in pieces]
        self._gaps = self._gaps_between(pieces)

    def make(self, scale: Scale, given: SparseRows | None) -> Array:
        """The gradient, in the bench's memory; each sample's part of it times `scale`, one number
        or one of each column [C]. given: the factor that nobody leaves, if there is one."""
        is_scaled = isinstance(scale, np.ndarray) or scale != 1
        for left, scaled, right, grad in self._parts:
            if is_scaled:
                left = np.multiply(left, scale, out=scaled)
            if right is not None:
                self._multiply(left, right, grad)
            else:
                assert given is not None
                given.correlate(left, grad)
        for gap_n in self._gaps:
            gap_n[...] = 0
        return self.grad_n

    def _part(self, piece: Piece, bench: Bench, columns: slice) -> _Part:
        product, batch, layout = piece.product, self.batch, bench.layout
        left = batch[product.left][piece.first : piece.last, columns]
        right: Array | None = bench.ones_C[columns]
        if layout.is_of_given(product):
            right = None
        elif product.right is not None:
            right = batch[product.right][:, columns].T
        grad_n = self.grad_n[piece.start - self.start : piece.stop - self.start]
        order: Any = "F" if layout.factors[product.left].is_by_sample else "C"
        scaled = bench.scaled_n[: left.size].reshape(left.shape, order=order)
        return _Part(left, scaled, right, grad_n.reshape(len(left), *layout.shape(product)[1:]))

    def _gaps_between(self, pieces: Sequence[Piece]) -> list[Array]:
        """What of the elements is no array's: some arrays are filled up to a cache line."""
        starts = [*(piece.start - self.start for piece in pieces[1:]), len(self.grad_n)]
        stops = [piece.stop - self.start for piece in pieces]
        return [self.grad_n[a:b] for a, b in zip(stops, starts, strict=True) if a < b]


class _Part(NamedTuple):
    """A piece of the gradient: a factor times another, or times ones; or, where `right` is None,
    times what is given."""

    left: Array
    scaled: Array
    right: Array | None
    grad: Array

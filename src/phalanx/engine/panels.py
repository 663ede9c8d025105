"""The panels: gradients of several blocks, made at once out of the factors that shards left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from phalanx.arena import Arena
from phalanx.engine.factors import Factors
from phalanx.engine.post import Post
from phalanx.pure.aggregation import scales
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.factors import Piece, outwards
from phalanx.pure.layout import Region


class Panels:
    """Seen by one worker. Of the panels only the last one is kept: whoever owns a panel updates its
    blocks one after another, and an heir of some of them makes it again, to equal bits."""

    def __init__(self, post: Post, arena: Arena) -> None:
        layout, dtype = post.job.model.factors, post.job.model.dtype
        assert layout is not None
        self.post, self._layout, self._factors = post, layout, Factors(arena, layout)
        self._panels = {region.panel: region for region in post.job.model.regions}
        columns = layout.width * layout.n_shards
        largest = max(panel.stop - panel.start for panel in self._panels.values())
        self._room_n = aligned_empty((largest,), dtype)
        self._scaled_n = aligned_empty((columns * max(f.size for f in layout.factors),), dtype)
        self._ones_C = np.ones(columns, dtype)
        self._recipes: dict[tuple[int, int, int], _Recipe] = {}
        self._made: tuple[int, int | None] = (-1, None)  # in which tick, which one
        self._grad_n = np.empty(0)
        self._last: tuple[Any, ...] = ()  # what the last step's factors and scale follow from

    def begin(
        self, doers: Sequence[int] | None, counts: Sequence[int], weights: list[float]
    ) -> None:
        """A step's shards are done: by whom, or by their owners if None, of how many rows and of
        which weights."""
        owners = self.post.share.owners
        if doers is not None or self._last != (counts, weights):  # as in next to no step
            self._batch = self._factors.whole(doers or owners, owners)
            self._scale = self._scale_of(counts, weights)
            self._last = () if doers is not None else (counts, weights)
        self._n_shards = len(counts)

    def _scale_of(self, counts: Sequence[int], weights: list[float]) -> float | Array:
        """By what to multiply each sample's part: one number, where it is the same for all shards,
        or one for each column [C]."""
        job = self.post.job
        scale_S = scales(job.aggregation, weights, sum(counts))
        if len(set(scale_S)) == 1:
            return scale_S[0]
        in_order = [scale_S[s] for s in outwards(len(scale_S))]
        return np.repeat(np.array(in_order, job.model.dtype), self._layout.width)

    def of(self, block: Region) -> Array:
        """The gradient of a block of a panel, a view that the next panel overwrites."""
        assert block.panel is not None
        wanted = self.post.tick, block.panel
        if wanted != self._made:
            self._grad_n = self._recipe(block.panel).gradient(self._scale)
            self._made = wanted
        start = self._panels[block.panel].start
        return self._grad_n[block.start - start : block.stop - start]

    def _recipe(self, number: int) -> _Recipe:
        """How to make a panel of this step's factors. Kept, since a batch's factors never move."""
        key = number, id(self._batch), self._n_shards
        if key not in self._recipes:
            start, stop = self._panels[number][:2]
            panel_n = self._room_n[: stop - start]
            columns = self._layout.columns(outwards(self._n_shards))
            pieces = self._layout.pieces(start, stop)
            parts = [self._part(piece, columns, start) for piece in pieces]
            self._recipes[key] = _Recipe(panel_n, parts, self._gaps(pieces, panel_n), self._batch)
        return self._recipes[key]

    def _part(self, piece: Piece, columns: slice, origin: int) -> _Part:
        product, batch = piece.product, self._batch
        left = batch[product.left][piece.first : piece.last, columns]
        right = self._ones_C[columns]
        if product.right is not None:
            right = batch[product.right][:, columns].T
        grad_n = self._room_n[piece.start - origin : piece.stop - origin]
        order: Any = "F" if self._layout.factors[product.left].is_by_sample else "C"
        scaled = self._scaled_n[: left.size].reshape(left.shape, order=order)
        return _Part(left, scaled, right, grad_n.reshape(len(left), *right.shape[1:]))

    @staticmethod
    def _gaps(pieces: Sequence[Piece], panel_n: Array) -> list[Array]:
        """What of a panel is no array's: some are filled up to a cache line."""
        origin = pieces[0].start
        starts = [*(piece.start - origin for piece in pieces[1:]), len(panel_n)]
        stops = [piece.stop - origin for piece in pieces]
        return [panel_n[a:b] for a, b in zip(stops, starts, strict=True) if a < b]


class _Part(NamedTuple):
    """A piece of a panel's gradient: a factor times another, or times ones."""

    left: Array
    scaled: Array
    right: Array
    grad: Array


class _Recipe(NamedTuple):
    """How a panel's gradient is made. batch: by whose identity it is known, so it must live on."""

    panel_n: Array
    parts: list[_Part]
    gaps: list[Array]
    batch: Sequence[Array]

    def gradient(self, scale: float | Array) -> Array:
        is_scaled = isinstance(scale, np.ndarray) or scale != 1
        for left, scaled, right, grad in self.parts:
            if is_scaled:
                np.multiply(left, scale, out=scaled)
            np.dot(scaled if is_scaled else left, right, out=grad)
        for gap_n in self.gaps:
            gap_n[...] = 0
        return self.panel_n

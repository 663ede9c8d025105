"""Products of a wide layer's weights with several shards side by side.

BLAS packs a matrix before it multiplies, and of a shard of 64 rows that is a third of the work.
Side by side, shards share it. Kernels add up each element in the order of the inner dimension,
however many columns there are, so a shard comes to the bits that it comes to alone; but that is
theirs to keep. So it is tried on random numbers of the same shapes first, and where it does not
hold, shards are multiplied one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np

from phalanx.pure.arrays import Array, aligned_empty

ROWS_AT_ONCE = 256  # more share the packing further, but it is little by then
LARGEST_TRIAL = 2**24  # weights; a trial holds as many again for a moment

Product = Callable[["Stack", Array, Sequence[Array], Sequence[Array]], None]


class Stack:
    """Room for the shards that lie side by side."""

    def __init__(self, dtype: np.dtype[np.floating]) -> None:
        self._dtype = dtype
        self._flats = [aligned_empty((0,), dtype)] * 2  # of what is put in, of what comes out

    def project(
        self, weight_OF: Array, inputs_FB: Sequence[Array], outputs_OB: Sequence[Array]
    ) -> None:
        """Each output <- weight @ input. All inputs are in C's order, or all in Fortran's."""
        self._by_trial(Stack._project, weight_OF, inputs_FB, outputs_OB)

    def pass_back(
        self, weight_OF: Array, deltas_OB: Sequence[Array], below_FB: Sequence[Array]
    ) -> None:
        """Each below <- weight.T @ delta."""
        self._by_trial(Stack._pass_back, weight_OF, deltas_OB, below_FB)

    def _by_trial(
        self, product: Product, weight: Array, sources: Sequence[Array], results: Sequence[Array]
    ) -> None:
        counts = tuple(source.shape[1] for source in sources)
        is_turned = sources[0].flags.f_contiguous
        if len(counts) == 1 or agrees(product, weight.shape, counts, is_turned, self._dtype):
            product(self, weight, sources, results)
            return
        for source, result in zip(sources, results, strict=True):
            product(self, weight, [source], [result])

    def _project(
        self, weight_OF: Array, inputs_FB: Sequence[Array], outputs_OB: Sequence[Array]
    ) -> None:
        if len(inputs_FB) == 1:
            weight_OF.dot(inputs_FB[0], out=outputs_OB[0])
            return
        input_FB = self._side_by_side(inputs_FB)
        output_OB = self._room(1, (len(weight_OF), input_FB.shape[1]))
        weight_OF.dot(input_FB, out=output_OB)
        for one_OB, part in zip(outputs_OB, _columns(outputs_OB), strict=True):
            one_OB[...] = output_OB[:, part]

    def _pass_back(
        self, weight_OF: Array, deltas_OB: Sequence[Array], below_FB: Sequence[Array]
    ) -> None:
        """By way of [B, F]: the product takes up to a sixth less time, and to turn it is little."""
        delta_OB = self._side_by_side(deltas_OB)
        product_BF = self._room(1, (delta_OB.shape[1], weight_OF.shape[1]))
        np.dot(delta_OB.T, weight_OF, out=product_BF)
        for one_FB, part in zip(below_FB, _columns(below_FB), strict=True):
            one_FB[...] = product_BF[part].T

    def _side_by_side(self, parts: Sequence[Array]) -> Array:
        """[n, sum of the columns], in the order of the parts."""
        if len(parts) == 1:
            return parts[0]
        shape = len(parts[0]), sum(part.shape[1] for part in parts)
        is_turned = parts[0].flags.f_contiguous
        whole = self._room(0, shape[::-1]).T if is_turned else self._room(0, shape)
        for one, columns in zip(parts, _columns(parts), strict=True):
            whole[:, columns] = one
        return whole

    def _room(self, side: int, shape: tuple[int, int]) -> Array:
        size = shape[0] * shape[1]
        if size > self._flats[side].size:
            self._flats[side] = aligned_empty((size,), self._dtype)
        return self._flats[side][:size].reshape(shape)


def _columns(parts: Sequence[Array]) -> list[slice]:
    """Of each part, where they lie side by side."""
    ends = accumulate((part.shape[1] for part in parts), initial=0)
    return [slice(start, stop) for start, stop in pairwise(ends)]


@lru_cache(maxsize=256)
def agrees(
    product: Product,
    shape: tuple[int, int],
    counts: tuple[int, ...],
    is_turned: bool,
    dtype: np.dtype[np.floating],
) -> bool:
    """Whether shards of so many rows are known to come to the same bits side by side as alone.

    What a kernel adds in which order depends on shapes, not on values; so random numbers, of which
    no two sums in another order are likely to be equal, stand for all.
    """
    if shape[0] * shape[1] > LARGEST_TRIAL:
        return False
    rng, stack = np.random.default_rng(0), Stack(dtype)
    inner, outer = shape[::-1] if product is Stack._project else shape
    weight = _random(rng, shape, dtype)
    sources = [
        _random(rng, (count, inner), dtype).T if is_turned else _random(rng, (inner, count), dtype)
        for count in counts
    ]
    alone, together = ([aligned_empty((outer, count), dtype) for count in counts] for _ in range(2))
    for source, result in zip(sources, alone, strict=True):
        product(stack, weight, [source], [result])
    product(stack, weight, sources, together)
    return all(map(np.array_equal, alone, together))


def _random(
    rng: np.random.Generator, shape: tuple[int, int], dtype: np.dtype[np.floating]
) -> Array:
    values = aligned_empty(shape, dtype)
    rng.random(out=values, dtype=dtype.type)
    values -= 0.5
    return values

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phalanx.pure.layout import ALIGNMENT, MAX_BLOCK, MIN_BLOCK, Layout, block_bounds


@given(st.integers(1, 10**7))
def test_blocks_cover_the_vector_once_and_are_aligned(n):
    blocks = block_bounds(n)
    assert blocks[0][0] == 0
    assert blocks[-1][1] == n
    assert all(a[1] == b[0] for a, b in zip(blocks, blocks[1:], strict=False))
    assert all(start % 1024 == 0 and 0 < stop - start <= MAX_BLOCK for start, stop in blocks)


@given(st.integers(MIN_BLOCK + 1, 10**7))
def test_blocks_are_alike_and_come_in_pairs(n):
    sizes = [stop - start for start, stop in block_bounds(n)]
    assert len(sizes) % 2 == 0
    assert max(sizes) - min(sizes) < 2 * ALIGNMENT


def test_few_parameters_are_not_cut():
    assert block_bounds(MIN_BLOCK) == [(0, MIN_BLOCK)]
    assert block_bounds(MIN_BLOCK + 1) == [(0, 2048), (2048, MIN_BLOCK + 1)]


def test_views_are_parts_of_the_flat_vector():
    layout = Layout(((2, 3), (2,)))
    flat = np.arange(8)
    weight, bias = layout.views(flat)
    assert weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert bias.tolist() == [6, 7]
    weight[0, 0] = 9
    assert flat[0] == 9

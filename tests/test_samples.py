"""Rows of samples, as a network multiplies with them."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from phalanx.data import compressing
from phalanx.data.compressing import compressed
from phalanx.data.samples import FEW, TableSamples
from phalanx.pure.arrays import aligned_empty

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 100)).astype(np.float32)
MANY = FEW // X.shape[1] + 1  # rows


@pytest.mark.parametrize("x", [X, csr_matrix(X)], ids=["dense", "sparse"])
def test_products_with_few_rows_and_with_many(x):
    gatherer = TableSamples.of(x).gatherer(MANY)
    weight_HF = RNG.normal(size=(3, 100)).astype(np.float32)
    for count in (MANY, 5, MANY - 1, 1):  # in turn: each overwrites the rows of the one before
        index_B = RNG.permutation(len(X))[:count]
        rows = gatherer.rows(index_B)
        projected_HB, correlated_HF = (aligned_empty((3, n), np.float32) for n in (count, 100))
        rows.project(weight_HF, projected_HB)
        np.testing.assert_allclose(projected_HB, weight_HF @ X[index_B].T, rtol=1e-4, atol=1e-4)
        rows.correlate(projected_HB, correlated_HF)
        np.testing.assert_allclose(correlated_HF, projected_HB @ X[index_B], rtol=1e-4, atol=1e-4)


def unaligned(array):
    """The same, one byte behind where it could lie."""
    found = np.frombuffer(b" " + array.tobytes(), array.dtype, offset=1)
    assert not found.flags.aligned
    return found


def with_gaps(array):
    return np.repeat(array, 2)[::2]


@pytest.mark.parametrize("lay", [unaligned, with_gaps])
@pytest.mark.parametrize("name", ["indptr", "indices", "data"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_sparse_samples_may_lie_anywhere(lay, name, dtype):
    x = csr_matrix(np.where(X > 0, X, 0))
    x.indptr, x.indices = x.indptr.astype(dtype), x.indices.astype(dtype)
    setattr(x, name, lay(getattr(x, name)))
    weight_HF, projected_HB = np.eye(100, dtype=np.float32), np.empty((100, 5), np.float32)
    TableSamples.of(x).gatherer(5).rows(np.arange(5)).project(weight_HF, projected_HB)
    np.testing.assert_array_equal(projected_HB, np.where(X > 0, X, 0)[:5].T)


def mostly_zeros(n_samples=500, n_features=700, dtype=np.float32, kept=0.08):
    x = RNG.normal(size=(n_samples, n_features)).astype(dtype)
    return np.where(RNG.random(x.shape) < kept, x, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(500, 700), (93, 700), (1, 700), (3000, 512), (5, 100_000)])
def test_mostly_zeros_are_compressed_as_scipy_does(shape, dtype):
    x = mostly_zeros(*shape, dtype)
    x[0, :3] = 0.0, -0.0, 1.0
    for laid in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        found, expected = compressed(laid, 512), csr_matrix(x)
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert found.dtype == dtype
        assert found.shape == shape


def test_what_stays_as_it_is(monkeypatch):
    x, full = mostly_zeros(), RNG.normal(size=(500, 700))
    assert compressed(x, 64) is not x
    assert compressed(x, 32) is x, "products of few weights"
    assert compressed(full, 64) is full
    sparse = csr_matrix(x)
    assert compressed(sparse, 64) is sparse
    monkeypatch.setattr(compressing, "LARGEST", x.nbytes - 1)
    assert compressed(x, 64) is x


@pytest.mark.parametrize(
    ("n_features", "kept", "is_compressed"),
    [(700, 0.18, True), (700, 0.23, False), (20_000, 0.08, True), (20_000, 0.15, False)],
)
def test_how_many_zeros_it_takes(n_features, kept, is_compressed):
    """Of wide samples more."""
    x = mostly_zeros(100, n_features, kept=kept)
    assert (compressed(x, 64) is not x) == is_compressed


def test_it_depends_on_rows_from_everywhere():
    x = mostly_zeros(4000, 200)
    half_full = np.concatenate([x, RNG.normal(size=(4000, 200)).astype(np.float32)])
    assert compressed(half_full, 200) is half_full
    flipped = half_full[::-1]
    assert compressed(flipped, 200) is flipped

"""Rows of samples, as a network multiplies with them."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

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

"""A checkpoint knows its own data again."""

import numpy as np
import pytest
import scipy.sparse

from phalanx.data.fingerprint import MOST_ROWS, fingerprint
from phalanx.data.samples import TableSamples

X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.arange(30) % 3


def changed(array, place):
    other = array.copy()
    other[place] += 1
    return other


def test_the_same_values_have_the_same_fingerprint_however_they_lie_in_memory():
    known = fingerprint(TableSamples.of(X, Y))
    assert known == fingerprint(TableSamples.of(X.copy(order="F"), Y.copy()))
    assert known == fingerprint(TableSamples.of(np.repeat(X, 2, axis=1)[:, ::2], Y))


@pytest.mark.parametrize(
    "other",
    [
        TableSamples.of(changed(X, (0, 0)), Y),
        TableSamples.of(changed(X, (17, 2)), Y),
        TableSamples.of(changed(X, (29, 3)), Y),
        TableSamples.of(X, changed(Y, 29)),
        TableSamples.of(X.astype(np.float32), Y),
        TableSamples.of(X.reshape(60, 2), Y),
        TableSamples.of(X[::-1], Y),
        TableSamples.of(X[:29], Y[:29]),
        TableSamples.of(X, Y.astype(np.int32)),
        TableSamples.of(X, None, Y),
        TableSamples.of(X, Y, weight_B=np.ones(30)),
        TableSamples.of(scipy.sparse.csr_array(X), Y),
        None,
    ],
    ids=[
        "first value", "a value", "last value", "a label", "dtype", "shape", "order", "fewer",
        "dtype of labels", "targets", "weights", "sparse", "none",
    ],
)  # fmt: skip
def test_other_data_has_another_one(other):
    assert fingerprint(other) != fingerprint(TableSamples.of(X, Y))


def sparse(entries, columns=(0, 2, 1), starts=(0, 1, 2, 3)):
    return scipy.sparse.csr_array((np.array(entries), columns, starts), shape=(3, 3))


@pytest.mark.parametrize(
    "other",
    [
        sparse([1.0, 2.0, 4.0]),
        sparse([1.0, 2.0, 3.0], columns=(0, 2, 2)),
        sparse([1.0, 2.0, 3.0], starts=(0, 2, 2, 3)),
    ],
    ids=["value", "column", "row"],
)
def test_a_sparse_set_is_known_by_its_values_and_their_places(other):
    known = fingerprint(TableSamples.of(sparse([1.0, 2.0, 3.0])))
    assert fingerprint(TableSamples.of(sparse([1.0, 2.0, 3.0]))) == known
    assert fingerprint(TableSamples.of(other)) != known


def test_of_a_large_set_evenly_spaced_rows_are_looked_at():
    x = np.zeros((3 * MOST_ROWS, 1))
    seen = [
        fingerprint(TableSamples.of(x)) != fingerprint(TableSamples.of(changed(x, k)))
        for k in range(9)
    ]
    assert seen == [True, False, False] * 3

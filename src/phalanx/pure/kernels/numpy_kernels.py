"""The kernels in NumPy: what each comes to, to the bit.

compiled.c has them once more, in one pass over memory each. All arrays of a call are of float32 or
of float64, but for indices, and none overlaps another; vectors are contiguous, and so is each row
of a matrix, while the rows may lie apart where that is said. Numbers are Python's, and are rounded
to that type first. Every product is rounded before it is added to anything, and what is summed is
added in the order of its rows; so both forms agree on every processor (of sparse products, SciPy's
build has a say: see `_rows_of`).
"""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LANES = 64


def add_scaled(y_n: Array, factor: float, x_n: Array) -> None:
    """y <- y + factor x"""
    y_n += factor * x_n


def pull(y_n: Array, factor: float, x_n: Array) -> float:
    """y <- y + factor x; the sum of the squares of x, added up in lanes: of every LANES-th element,
    then of the lanes in their order."""
    y_n += factor * x_n
    squares_RL = np.zeros((len(x_n) // LANES + 2, LANES), x_n.dtype)
    np.multiply(x_n, x_n, out=squares_RL.reshape(-1)[LANES : LANES + len(x_n)])
    sums_L: list[float] = np.add.accumulate(squares_RL, axis=0)[-1].tolist()
    return reduce(add, sums_L, 0.0)  # a sum, since Python 3.12, takes care of what is rounded off


def weighted_sum(out_n: Array, rows_Sn: Array, weights_S: Array) -> None:
    """out <- the sum of the rows, each times its weight. There are some; they may lie apart."""
    np.multiply(rows_Sn[0], weights_S[0], out=out_n)
    for row_n, weight in zip(rows_Sn[1:], weights_S[1:], strict=True):
        out_n += weight * row_n


def shrink(x_n: Array, factor: float, least: float) -> None:
    """x <- factor x, and 0 where the magnitude of that is below `least`."""
    x_n *= factor
    x_n *= np.abs(x_n) >= least


def adam(
    params_n: Array,
    first_n: Array,
    second_n: Array,
    grad_n: Array,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    rate: float,
    least: float,
) -> None:
    """first <- beta_1 first + (1 - beta_1) grad, second <- beta_2 second + (1 - beta_2) grad^2, and
    params <- params + rate first / (sqrt(second) + epsilon).

    What of the gradient and of the first moment is below `least`, or of the second one below its
    square, counts as 0. The gradient may be overwritten.
    """
    grad_n *= np.abs(grad_n) >= least
    first_n *= beta_1
    first_n += (1 - beta_1) * grad_n
    first_n *= np.abs(first_n) >= least
    grad_n *= grad_n
    second_n *= beta_2
    second_n += (1 - beta_2) * grad_n
    second_n *= second_n >= least**2
    np.sqrt(second_n, out=grad_n)
    grad_n += epsilon
    np.divide(first_n, grad_n, out=grad_n)
    grad_n *= rate
    params_n += grad_n


def add_bias(z_HB: Array, bias_H: Array) -> None:
    """z <- z + bias, of each row its own. Rows may lie apart."""
    z_HB += bias_H[:, np.newaxis]


def relu(z_HB: Array) -> None:
    """z <- max(z, 0) of a matrix; NaN stays. Rows may lie apart."""
    zeros = _zeros(z_HB.shape, z_HB.dtype)
    np.maximum(z_HB, zeros, out=z_HB)
    z_HB += 0  # of two zeros the maximum is either


def relu_backward(delta_HB: Array, a_HB: Array) -> None:
    """delta <- delta where a > 0, else times 0, of matrices. Rows of both may lie apart."""
    delta_HB *= a_HB > 0


def subtract_max(z_OB: Array) -> None:
    """z <- z - the maximum of its column."""
    z_OB -= np.maximum.reduce(z_OB, axis=0)
    z_OB += 0  # of two zeros the maximum is either


def divide_by_sum(z_OB: Array) -> None:
    """z <- z / the sum of its column."""
    z_OB /= np.add.accumulate(z_OB, axis=0)[-1]  # a plain sum may go in another order


def take_classes(predictions_OB: Array, class_B: Array, likelihood_B: Array) -> None:
    """likelihood <- the prediction of each column's class, from which 1 is subtracted."""
    own = class_B, np.arange(len(class_B))
    likelihood_B[...] = predictions_OB[own]
    predictions_OB[own] -= 1


def project_entries(
    out_HB: Array,
    weight_HF: Array,
    starts: Array,
    columns: Array,
    entries: Array,
    index_B: Array,
    room_n: Array,
) -> None:
    """out <- the product of weights and sparse samples, of which row `index_B` is wanted: each sum
    is added up from 0 in the order of its entries. Rows of `out` and of the weights may lie apart.

    starts, index_B: of numpy.intp; columns: of numpy.intc. room: at least BAND (see __init__.py)
    times F + B elements, which are overwritten.
    """
    x = _rows_of(starts, columns, entries, index_B, weight_HF.shape[1])
    out_HB[...] = (x @ weight_HF.T).T


def correlate_entries(
    out_HF: Array,
    delta_HB: Array,
    starts: Array,
    columns: Array,
    entries: Array,
    index_B: Array,
    room_n: Array,
) -> None:
    """out <- the product of deltas and sparse samples, transposed; see `project_entries`."""
    x = _rows_of(starts, columns, entries, index_B, out_HF.shape[1])
    out_HF[...] = (x.T @ delta_HB.T).T


def _rows_of(starts: Array, columns: Array, entries: Array, index_B: Array, n_features: int) -> Any:
    """Rows of a CSR matrix of SciPy's. Its products add up from 0 in the order of the entries, and
    round each term before, where its compiler was not allowed to fuse them, as for x86."""
    from scipy.sparse import csr_matrix

    shape = len(starts) - 1, n_features
    return csr_matrix((entries, columns, starts), shape=shape, copy=False)[index_B]


@lru_cache(maxsize=16)
def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros to compare with: the maximum of two arrays is three times faster than of a scalar."""
    zeros = np.zeros(shape, dtype)
    zeros.flags.writeable = False
    return zeros

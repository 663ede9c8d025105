"""Dense samples that are mostly zeros, such as images on black ground and indicators of categories:
to multiply them as sparse ones takes less time, and less memory.

Whether they are depends on their values and the network alone, so it is the same wherever they lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phalanx.pure.arrays import Array
from phalanx.pure.kernels import BAND

MOST = 0.2  # of the elements that are not 0; with a quarter, dense products are as quick
MOST_OF_WIDE = 0.1  # likewise, of samples so wide that what a product works on is far from a core
WIDE = 2**21  # bytes of that
LOOK = 1_024  # rows that are looked at, at most, evenly spaced
FEWEST = 32_768  # weights of the first layer; with fewer, not the products take the time
LARGEST = 2**30  # bytes, dense: there is a copy of what is not 0
AT_ONCE = 65_536  # elements, near a core


def compressed(x: Any, n_hidden: int) -> Any:
    """`x` [n, F] as a CSR matrix, if that pays in products with weights [n_hidden, F]; else as it
    is."""
    is_dense = isinstance(x, np.ndarray)
    if not is_dense or x.shape[1] * n_hidden < FEWEST or x.nbytes > LARGEST:
        return x
    sample = x[:: -(-len(x) // LOOK)]
    most = MOST if BAND * x.shape[1] * x.itemsize <= WIDE else MOST_OF_WIDE
    return _csr(x) if np.count_nonzero(sample) <= most * sample.size else x


def _csr(x: Array) -> Any:
    """Some rows at a time: SciPy's own way takes four times as long."""
    from scipy.sparse import csr_matrix

    n_samples, n_features = x.shape
    height = max(1, AT_ONCE // n_features)
    column_n = np.tile(np.arange(n_features, dtype=np.intc), height)
    starts, parts = np.zeros(n_samples + 1, np.intp), []
    for start in range(0, n_samples, height):
        rows = x[start : start + height]
        is_there = rows != 0
        places = np.flatnonzero(is_there)
        parts.append((rows.take(places), column_n.take(places)))
        starts[start + 1 : start + 1 + len(rows)] = np.count_nonzero(is_there, axis=1)
    entries, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    return csr_matrix((entries, columns, np.cumsum(starts)), shape=x.shape, copy=False)

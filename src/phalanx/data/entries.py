"""Sparse samples: rows of them are multiplied where they lie, and never gathered."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from phalanx.errors import InvalidInput
from phalanx.pure import kernels
from phalanx.pure.arrays import Array, aligned_empty


class Entries:
    """Of all samples of a table in CSR form: those of row i are the elements starts[i] up to
    starts[i + 1] of `columns` and `entries`, in this order."""

    def __init__(self, starts: Array, columns: Array, entries: Array, n_features: int) -> None:
        self.parts, self.n_features = (starts, columns, entries), n_features
        self._room_n = aligned_empty((0,), entries.dtype)

    def rows(self, index_B: Array) -> SparseRows:
        """The rows that `index_B` names, in its order."""
        return SparseRows(self, index_B)

    def room(self, count: int) -> Array:
        """For a product with so many rows; overwritten by the next one."""
        size = kernels.BAND * (self.n_features + count)
        if size > self._room_n.size:
            self._room_n = aligned_empty((size,), self._room_n.dtype)
        return self._room_n


class SparseRows(NamedTuple):
    """Some rows of a table, x [B, F], by their numbers."""

    table: Entries
    index_B: Array

    def project(self, weight_HF: Array, out_HB: Array) -> None:
        """out <- weight @ x.T"""
        room_n = self.table.room(len(self.index_B))
        kernels.project_entries(out_HB, weight_HF, *self.table.parts, self.index_B, room_n)

    def correlate(self, delta_HB: Array, out_HF: Array) -> None:
        """out <- delta @ x"""
        room_n = self.table.room(len(self.index_B))
        kernels.correlate_entries(out_HF, delta_HB, *self.table.parts, self.index_B, room_n)


def parts_of(csr: Any) -> tuple[Array, Array, Array]:
    """Starts, columns and entries of a SciPy matrix, as kernels take them; not copied where they
    are so already. Raises InvalidInput for columns that there are not.
    """
    for column in (csr.indices.min(initial=0), csr.indices.max(initial=0)):
        if not 0 <= column < csr.shape[1]:
            raise InvalidInput(
                f"the entries of a sparse matrix [n, {csr.shape[1]}] must be of columns 0 to "
                f"{csr.shape[1] - 1}; got one of column {column}. Its check_format() says more."
            )
    parts = (csr.indptr, np.intp), (csr.indices, np.intc), (csr.data, csr.dtype)
    starts, columns, entries = (np.require(part, dtype, ["C", "A"]) for part, dtype in parts)
    return starts, columns, entries

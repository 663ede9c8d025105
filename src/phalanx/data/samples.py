"""The samples of a training or a prediction, dense or sparse, and a few of them at a time.

`Samples` is a named set of arrays, so that it can lie in the caller's memory, in the arena, or in
a mapped file alike. `Rows` is what a model sees of it: some rows, gathered into aligned buffers; or
where they lie, if they are sparse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from phalanx.data.entries import Entries, parts_of
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.randomness import Key

ROWS, COLUMNS, ENTRIES, STARTS = "x", "x_columns", "x_entries", "x_starts"
CLASSES, TARGETS, WEIGHTS = "y_classes", "y", "weight"
FEW = 8_192  # elements, near a core: to turn them pays in the product with them


class Samples(Protocol):
    """What a training or a prediction is made on: arrays, and how some samples are taken.

    A dataclass. by_rows: names of the arrays of which nothing is used but `take` of some rows.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def arrays(self) -> dict[str, Any]: ...

    @property
    def n_samples(self) -> int: ...

    @property
    def by_rows(self) -> tuple[str, ...]: ...

    def glimpse(self) -> bytes:
        """What is to be known of the samples beside their arrays, to know them again."""

    def gatherer(self, max_rows: int) -> Any:
        """What takes at most so many samples at a time, for a model to use."""


@dataclass(frozen=True)
class TableSamples:
    """Arrays by name: `x` [n, F], or CSR parts for sparse data; `y_classes` [n] or `y` [n, O];
    `weight` [n] or absent. In a worker, `x` may be anything that rows can be taken from."""

    arrays: dict[str, Any]
    n_samples: int
    n_features: int
    by_rows: ClassVar[tuple[str, ...]] = (ROWS,)

    @classmethod
    def of(
        cls,
        x: Any,
        classes_B: Array | None = None,
        target_BO: Array | None = None,
        weight_B: Array | None = None,
    ) -> TableSamples:
        """Samples from a dense array or any SciPy sparse matrix, without a copy where possible."""
        if hasattr(x, "tocsr"):
            arrays = dict(zip((STARTS, COLUMNS, ENTRIES), parts_of(x.tocsr()), strict=True))
        else:
            arrays = {ROWS: x}
        optional = {CLASSES: classes_B, TARGETS: target_BO, WEIGHTS: weight_B}
        arrays |= {name: array for name, array in optional.items() if array is not None}
        return cls(arrays, *x.shape)

    @property
    def is_dense(self) -> bool:
        return ROWS in self.arrays

    def glimpse(self) -> bytes:
        return b""

    def gatherer(self, max_rows: int) -> Gatherer:
        """What takes at most so many rows at a time."""
        return Gatherer(self, max_rows)


class Gatherer:
    """Gathers dense rows into one buffer of its own, where each call overwrites those of the one
    before. Sparse rows stay where they lie."""

    def __init__(self, samples: TableSamples, max_rows: int) -> None:
        self.arrays = samples.arrays
        self.classes, self.target, self.weight = (
            samples.arrays.get(name) for name in (CLASSES, TARGETS, WEIGHTS)
        )
        self.n_features = samples.n_features
        self.entries: Entries | None = None
        if samples.is_dense:
            x = self.arrays[ROWS]
            self._flat = aligned_empty((max_rows * samples.n_features,), x.dtype)
            self._turned = aligned_empty((min(self._flat.size, FEW),), x.dtype)
            self._buffers: dict[int, tuple[Array, Array | None]] = {}
        else:
            starts, columns, entries = (self.arrays[name] for name in (STARTS, COLUMNS, ENTRIES))
            self.entries = Entries(starts, columns, entries, samples.n_features)

    def rows(self, index_B: Array, key: Key | None = None) -> Rows:
        """The rows that `index_B` names, in its order; nothing about them is random."""
        if self.entries is not None:
            return Rows(self.entries.rows(index_B), len(index_B), *self._targets(index_B))
        count = len(index_B)
        x, x_FB = self._buffers.get(count) or self._buffers_of(count)
        self.arrays[ROWS].take(index_B, axis=0, out=x, mode="clip")
        if x_FB is not None:
            x_FB[...] = x.T
        return Rows(x, count, *self._targets(index_B), x_FB)

    def rows_into(self, x_BF: Array, index_B: Array) -> Rows:
        """As `rows`, but dense samples go into `x_BF`, which is the caller's; sparse ones stay."""
        if self.entries is not None:
            return self.rows(index_B)
        self.arrays[ROWS].take(index_B, axis=0, out=x_BF, mode="clip")
        return Rows(x_BF, len(index_B), *self._targets(index_B))

    def _targets(self, index_B: Array) -> tuple[Array | None, Array | None, Array | None]:
        """Classes [B], targets [O, B] and weights [B], whichever there are."""
        return (
            None if self.classes is None else self.classes.take(index_B),
            None if self.target is None else np.ascontiguousarray(self.target[index_B].T),
            None if self.weight is None else self.weight.take(index_B),
        )

    def _buffers_of(self, count: int) -> tuple[Array, Array | None]:
        """Where so many rows go, [B, F], and if they are few, once more as [F, B]."""
        size, shape = count * self.n_features, (count, self.n_features)
        turned = self._turned[:size].reshape(shape[::-1]) if size <= FEW else None
        self._buffers[count] = self._flat[:size].reshape(shape), turned
        return self._buffers[count]


@dataclass(slots=True)
class Rows:
    """Some samples: `x` [B, F], dense or `SparseRows`, targets feature-major, weights or None.

    x_FB: few samples once more, feature-major.
    """

    x: Any
    count: int
    classes_B: Any = None
    target_OB: Any = None
    weight_B: Any = None
    x_FB: Any = None

    def project(self, weight_HF: Array, out_HB: Array) -> None:
        """out <- weight @ x.T"""
        if self.x_FB is not None:
            weight_HF.dot(self.x_FB, out=out_HB)
        elif isinstance(self.x, np.ndarray):
            weight_HF.dot(self.x.T, out=out_HB)
        else:
            self.x.project(weight_HF, out_HB)

    def correlate(self, delta_HB: Array, out_HF: Array) -> None:
        """out <- delta @ x"""
        if isinstance(self.x, np.ndarray):
            delta_HB.dot(self.x, out=out_HF)
        else:
            self.x.correlate(delta_HB, out_HF)

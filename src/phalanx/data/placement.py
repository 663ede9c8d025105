"""Where the samples of a job lie for the workers: copied once into the arena, or in a mapped file.

Samples that the caller has as `numpy.memmap` are mapped by each worker from the same file, so the
host holds one copy of them however many workers there are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from phalanx.arena import Arena, Field, Fields
from phalanx.arrays import Array
from phalanx.data.samples import Samples


@dataclass(frozen=True)
class FilePart:
    """A C-ordered array inside a file."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def attach(self) -> Array:
        """The array, mapped read-only."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


@dataclass(frozen=True)
class Placement:
    """Samples as a worker finds them: some arrays in the arena, others in files."""

    prefix: str
    n_samples: int
    n_features: int
    in_arena: tuple[str, ...]
    in_files: dict[str, FilePart]

    @classmethod
    def of(cls, samples: Samples, prefix: str) -> Placement:
        files = {name: file_part(array) for name, array in samples.arrays.items()}
        in_files = {name: part for name, part in files.items() if part is not None}
        in_arena = tuple(name for name in samples.arrays if name not in in_files)
        return cls(prefix, samples.n_samples, samples.n_features, in_arena, in_files)

    def fields(self, samples: Samples) -> Fields:
        """The arena's fields for what is not in files."""
        arrays = samples.arrays
        return {
            f"{self.prefix}{name}": Field(arrays[name].shape, arrays[name].dtype.str)
            for name in self.in_arena
        }

    def copy_in(self, samples: Samples, arena: Arena) -> None:
        """Copy what is not in files into the arena."""
        for name in self.in_arena:
            arena[f"{self.prefix}{name}"][...] = samples.arrays[name]

    def attach(self, arena: Arena) -> Samples:
        """The samples, seen from a worker."""
        arrays = {name: arena[f"{self.prefix}{name}"] for name in self.in_arena}
        arrays |= {name: part.attach() for name, part in self.in_files.items()}
        return Samples(arrays, self.n_samples, self.n_features)


def file_part(array: Array) -> FilePart | None:
    """The file that an array is a mapping of, or None if it is not one as it stands."""
    mapped = _memmap_under(array)
    if mapped is None or not array.flags.c_contiguous or mapped.filename is None:
        return None
    path = os.fspath(mapped.filename)
    if mapped.mode not in ("r", "r+") or not os.path.exists(path):
        return None
    start = array.__array_interface__["data"][0] - mapped.__array_interface__["data"][0]
    return FilePart(path, mapped.offset + start, array.shape, array.dtype.str)


def _memmap_under(array: Array) -> np.memmap[Any, Any] | None:
    """The outermost mapping that an array is a view of."""
    found: np.memmap[Any, Any] | None = None
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            found = base
        base = base.base
    return found

"""Where the samples of a job lie for the workers. One copy a host, whichever way.

- In a file: samples that the caller has as `numpy.memmap` are mapped by each worker.
- In the caller's memory: large samples are read from there, row by row (caller.py).
- In the arena: everything else is copied there once for all workers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phalanx.arena import Arena, Field, Fields
from phalanx.data.caller import CallerPart, caller_part
from phalanx.data.samples import Samples
from phalanx.pure.arrays import Array


@dataclass(frozen=True)
class FilePart:
    """A C-ordered array inside a file."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def attach(self, memory: int) -> Array:
        """The array, mapped read-only; the caller's memory is not needed."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


@dataclass(frozen=True)
class Placement:
    """Samples as a worker finds them; `elsewhere` holds what is not in the arena.

    bare: the samples without their arrays.
    """

    prefix: str
    bare: Samples
    in_arena: tuple[str, ...]
    elsewhere: dict[str, FilePart | CallerPart]

    @classmethod
    def of(cls, samples: Samples, prefix: str) -> Placement:
        """Decide for each array where workers are to find it."""
        elsewhere: dict[str, FilePart | CallerPart] = {}
        for name, array in samples.arrays.items():
            part = file_part(array) or (caller_part(array) if name in samples.by_rows else None)
            if part is not None:
                elsewhere[name] = part
        in_arena = tuple(name for name in samples.arrays if name not in elsewhere)
        return cls(prefix, replace(samples, arrays={}), in_arena, elsewhere)

    def fields(self, samples: Samples) -> Fields:
        """The arena's fields for what is copied there."""
        arrays = samples.arrays
        return {
            f"{self.prefix}{name}": Field(arrays[name].shape, arrays[name].dtype.str)
            for name in self.in_arena
        }

    def copy_in(self, samples: Samples, arena: Arena, descriptor: int) -> None:
        """Copy it; descriptor: of the arena."""
        for name in self.in_arena:
            arena.fill(f"{self.prefix}{name}", samples.arrays[name], descriptor)

    def attach(self, arena: Arena, memory: int) -> Samples:
        """The samples, seen from a worker; `memory` is a descriptor of the caller's memory."""
        arrays: dict[str, Any] = {n: arena[f"{self.prefix}{n}"] for n in self.in_arena}
        arrays |= {name: part.attach(memory) for name, part in self.elsewhere.items()}
        return replace(self.bare, arrays=arrays)


def file_part(array: Array) -> FilePart | None:
    """The file that an array is a mapping of, or None if it is not one as it stands."""
    mapped = _memmap_under(array)
    if mapped is None or not array.flags.c_contiguous or mapped.filename is None:
        return None
    path = os.fspath(mapped.filename)
    if mapped.mode not in ("r", "r+") or not _is_still_mapped(path, mapped):
        return None
    start = array.__array_interface__["data"][0] - mapped.__array_interface__["data"][0]
    return FilePart(path, mapped.offset + start, array.shape, array.dtype.str)


def _is_still_mapped(path: str, mapped: np.memmap[Any, Any]) -> bool:
    """Whether the file of this name is the one that was mapped, and no other that replaced it."""
    address = mapped.__array_interface__["data"][0]
    try:
        file = os.stat(path)
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                bounds, _, _, device, inode = line.split(maxsplit=5)[:5]
                first, last = (int(bound, 16) for bound in bounds.split("-"))
                if first <= address < last:
                    major, minor = (int(part, 16) for part in device.split(":"))
                    found = (int(inode), major, minor)
                    return found == (file.st_ino, os.major(file.st_dev), os.minor(file.st_dev))
    except OSError:
        return False
    return False


def _memmap_under(array: Array) -> np.memmap[Any, Any] | None:
    """The outermost mapping that an array is a view of."""
    found: np.memmap[Any, Any] | None = None
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            found = base
        base = base.base
    return found

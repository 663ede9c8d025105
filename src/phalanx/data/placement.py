"""Where the samples of a job lie for the workers. One copy a host, whichever way.

- In a file: samples that the caller has as `numpy.memmap` are mapped by each worker; out of the
  caller's memory, by a worker that comes after the file was replaced or deleted.
- In the caller's memory: large samples are read from there, row by row (caller.py).
- In the arena: everything else is copied there once for all workers, sparse samples among it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phalanx.arena import Arena, Field, Fields
from phalanx.data.caller import CallerPart, caller_part
from phalanx.data.samples import Samples
from phalanx.pure.arrays import Array


@dataclass(frozen=True)
class FilePart:
    """A C-ordered array inside a file, of which nothing but rows may be wanted.

    file: which one (device, inode), whatever has its name by now. here: the array in the caller's
    memory.
    """

    path: str
    file: tuple[int, int]
    offset: int
    here: CallerPart
    by_rows: bool

    def attach(self, memory: int) -> Any:
        """The array, mapped read-only. Where the file has no longer its name, what the caller has
        mapped is there still, and is read through the descriptor `memory`."""
        with suppress(OSError), open(self.path, "rb") as file:
            if _identity(os.fstat(file.fileno())) == self.file:
                return np.memmap(file, self.here.dtype, "r", self.offset, self.here.shape)
        return self.here.attach(memory) if self.by_rows else self.here.copied(memory)


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
            by_rows = name in samples.by_rows
            part = file_part(array, by_rows) or (caller_part(array) if by_rows else None)
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


def file_part(array: Array, by_rows: bool) -> FilePart | None:
    """The file that an array is a mapping of, or None if it is not one as it stands."""
    mapped = _memmap_under(array)
    if mapped is None or not array.flags.c_contiguous or mapped.filename is None:
        return None
    path = os.fspath(mapped.filename)
    file = _still_mapped(path, mapped) if mapped.mode in ("r", "r+") else None
    if file is None:
        return None
    address = array.__array_interface__["data"][0]
    offset = mapped.offset + address - mapped.__array_interface__["data"][0]
    here = CallerPart(address, array.shape, array.dtype.str)
    return FilePart(path, file, offset, here, by_rows)


def _identity(file: os.stat_result) -> tuple[int, int]:
    return file.st_dev, file.st_ino


def _still_mapped(path: str, mapped: np.memmap[Any, Any]) -> tuple[int, int] | None:
    """The file of this name, if it is the one that was mapped, and no other that replaced it."""
    address = mapped.__array_interface__["data"][0]
    try:
        file = os.stat(path)
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                bounds, _, _, device, inode = line.split(maxsplit=5)[:5]
                first, last = (int(bound, 16) for bound in bounds.split("-"))
                if first <= address < last:
                    major, minor = (int(part, 16) for part in device.split(":"))
                    found = (os.makedev(major, minor), int(inode))
                    return found if found == _identity(file) else None
    except OSError:
        return None
    return None


def _memmap_under(array: Array) -> np.memmap[Any, Any] | None:
    """The outermost mapping that an array is a view of."""
    found: np.memmap[Any, Any] | None = None
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            found = base
        base = base.base
    return found

"""The arena: the one copy of a job's state on a host, as named arrays in one mapping.

For one worker it is private memory of the caller. For several it is an anonymous file in memory
(memfd): it has no name, so nothing is left behind when its last user is gone, however that ended.
"""

from __future__ import annotations

import mmap
import os
import sys
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from phalanx.pure.arrays import Array, in_cache_lines

PAGE = 4096  # bytes
AT_ONCE = 64 << 20  # bytes that are written before an interrupt is looked for
NORESERVE = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE, which mmap does not name


@dataclass(frozen=True)
class Field:
    """Shape and dtype of one array of the arena; it starts out as zeros.

    aligned: whether each row begins on a cache line of its own, with a gap before it if need be.
    """

    shape: tuple[int, ...]
    dtype: str = "float64"
    aligned: bool = False

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape with the gaps."""
        if not self.aligned:
            return self.shape
        return (*self.shape[:-1], in_cache_lines(self.shape[-1], np.dtype(self.dtype).itemsize))

    @property
    def nbytes(self) -> int:
        return prod(self.stored) * np.dtype(self.dtype).itemsize


Fields = dict[str, Field]


class Arena:
    """Named arrays, each starting on a page of its own."""

    def __init__(self, fields: Fields, memory: mmap.mmap) -> None:
        self._arrays: dict[str, Array] = {}
        self._offsets: dict[str, int] = {}
        offset = 0
        for name, field in fields.items():
            array = np.frombuffer(memory, field.dtype, prod(field.stored), offset)
            without_gaps = (..., slice(field.shape[-1]))
            self._arrays[name] = array.reshape(field.stored)[without_gaps]
            self._offsets[name] = offset
            offset += _pages(field.nbytes)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def fill(self, name: str, values: Array, descriptor: int) -> None:
        """Copy values of its shape and dtype into a field that nobody has touched yet.

        descriptor: of the arena's file. To write into that takes half as long as into its mapping,
        where the kernel would be asked for every page, and clear it first.
        Raises MemoryError where the host has no room for them.
        """
        if not values.flags.c_contiguous:
            self._arrays[name][...] = values
            return
        flat = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        done = 0
        try:
            while done < len(flat):
                some = flat[done : done + AT_ONCE]
                done += os.pwrite(descriptor, some, self._offsets[name] + done)
        except OSError as error:
            raise _no_room(values.nbytes, error) from error

    def words(self, name: str) -> memoryview[Any]:
        """An array, flat, as plain numbers: reading one takes 30 ns, a NumPy element 100."""
        return memoryview(self._arrays[name].reshape(-1))  # type: ignore[arg-type]

    @classmethod
    def private(cls, fields: Fields, is_sparse: bool = False) -> Arena:
        """An arena that only this process sees.

        is_sparse: much of it will never be touched, so it may be larger than the host's memory.
        """
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE * is_sparse
        return cls(fields, mmap.mmap(-1, _size(fields), flags=flags))

    @classmethod
    def shared(cls, fields: Fields) -> tuple[Arena, int]:
        """An arena that other processes can attach, and its file descriptor (yours to close).

        Raises MemoryError where the host has no room for it.
        """
        descriptor = anonymous_file()
        try:
            os.ftruncate(descriptor, _size(fields))
            return cls(fields, mmap.mmap(descriptor, _size(fields))), descriptor
        except OSError as error:
            os.close(descriptor)
            raise _no_room(_size(fields), error) from error

    @classmethod
    def attach(cls, fields: Fields, descriptor: int) -> Arena:
        """The arena behind a descriptor (yours to close) that another process made."""
        return cls(fields, mmap.mmap(descriptor, _size(fields)))


def anonymous_file() -> int:
    """A descriptor of a file without a name: in memory on Linux, else an unlinked temporary one."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("phalanx", os.MFD_CLOEXEC)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _no_room(nbytes: int, error: OSError) -> MemoryError:
    return MemoryError(
        f"no room for {nbytes / 2**20:.0f} MiB of shared memory: {error}. "
        "Use fewer shards, or one worker, which shares nothing."
    )


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE


def _size(fields: Fields) -> int:
    return max(PAGE, sum(_pages(field.nbytes) for field in fields.values()))

"""A module's parameters and running statistics as one flat vector.

Parameters come first, each beginning on a cache line of its own, then the buffers that training
changes: those of floating point (running statistics), then all others (counters), whose bytes are
carried unchanged.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import numpy as np
import torch

from phalanx.pure.arrays import Array, in_cache_lines
from phalanx.pure.layout import Kind, Region

Piece = tuple[int, tuple[int, ...]]  # where it begins, and its shape


@dataclass(frozen=True)
class Vector:
    """Where everything lies. starts: of parameters, averaged and copied buffers, and the end.

    params: place and shape of each parameter. averaged, copied: buffers by name.
    """

    dtype_name: str
    params: tuple[Piece, ...]
    averaged: dict[str, Piece]
    copied: dict[str, Piece]
    starts: tuple[int, int, int, int]

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return np.dtype(self.dtype_name)

    @property
    def size(self) -> int:
        """N."""
        return self.starts[-1]

    @classmethod
    def of(
        cls, params: Iterable[torch.Tensor], buffers: dict[str, torch.Tensor], dtype: torch.dtype
    ) -> Vector:
        """Lay out parameters and the buffers that training changes."""
        name = str(dtype).removeprefix("torch.")
        width = np.dtype(name).itemsize
        place = 0
        placed: list[Piece] = []
        for param in params:
            placed.append((place, tuple(param.shape)))
            place = in_cache_lines(place + param.numel(), width)
        kinds: tuple[dict[str, Piece], dict[str, Piece]] = {}, {}
        starts = [0]
        for is_copied, pieces in enumerate(kinds):
            starts.append(place)
            for key, buffer in buffers.items():
                if is_copied == (buffer.dtype != dtype):
                    pieces[key] = (place, tuple(buffer.shape))
                    nbytes = buffer.numel() * buffer.element_size()
                    place = in_cache_lines(place + -(-nbytes // width), width)
        return cls(name, tuple(placed), *kinds, (*starts, place))  # type: ignore[arg-type]

    def regions(
        self, keys: Sequence[Hashable], groups: Sequence[int], is_whole: bool
    ) -> tuple[Region, ...]:
        """The parameters, neighbours of equal key together, or each of them whole; the buffers."""
        starts = [start for start, _ in self.params]
        ends = [*starts[1:], self.starts[1]]
        found = []
        for _, places in groupby(range(len(starts)), key=lambda i: i if is_whole else keys[i]):
            run = list(places)
            start, shape = self.params[run[0]]
            stop = start + prod(shape) if is_whole else ends[run[-1]]
            found.append(Region(start, stop, Kind.TRAINED, groups[run[0]], is_whole))
        _, *rest = self.starts
        for kind, start, stop in zip((Kind.AVERAGED, Kind.COPIED), rest, rest[1:], strict=False):
            if stop > start:
                found.append(Region(start, stop, kind))
        return tuple(found)

    def param_views(self, flat_N: Array) -> list[torch.Tensor]:
        """The parameters as tensors that share memory with `flat_N` [N]."""
        return [torch.from_numpy(_part(flat_N, piece)) for piece in self.params]

    def buffer_views(
        self, flat_N: Array, dtypes: dict[str, torch.dtype]
    ) -> dict[str, torch.Tensor]:
        """The buffers likewise; `dtypes` of the copied ones."""
        views = {name: torch.from_numpy(_part(flat_N, at)) for name, at in self.averaged.items()}
        for name, (start, shape) in self.copied.items():
            dtype = dtypes[name]
            nbytes = prod(shape) * dtype.itemsize
            raw = flat_N[start:].view(np.uint8)[:nbytes]
            views[name] = torch.from_numpy(raw).view(dtype).reshape(shape)
        return views


def _part(flat_N: Array, piece: Piece) -> Array:
    start, shape = piece
    return flat_N[start : start + prod(shape)].reshape(shape)

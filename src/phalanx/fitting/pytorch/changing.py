"""The tensors of a user's module that training changes, checked: workers have copies of them, each
in memory of its own, and what was learnt is written back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.array_utils import byte_bounds

from phalanx.errors import InvalidInput
from phalanx.models.pytorch.parameters import named_parameters_of
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.arrays import Array

Named = dict[str, torch.Tensor]


def check_changing(
    module: torch.nn.Module, params: Sequence[torch.Tensor], buffers: set[str]
) -> None:
    """Raise InvalidInput for tensors that cannot be changed by themselves.

    params, buffers: those that a training changes, the latter by name.
    """
    named: Named = dict(named_parameters_of(module))
    trained, known = set(map(id, params)), set(map(id, named.values()))
    changing = buffers | {name for name, param in named.items() if id(param) in trained}
    named |= {name: buffer for name, buffer in module.named_buffers() if id(buffer) not in known}
    _check_writable(named, changing)
    _check_apart(named, changing)


def _check_writable(named: Named, changing: set[str]) -> None:
    for name, tensor in named.items():
        if name in changing and tensor.is_inference():
            raise InvalidInput(
                "what training changes must be tensors that may be written into; "
                f"{name!r} was made within torch.inference_mode(). Make the module outside of it, "
                "or within torch.no_grad()."
            )


def _check_apart(named: Named, changing: set[str]) -> None:
    for one, other in _neighbours(named):
        if {one.name, other.name} & changing and np.shares_memory(one.bytes, other.bytes):
            raise InvalidInput(
                "what training changes must share no memory with another tensor of the module, "
                f"since workers have copies of both; {one.name!r} and {other.name!r} do. Tie "
                "weights by one parameter (b.weight = a.weight); clone() what is to be a copy, "
                "such as the start of an average."
            )


class _Piece(NamedTuple):
    """Where a tensor lies. bytes: as an array that nobody reads, since it may lie on a GPU."""

    name: str
    bytes: Array
    start: int
    stop: int


def _piece(name: str, tensor: torch.Tensor) -> _Piece:
    width = tensor.element_size()
    interface = {
        "data": (tensor.data_ptr(), True),
        "shape": tuple(tensor.shape),
        "strides": tuple(stride * width for stride in tensor.stride()),
        "typestr": f"|V{width}",  # of any dtype, bfloat16 too
        "version": 3,
    }
    memory = np.asarray(SimpleNamespace(__array_interface__=interface))
    return _Piece(name, memory, *byte_bounds(memory))


def _has_memory(tensor: torch.Tensor) -> bool:
    """Whether it lies in one piece of memory, which sparse and meta tensors have not."""
    return tensor.layout is torch.strided and tensor.data_ptr() != 0


def _neighbours(named: Named) -> Iterator[tuple[_Piece, _Piece]]:
    """Pairs of tensors of which one begins before the other ends; they may still lie between each
    other, as the columns of a matrix do."""
    pieces = sorted(
        (_piece(name, tensor) for name, tensor in named.items() if _has_memory(tensor)),
        key=lambda piece: piece.start,
    )
    for i, one in enumerate(pieces):
        for other in pieces[i + 1 :]:
            if other.start >= one.stop:
                break
            yield one, other


def check_averaged(module: torch.nn.Module, vector: Vector) -> None:
    """Raise InvalidInput for running statistics of which no mean over several shards is made."""
    kept = {name: b.dtype for name, b in module.named_buffers() if name in vector.copied}
    for name, dtype in kept.items():
        if dtype.is_floating_point or dtype.is_complex:
            raise InvalidInput(
                "a buffer of numbers that a step changes must be of the parameters' dtype, "
                f"{vector.dtype_name}, so that it can be the mean over the shards; {name!r} is of "
                f"{dtype}. Register it as {vector.dtype_name}, a count as torch.long, or pass "
                "shards=1."
            )

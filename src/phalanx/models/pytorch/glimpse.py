"""A glimpse of a dataset: some of its samples as bytes, by which it is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from phalanx.models.pytorch.generators import seed_everything, undisturbed


def glimpse(sample: Callable[[int], Any], indices: Iterable[int]) -> bytes:
    """SHA-256 over the samples of these indices, of those that are the same when they are read
    again, with the generators of torch, NumPy and Python seeded alike."""
    sha = hashlib.sha256()
    with undisturbed():
        for index in indices:
            first, again = (_seen(sample, index) for _ in range(2))
            sha.update(first if first == again else b"")
    return sha.digest()


def _seen(sample: Callable[[int], Any], index: int) -> bytes:
    seed_everything(index)
    sha = hashlib.sha256()
    for leaf in tree_leaves(sample(index)):
        sha.update(_bytes(leaf))
    return sha.digest()


def _bytes(leaf: Any) -> bytes:
    """Numbers, texts and arrays as bytes; of others, whose texts may hold addresses, the type."""
    if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
        bits = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return f"{leaf.dtype} {tuple(leaf.shape)};".encode() + bits.numpy().tobytes()
    if hasattr(leaf, "__array__") and not isinstance(leaf, torch.Tensor):  # images of PIL, too
        array = np.asarray(leaf)
        values = b"" if array.dtype.hasobject else array.tobytes()
        return f"{array.dtype.str} {array.shape};".encode() + values
    is_plain = isinstance(leaf, (str, bytes, int, float, complex, NoneType))
    return (repr(leaf) if is_plain else type(leaf).__qualname__).encode()

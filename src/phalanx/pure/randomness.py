"""Random numbers keyed by what they are for, never by who draws them or when."""

from __future__ import annotations

from hashlib import shake_256
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.random.bit_generator import ISpawnableSeedSequence

from phalanx.pure.arrays import Array

ORDER, DROPOUT = 1, 2


class Hashed(ISpawnableSeedSequence):
    """What a generator starts from: the hash of a key, so that nearby keys are unrelated.

    In a third of the time of NumPy's SeedSequence, which is felt where an epoch is one small step.
    """

    def __init__(self, *key: int) -> None:
        self.key = key
        self._n_children = 0

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Array:
        """So many words."""
        words = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(hashed(self.key, n_words * words.itemsize), words)

    def spawn(self, n_children: int) -> list[Hashed]:
        """New ones, unrelated to this one and to those before."""
        first, self._n_children = self._n_children, self._n_children + n_children
        return [Hashed(*self.key, child) for child in range(first, self._n_children)]


def hashed(key: tuple[int, ...], size: int) -> bytes:
    """So many bytes that depend on all of a key."""
    return shake_256(" ".join(map(str, key)).encode()).digest(size)


def keyed(seed: int, purpose: int, *key: int) -> np.random.Generator:
    """A generator that depends on (seed, purpose, key) alone."""
    sequence = cast(Any, Hashed(seed, purpose, *key))  # which NumPy's stubs do not know to be one
    return np.random.Generator(np.random.PCG64DXSM(sequence))


class Key(NamedTuple):
    """What a shard's random numbers depend on: the training's seed, the optimiser steps made
    before, and the shard."""

    seed: int
    step: int
    shard: int

    @classmethod
    def of_chunk(cls, chunk: int, seed: int = 0) -> Key:
        """For the numbers of a chunk of validation or prediction, which is in no step."""
        return cls(seed, -1, chunk)

    def generator(self) -> np.random.Generator:
        """For whoever draws many numbers; takes 5 microseconds."""
        return keyed(self.seed, DROPOUT, self.step, self.shard)

    def number(self, nth: int = 0) -> int:
        """A number of 63 bits, to seed a generator with; another one for each `nth`."""
        return int.from_bytes(hashed((*self, nth), 8), "little") >> 1

"""Random numbers keyed by what they are for, never by who draws them or when."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from phalanx.pure.arrays import Array

ORDER, DROPOUT = 1, 2


class Hashed(ISeedSequence):
    """What a generator starts from: the hash of a key, so that nearby keys are unrelated.

    In a third of the time of NumPy's SeedSequence, which is felt where an epoch is one small step.
    """

    def __init__(self, *key: int) -> None:
        self.key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Array:
        """So many words; no more than 64 bytes, as much as a hash has."""
        return np.frombuffer(hashed(self.key, n_words * np.dtype(dtype).itemsize), dtype)


def hashed(key: tuple[int, ...], size: int) -> bytes:
    """So many bytes, at most 64, that depend on all of a key."""
    return blake2b(" ".join(map(str, key)).encode(), digest_size=size).digest()


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

    def generator(self) -> np.random.Generator:
        """For whoever draws many numbers; takes 5 microseconds."""
        return keyed(self.seed, DROPOUT, self.step, self.shard)

    def number(self, nth: int = 0) -> int:
        """A number of 63 bits, to seed a generator with; another one for each `nth`."""
        return int.from_bytes(hashed((*self, nth), 8), "little") >> 1

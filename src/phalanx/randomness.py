"""Random numbers keyed by what they are for, never by who draws them or when."""

from __future__ import annotations

import numpy as np

ORDER, DROPOUT = 1, 2


def keyed(seed: int, purpose: int, *key: int) -> np.random.Generator:
    """A generator that depends on (seed, purpose, key) alone.

    NumPy's SeedSequence mixes the key, so that nearby keys give unrelated streams.
    """
    sequence = np.random.SeedSequence((seed, purpose, *key))
    return np.random.Generator(np.random.PCG64DXSM(sequence))

"""Random numbers keyed by what they are for, never by who draws them or when."""

from __future__ import annotations

import numpy as np

ORDER, DROPOUT = 1, 2


def keyed(seed: int, purpose: int, *key: int) -> np.random.Generator:
    """A generator that depends on (seed, purpose, key) alone.

    Philox is counter-based: nearby keys give unrelated streams (Salmon et al., SC'11).
    """
    sequence = np.random.SeedSequence((seed, purpose, *key))
    return np.random.Generator(np.random.Philox(sequence))

"""The random generators of a process, which are the caller's: Python's, NumPy's and torch's."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within it, whatever draws from them, or seeds them, leaves no trace."""
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()
    own = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(own)

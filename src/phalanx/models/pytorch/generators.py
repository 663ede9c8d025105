"""The generators of random numbers that a user's module or dataset may draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the generators that a user's dataset or module may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed costs 0.6 ms for absent devices
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


@contextmanager
def as_guest() -> Iterator[None]:
    """Within it, a model computes in the user's process as it does in a worker: to nobody's harm,
    and not by the precision that the user may have chosen around it."""
    with undisturbed(), torch.autocast("cpu", enabled=False):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within it, whatever draws from torch's, NumPy's or Python's generators leaves no trace."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])

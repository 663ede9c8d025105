"""The generators of random numbers that a user's module or dataset may draw from."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

LOWER = {"cpu": torch.bfloat16, "cuda": torch.float16}  # what autocast has in a new process
_turn = threading.RLock()
os.register_at_fork(after_in_child=lambda: globals().update(_turn=threading.RLock()))


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
    with undisturbed(), _outside_of_autocast(), _keeping_denormals():
        yield


@contextmanager
def _outside_of_autocast() -> Iterator[None]:
    """Within it, torch.autocast is as in a new process: not in force, and whatever a step enters is
    outermost. At the end of an outermost one alone torch forgets the weights that it has cast,
    which the next step has changed."""
    mine = {k: (torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in LOWER}
    is_caching, depth = torch.is_autocast_cache_enabled(), torch.autocast_increment_nesting()
    _set_autocast({kind: (False, dtype) for kind, dtype in LOWER.items()}, True)
    for _ in range(depth):
        torch.autocast_decrement_nesting()
    try:
        yield
    finally:
        _set_autocast(mine, is_caching)
        for _ in range(depth - 1):
            torch.autocast_increment_nesting()


def _set_autocast(kinds: dict[str, tuple[bool, torch.dtype]], is_caching: bool) -> None:
    for kind, (is_enabled, dtype) in kinds.items():
        torch.set_autocast_enabled(kind, is_enabled)
        torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(is_caching)


@contextmanager
def _keeping_denormals() -> Iterator[None]:
    """Within it, numbers near zero are what they are: torch.set_flush_denormal is of a thread, and
    would change what NumPy adds up there as well."""
    are_flushed = not torch.tensor([1e-40], dtype=torch.float32).mul(0.5).item()
    if are_flushed:
        torch.set_flush_denormal(False)
    try:
        yield
    finally:
        if are_flushed:
            torch.set_flush_denormal(True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within it, whatever draws from torch's, NumPy's or Python's generators leaves no trace. One
    thread at a time, since they are those of the process."""
    with _turn:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        try:
            yield
        finally:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])

"""What a Keras model draws random numbers from, and what of them it keeps between two calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from phalanx.models.pytorch import generators


@cache
def shared() -> Any:
    """The generator of what has none of its own, such as keras.random.normal without a seed."""
    import keras

    return keras.random.SeedGenerator(0, name="phalanx")


def share() -> None:
    """Have Keras draw from it in this process."""
    _use(shared())


@contextmanager
def as_guest() -> Iterator[None]:
    """As that of torch (models/pytorch/generators.py); and Keras' own generator is left as well."""
    with generators.as_guest():
        before = _used()
        share()
        try:
            yield
        finally:
            _use(before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Likewise; within it, that generator is drawn from."""
    import keras

    with generators.undisturbed():
        before = _used()
        state = None if before is None else np.array(keras.ops.convert_to_numpy(before.state))
        try:
            yield
        finally:
            _use(before)
            if before is not None:
                before.state.assign(state)


def _used() -> Any:
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR  # no public function has it

    return global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)


def _use(generator: Any) -> None:
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)


def seed_states(model: Any) -> list[Any]:
    """The states of all seed generators of a model's layers."""
    states = []
    for layer in model._flatten_layers():
        states += [generator.state for generator in layer._seed_generators]
    unique = {id(state): state for state in states}
    return list(unique.values())


def forget_masks(model: Any) -> None:
    """Recurrent cells keep what they drop until a call ends, so a call that failed left it."""
    for layer in model._flatten_layers():
        for name in ("reset_dropout_mask", "reset_recurrent_dropout_mask"):
            if hasattr(layer, name):
                getattr(layer, name)()

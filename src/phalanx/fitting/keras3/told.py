"""What can be said of a user's Keras model, as compiled; see fitting/told.py."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import keras

from phalanx.fitting.keras3.arrays import numpy_of
from phalanx.fitting.told import digest_of, name_of, text_of

COMPILED = ("loss", "loss_weights", "metrics", "weighted_metrics")
# Names count from whatever a process has made before; workers are given weights and draws; under
# "value" Keras gives a lambda's code, as it does in an object of the class LAMBDA.
UNTOLD = (
    "name", "dtype", "trainable", "seed", "module", "registered_name", "build_config",
    "shared_object_id", "value",
)  # fmt: skip
LAMBDA = "__lambda__"


def told_of(model: Any, constants: Sequence[Any]) -> dict[str, dict[str, str]]:
    """By kind and name. What a callback may have changed is told of an optimiser that has not
    begun alone, so that one that has can go on. constants: weights that training does not change.
    """
    layers = [part for i, layer in enumerate(model._flatten_layers()) for part in _layer(i, layer)]
    config = model._compile_config.config
    compiled = [part for name in COMPILED for part in _texts(name, config.get(name))]
    kept = {id(weight) for weight in constants}
    told = {
        "layers": dict(layers),
        "constants": {
            f"{i} ({weight.name})": digest_of([numpy_of(weight)])
            for i, weight in enumerate(model.weights)
            if id(weight) in kept
        },
        "compiled": dict(compiled),
    }
    optimizer = model.optimizer
    if not int(numpy_of(optimizer.iterations)):
        told["settings"] = dict(_texts("", _config_of(optimizer)))
    return told


def _layer(place: int, layer: Any) -> list[tuple[str, str]]:
    """The class of a layer, and what it was created with; a model's own layers have their own."""
    named = f"{place} ({type(layer).__name__})"
    found = [(named, layer.dtype_policy.name)]
    return found if isinstance(layer, keras.Model) else found + _texts(named, _config_of(layer))


def _config_of(thing: Any) -> dict[str, Any]:
    """Nothing where it has none, as is the right of a user's class."""
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(thing.get_config())
    return {}


def _texts(path: str, value: Any) -> list[tuple[str, str]]:
    """Whatever has a text in a nest, with the way to it."""
    text = text_of(value)
    if text is not None:
        return [] if value is None else [(path, text)]
    if isinstance(value, dict):
        parts = {} if value.get("class_name") == LAMBDA else value
        told = [key for key in parts if key not in UNTOLD and not str(key).endswith("_initializer")]
        return [pair for key in told for pair in _texts(f"{path}.{key}".lstrip("."), parts[key])]
    if isinstance(value, (list, tuple)):
        return [pair for i, part in enumerate(value) for pair in _texts(f"{path}[{i}]", part)]
    inner = _texts(path, _config_of(value)) if hasattr(value, "get_config") else []
    return [(path, name_of(value)), *inner]

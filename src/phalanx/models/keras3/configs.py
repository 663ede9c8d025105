"""What Keras can serialise as its own configs, and back, for the user's classes too.

Keras puts into the config of a layer, loss or metric what its base class takes (`trainable`,
`dtype`, `reduction`), also where the user's `__init__` has no `**kwargs` to take it, and could not
create it anew. Here it is created without, as the user has created it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import numpy as np

from phalanx.pure.arrays import Array

BASE = "name", "trainable", "dtype", "reduction"
DRAWN = {  # Keras' initializers that draw random numbers
    "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform",
    "Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling",
}  # fmt: skip


@dataclass(frozen=True)
class Serialised:
    """An object of Keras in its own config."""

    config: Any


@dataclass(frozen=True)
class Tensor:
    """A tensor of any backend."""

    values: Array


def portable(nest: Any) -> Any:
    """A nest with the objects of Keras as configs, and tensors as arrays."""
    import keras

    if isinstance(nest, dict):
        return {key: portable(part) for key, part in nest.items()}
    if isinstance(nest, (list, tuple)):
        parts = [portable(part) for part in nest]
        return tuple(parts) if type(nest) is tuple else parts
    if isinstance(nest, (keras.losses.Loss, keras.metrics.Metric, keras.Layer)):
        return Serialised(_config_of(nest))
    if keras.ops.is_tensor(nest):
        return Tensor(np.array(keras.ops.convert_to_numpy(nest)))
    return nest


def _config_of(thing: Any) -> Any:
    import keras

    config = keras.saving.serialize_keras_object(thing)
    if not isinstance(thing, keras.Layer):
        config["config"] = completed(config["config"], thing)
    return config


def completed(config: dict[str, Any], thing: Any) -> dict[str, Any]:
    """An object's config with the arguments that a class without a get_config leaves out."""
    return {
        **{n: value for n, value in kept_arguments(thing).items() if _is_plain(value)},
        **config,
    }


def kept_arguments(thing: Any) -> dict[str, Any]:
    """Those that an object was created with, as far as it has attributes of their names, as nearly
    all have. Whether it is created the same by them is looked at later."""
    kept = {**vars(thing), **vars(thing).get("_modules", {})}
    parameters = signature(type(thing).__init__).parameters.values()
    named = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
    return {
        p.name: kept[p.name]
        for p in parameters
        if p.kind in named and p.name in kept and _may_be(p.default, kept[p.name])
    }


def _may_be(default: Any, value: Any) -> bool:
    """Whether an attribute may be what an argument of that default was; a layer is none for a
    number, of which it was made."""
    return default is None or default is Parameter.empty or _is_plain(default) is _is_plain(value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def restored(nest: Any, custom: Mapping[str, Any]) -> Any:
    """The nest again, on this process's backend."""
    import keras

    if isinstance(nest, dict):
        return {key: restored(part, custom) for key, part in nest.items()}
    if isinstance(nest, (list, tuple)):
        parts = [restored(part, custom) for part in nest]
        return tuple(parts) if type(nest) is tuple else parts
    if isinstance(nest, Serialised):
        return created(nest.config, custom)
    if isinstance(nest, Tensor):
        return keras.ops.convert_to_tensor(nest.values)
    return nest


def created(config: Any, custom: Mapping[str, Any]) -> Any:
    """A new object from its config. custom: the user's classes and functions by name."""
    import keras

    config = _as_taken(config, custom) if custom else _undrawn(config)
    return keras.saving.deserialize_keras_object(config, safe_mode=False)


def _undrawn(config: Any) -> Any:
    """A config of Keras' own objects, and those within it, with zeros for weights that would be
    drawn: they are replaced, and to draw millions takes as long as a step."""
    if isinstance(config, (list, tuple)):
        return [_undrawn(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("module") == "keras.initializers" and config.get("class_name") in DRAWN:
        return {**config, "class_name": "Zeros", "config": {}}
    return {key: _undrawn(part) for key, part in config.items()}


def _as_taken(config: Any, custom: Mapping[str, Any]) -> Any:
    """A config, and those within it, with what the user's classes take."""
    if isinstance(config, (list, tuple)):
        return [_as_taken(part, custom) for part in config]
    if not isinstance(config, dict):
        return config
    config = {key: _as_taken(part, custom) for key, part in config.items()}
    names = str(config.get("registered_name")), str(config.get("class_name"))
    kind = next((custom[name] for name in names if name in custom), None)
    if isinstance(kind, type) and isinstance(config.get("config"), dict):
        left = _not_taken(kind)
        config["config"] = {n: part for n, part in config["config"].items() if n not in left}
        if getattr(getattr(kind, "build", None), "_is_default", False):
            config.pop("build_config", None)  # its call builds what it has
    return config


def _not_taken(kind: Any) -> set[str]:
    """What Keras puts into a config and a class does not take, which Keras would create from it."""
    from_config = getattr(kind, "from_config", None)
    if not getattr(from_config, "__module__", "").startswith("keras."):
        return set()  # the user's own, which knows what to do with it
    parameters = signature(kind.__init__).parameters
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return set()
    return set(BASE) - set(parameters)

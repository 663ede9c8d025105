"""Whether what was created anew from its config is what the user has.

Weights are compared by shape, all else by value where it can be. Where that is not known, as of
objects of any class, it is taken for granted; what initialisers are made of matters to nobody,
since workers are given the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from types import FunctionType
from typing import Any

import keras
import numpy as np

from phalanx.errors import InvalidInput
from phalanx.models.keras3.blueprint import is_users

PLAIN = (bool, int, float, str)
OWN = (
    "name", "built", "compiled", "loss", "training", "stop_training", "stop_evaluating",
    "stop_predicting", "jit_compile", "run_eagerly", "steps_per_execution", "seed", "optimizer",
    "history", "train_function", "test_function", "predict_function",
)  # fmt: skip
UNSAID = "clipvalue", "global_clipnorm"  # which the engine sees to, so that copies are without
HELD = (
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.losses.Loss,
    keras.metrics.Metric,
)
ABSENT = object()
LONGEST = 60  # letters of a value in a message


def check_alike(copy: Any, model: Any) -> None:
    """Raise InvalidInput where a model created anew is another one than the user's."""
    shapes = [[tuple(weight.shape) for weight in one.weights] for one in (copy, model)]
    if shapes[0] != shapes[1]:
        raise InvalidInput(
            "a model that is created anew from its class and arguments must have the same weights; "
            f"{type(model).__name__} then has {len(shapes[0])} of other shapes than its "
            f"{len(shapes[1])}. Implement get_config() and from_config()."
        )
    for one, other in zip(copy._flatten_layers(), model._flatten_layers(), strict=True):
        for name, value in attributes_of(other):
            _check(other, name, found_in(one, name), value)
    for one, other in zip(_compiled(copy), _compiled(model), strict=False):
        _check_held(one, other)


def check_optimizer(copy: Any, optimizer: Any) -> None:
    """Raise InvalidInput where an optimiser created anew is another one than the user's."""
    for name, value in vars(optimizer).items():
        if name not in (*UNSAID, *OWN) and not name.startswith("_"):
            _check(optimizer, name, found_in(copy, name), value)


def attributes_of(layer: Any) -> Iterator[tuple[str, Any]]:
    """What the user has given a layer; of private names, those of the user's own classes."""
    is_own = is_users(type(layer))
    for name, value in vars(layer).items():
        if name not in OWN and (not name.startswith("_") or (is_own and name not in _of_keras())):
            yield name, value


def found_in(copy: Any, name: str) -> Any:
    """A copy's attribute, which may be its class's; ABSENT where it has none."""
    return vars(copy).get(name, getattr(type(copy), name, ABSENT))


@cache
def _of_keras() -> frozenset[str]:
    """Private attributes that Keras gives a model or a layer."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    model.compile()
    things = model, model._functional, model.layers[0]
    return frozenset({"_torch_params", "_eval_epoch_iterator"}.union(*map(vars, things)))


def _compiled(model: Any) -> list[Any]:
    """The losses and metrics that a model was compiled with."""
    kept = model._compile_config.config if model.compiled else {}
    names = "loss", "metrics", "weighted_metrics"
    return keras.tree.flatten([kept.get(name) for name in names])  # type: ignore[no-any-return]


def _told(held: Any) -> Iterator[tuple[str, Any]]:
    """What a user's loss, metric or the like holds. Keras' own say it all in their configs; what
    metrics sum up is no matter."""
    for name, value in vars(held).items():
        is_sum = name in ("_variables", "_metrics", "_tracker", "_built")
        if is_users(type(held)) and name not in OWN and not is_sum:
            yield name, value


def _check_held(one: Any, other: Any) -> None:
    if isinstance(other, HELD) and type(one) is type(other):
        for name, value in _told(other):
            _check(other, name, found_in(one, name), value)


def _check(owner: Any, name: str, found: Any, value: Any) -> None:
    if found is ABSENT or same(found, value):
        return
    _check_held(found, value)  # which says what of it is another
    raise InvalidInput(
        "what is created anew from its class and arguments must be the same; "
        f"{name} of {type(owner).__name__} then is {_shown(found)} instead of {_shown(value)}. "
        "Implement get_config() and from_config(), or set it in __init__."
    )


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, as far as that can be seen."""
    if is_array(one) or is_array(other):
        return is_array(one) and is_array(other) and _equal(_array(one), _array(other))
    for kind, are_same in COMPARED.items():
        if isinstance(one, kind) or isinstance(other, kind):
            return isinstance(one, kind) and isinstance(other, kind) and are_same(one, other)
    return True


def is_array(value: Any) -> bool:
    """Whether it is an array or a tensor, but no weight."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind in "biufSU"
    return keras.ops.is_tensor(value) and not getattr(value, "requires_grad", False)


def _array(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)


def _equal(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")


def _same_dicts(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in other)


def _same_lists(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


def _same_functions(one: Any, other: Any) -> bool:
    """Whether they have the same code and defaults, and close over the same values."""
    if one is other:
        return True
    if one.__code__ != other.__code__ or not same(one.__defaults__ or (), other.__defaults__ or ()):
        return False
    cells = zip(one.__closure__ or (), other.__closure__ or (), strict=True)
    contents = [(a.cell_contents, b.cell_contents) for a, b in cells]
    # a function may close over itself
    return all(same(a, b) for a, b in contents if not isinstance(b, FunctionType))


def _same_partials(one: Any, other: Any) -> bool:
    return same((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))


def _same_held(one: Any, other: Any) -> bool:
    pairs = ((found_in(one, name), value) for name, value in _told(other))
    return type(one) is type(other) and all(
        found is ABSENT or same(found, value) for found, value in pairs
    )


COMPARED: dict[Any, Callable[[Any, Any], bool]] = {
    PLAIN: lambda one, other: bool(one == other),
    dict: _same_dicts,
    (list, tuple): _same_lists,
    FunctionType: _same_functions,
    partial: _same_partials,
    HELD: _same_held,
}


def _shown(value: Any) -> str:
    if is_array(value):
        return f"an array of shape {np.shape(_array(value))} with other values"
    text = getattr(value, "__qualname__", None) or repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."

"""What a model has that creating it anew does not give: attributes that the user has set since, or
that `compile` keeps, and arrays that `__init__` has drawn. It travels beside the blueprint."""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import Any

import keras

from phalanx.errors import InvalidInput
from phalanx.fitting.keras3.alike import (
    ABSENT,
    HELD,
    PLAIN,
    attributes_of,
    found_in,
    is_array,
    same,
)
from phalanx.models.keras3.configs import portable

Carried = dict[int, dict[str, Any]]


def carried(copy: Any, model: Any) -> Carried:
    """Of each layer, by its place, what a copy lacks, and arrays that it has otherwise. All else
    that it has otherwise may have gone into the making of something, and is not replaced."""
    found = {}
    for place, (one, other) in enumerate(
        zip(copy._flatten_layers(), model._flatten_layers(), strict=False)
    ):
        lacking = {
            name: portable(value)
            for name, value in attributes_of(other)
            if _is_lacking(found_in(one, name), value)
        }
        if lacking:
            found[place] = lacking
    return found


def _is_lacking(found: Any, value: Any) -> bool:
    if is_array(value):
        return found is ABSENT or found is None or (is_array(found) and not same(found, value))
    return found is ABSENT and _is_sendable(value)


def _is_sendable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_sendable, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_sendable, value))
    kinds = (*PLAIN, FunctionType, partial, *HELD)
    return value is None or isinstance(value, kinds) or is_array(value)


def check_kept(copy: Any, model: Any) -> None:
    """Raise InvalidInput where a `compile` of the user's keeps what could not be sent to the copy,
    whose own is not called."""
    if type(model).compile is keras.Model.compile:
        return
    for name, value in attributes_of(model):
        if found_in(copy, name) is ABSENT and not name.startswith("_"):
            raise InvalidInput(
                "what a model keeps for its loss must be such that workers can have it too; "
                f"compile() of {type(model).__name__} keeps {name} of class "
                f"{type(value).__name__}. Keep it in __init__."
            )

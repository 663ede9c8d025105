"""Pickles of a user's module and functions, with an error that names what cannot be pickled."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import torch

from phalanx.errors import InvalidInput
from phalanx.models.pytorch.byvalue import Pickler
from phalanx.models.pytorch.parametrized import reduced
from phalanx.references import opened

DEPTH = 4  # attributes of attributes that are looked at for the culprit


def packed(module: torch.nn.Module, params: Sequence[torch.Tensor], *others: Any) -> bytes:
    """The pickle of (module, others...), classes and functions of a notebook by value, `params`
    left out, since they lie in the arena.

    Raises InvalidInput naming the attribute that cannot be pickled.
    """
    places = {id(param): i for i, param in enumerate(params) if _is_plain(param)}
    try:
        return _Pickler(places).pickled((module, *others))
    except Exception as error:
        culprit = _culprit_in(module) or _culprit_among(others) or "one of the functions"
        raise InvalidInput(
            "a module and its functions must be picklable, so that workers can have their own; "
            f"{culprit} is not ({type(error).__name__}: {error}). Create it in forward(), leave it "
            "out in __getstate__, or keep it outside of the module."
        ) from error


def unpacked(body: bytes, params: Sequence[torch.Tensor]) -> Any:
    """What `packed` was given, with `params` as the values of the parameters."""
    return _Unpickler(body, [torch.nn.Parameter(param) for param in params]).load()


class _Pickler(Pickler):
    """places: of the parameters that are left out, by their id."""

    def __init__(self, places: dict[int, int]) -> None:
        super().__init__()
        self._places = places

    def persistent_id(self, part: Any) -> int | None:
        return self._places.get(id(part))

    def reducer_override(self, part: Any) -> Any:
        own = reduced(part)
        return super().reducer_override(part) if own is None else own


class _Unpickler(pickle.Unpickler):
    def __init__(self, body: bytes, own: list[torch.nn.Parameter]) -> None:
        super().__init__(opened(body))
        self._own = own

    def persistent_load(self, place: Any) -> Any:
        return self._own[place]


def _is_plain(param: torch.Tensor) -> bool:
    """Whether a parameter is no more than its values."""
    return type(param) is torch.nn.Parameter and not vars(param)


def _culprit_in(module: torch.nn.Module) -> str | None:
    for name, part in reversed(list(module.named_modules())):
        for attribute, value in vars(part).items():
            if attribute != "_modules" and not _is_picklable(value):
                return _deepest(".".join(filter(None, ("module", name, attribute))), value, DEPTH)
        if not _is_picklable(part):  # though all of its attributes are
            return f"{'.'.join(filter(None, ('module', name)))} (a {type(part).__name__})"
    return None


def _culprit_among(others: tuple[Any, ...]) -> str | None:
    for other in others:
        if not _is_picklable(other):
            return _deepest(type(other).__name__, other, DEPTH)
    return None


def _deepest(path: str, value: Any, depth: int) -> str:
    parts: dict[str, Any] = {}
    if isinstance(value, dict):
        parts = {f"{path}[{key!r}]": part for key, part in value.items()}
    elif isinstance(value, (list, tuple)):
        parts = {f"{path}[{i}]": part for i, part in enumerate(value)}
    elif hasattr(value, "__dict__"):
        parts = {f"{path}.{key}": part for key, part in vars(value).items()}
    for inner, part in parts.items():
        if depth and not _is_picklable(part):
            return _deepest(inner, part, depth - 1)
    return f"{path} (a {type(value).__name__})"


def _is_picklable(value: Any) -> bool:
    try:
        _Pickler({}).dump(value)
    except Exception:
        return False
    return True

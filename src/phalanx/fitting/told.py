"""What can be said of a user's own objects in texts, so that two trainings can be compared.

Their code is left out, which may change between two runs of one training; what they are, and what
they were created with, is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def text_of(value: Any) -> str | None:
    """A number, text, or several of them, as a text that is equal where they are; None for
    whatever says nothing of itself."""
    if isinstance(value, (bool, str, type(None))):
        return str(value)
    if isinstance(value, (int, float)):
        return repr(int(value) if float(value).is_integer() else value)
    if isinstance(value, (list, tuple)):
        parts = [text_of(part) for part in value]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    return None


def texts_of(values: dict[str, Any]) -> dict[str, str]:
    """Those that have a text, by name."""
    return {name: text for name, value in values.items() if (text := text_of(value)) is not None}


def digest_of(arrays: Iterable[Any]) -> str:
    """Arrays as a short text that is equal where their bytes are."""
    sha = sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()[:12]


def name_of(function: Any) -> str:
    """A function by module and name, with the keywords that a `functools.partial` gives it; any
    other object by its class."""
    if isinstance(function, partial):
        given = ", ".join(f"{k}={v}" for k, v in sorted(texts_of(function.keywords).items()))
        return f"{name_of(function.func)}({given})"
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None) or ""
    return ADDRESS.sub("", f"{module}.{named.__qualname__}".removeprefix("__main__."))

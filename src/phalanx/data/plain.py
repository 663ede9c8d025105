"""Reading plain JSON values, each checked for its type."""

from __future__ import annotations

import math
from typing import Any

from phalanx.errors import InvalidInput

FORMAT = 1  # of every JSON file that Phalanx writes; raised when an older reader could not read it


def field(entry: Any, name: str, kind: type) -> Any:
    """`entry[name]`. Raises InvalidInput where it is missing or no `kind`."""
    if not isinstance(entry, dict) or name not in entry:
        raise InvalidInput(f"{name!r} is missing.")
    value = entry[name]
    if not isinstance(value, kind):
        raise InvalidInput(f"{name!r} must be of type {kind.__name__}; got {value!r}.")
    return value


def finite(entry: Any, name: str) -> float:
    """`entry[name]` as a finite number. Raises InvalidInput otherwise."""
    value = field(entry, name, object)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInput(f"{name!r} must be a finite number; got {value!r}.")
    return float(value)


def texts(entry: Any, name: str) -> tuple[str, ...]:
    """`entry[name]` as distinct texts. Raises InvalidInput otherwise."""
    values = field(entry, name, list)
    if not all(isinstance(value, str) for value in values) or len(set(values)) < len(values):
        raise InvalidInput(f"{name!r} must be a list of distinct texts; got {values!r:.200}.")
    return tuple(values)


def check_format(entry: Any) -> None:
    """Raise InvalidInput unless the JSON is of a format that this version reads."""
    given = field(entry, "format", int)
    if given > FORMAT:
        raise InvalidInput(
            f"'format' must be at most {FORMAT} for this version; got {given}, so a newer Phalanx "
            "wrote it. Upgrade Phalanx."
        )
    if given < 1:
        raise InvalidInput(f"'format' must be at least 1; got {given}.")

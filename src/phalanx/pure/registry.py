"""Names to strategies: a plain dict, looked up in one way everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from phalanx.errors import InvalidInput, unknown_name

Strategy = TypeVar("Strategy", bound=Callable[..., Any])


def choose(what: str, choice: object, table: Mapping[str, Strategy]) -> Any:
    """The strategy that `choice` names in `table`, or `choice` itself where it is a function.

    Raises InvalidInput naming the nearest known name otherwise.
    """
    if isinstance(choice, str):
        if choice not in table:
            raise unknown_name(what, choice, table)
        return table[choice]
    if callable(choice):
        return choice
    raise InvalidInput(
        f"{what} must be one of {', '.join(map(repr, sorted(table)))} or a function; "
        f"got {choice!r} of type {type(choice).__name__}."
    )


def name_of(strategy: object) -> str:
    """How a strategy is written in a run's record."""
    own = getattr(strategy, "__name__", None) or getattr(strategy, "name", None)
    return str(own or type(strategy).__name__)

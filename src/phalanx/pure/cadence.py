"""How often a checkpoint is written: every so many steps, epochs or seconds. Pure."""

from __future__ import annotations

import re
from math import inf
from numbers import Integral
from typing import NamedTuple

from phalanx.errors import InvalidInput

UNITS = {"steps": ("steps", 1.0), "epochs": ("epochs", 1.0)} | {
    name: ("seconds", factor)
    for factor, names in ((1.0, "s seconds"), (60.0, "min minutes"), (3600.0, "h hours"))
    for name in names.split()
}


class Cadence(NamedTuple):
    """Every `amount` steps, epochs or seconds."""

    amount: float
    unit: str


def parse_cadence(given: object, name: str = "checkpoint_every") -> Cadence:
    """What the argument of that name says; an integer means epochs. Raises InvalidInput.

    >>> parse_cadence("500 steps")
    Cadence(amount=500.0, unit='steps')
    >>> parse_cadence("2 min")
    Cadence(amount=120.0, unit='seconds')
    """
    is_number = isinstance(given, Integral) and not isinstance(given, bool)
    text = f"{given} epochs" if is_number else given
    found = (
        re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text) if isinstance(text, str) else None
    )
    unit, factor = _unit(found[2]) if found else ("", 0.0)
    amount = float(found[1]) * factor if found else 0.0
    if not 0 < amount < inf or (unit != "seconds" and not amount.is_integer()):
        raise InvalidInput(
            f"{name} must be a positive number of steps, epochs, seconds, minutes or hours; "
            f"got {given!r}. Write e.g. '500 steps', '2 epochs', '30 seconds', or 2 for "
            "two epochs."
        )
    return Cadence(amount, unit)


def _unit(name: str) -> tuple[str, float]:
    """The unit that a name means, in the singular too, and its factor."""
    return UNITS.get(name) or UNITS.get(f"{name}s") or ("", 0.0)

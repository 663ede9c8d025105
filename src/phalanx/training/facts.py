"""Facts by which two trainings are compared: plain values by name, some of them of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]
Told = Mapping[str, Mapping[str, str]]  # of the caller's own objects, by kind


def flat(facts: Facts) -> dict[str, Any]:
    """Every fact by itself, those of a kind under its name and theirs.

    >>> flat({"seed": 3, "optimizer": {"lr": "0.1"}})
    {'seed': 3, 'optimizer: lr': '0.1'}
    """
    found: dict[str, Any] = {}
    for name, fact in facts.items():
        several = fact.items() if isinstance(fact, Mapping) else None
        found |= {name: fact} if several is None else {f"{name}: {k}": v for k, v in several}
    return found


def differing(there: Facts, here: Facts) -> list[str]:
    """In words, what a training has not in common with a checkpoint.

    What one of them says nothing of at all does not count, where it is a kind of facts: an earlier
    Phalanx did not ask, and an optimiser that has begun tells no settings.
    """
    kinds = {name for facts in (there, here) for name, f in facts.items() if isinstance(f, Mapping)}
    unsaid = {name for name in kinds if name not in there or name not in here}
    known, mine = (
        flat({name: fact for name, fact in facts.items() if name not in unsaid})
        for facts in (there, here)
    )
    return [
        f"{name} ({known.get(name)} there, {mine.get(name)} here)"
        for name in known | mine
        if known.get(name) != mine.get(name)
    ]

"""Whether hosts agree on what decides the answer. Pure: facts in, differences in words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REFUSE, FLAG = "refuse", "flag"  # hosts that differ in what decides the last bits

Facts = Mapping[str, Any]
_LONGEST = 60  # characters of a fact that are shown
_MOST = 9  # differences that are named


def differences(facts_H: Sequence[Facts]) -> list[str]:
    """The facts in which some host differs from the first one, in words.

    >>> differences([{"torch": "2.13"}, {"torch": "2.12"}])
    ["torch ('2.13' on host 0, '2.12' on host 1)"]
    """
    names = dict.fromkeys(name for facts in facts_H for name in facts)
    return [difference for name in names if (difference := _difference(name, facts_H))]


def _difference(name: str, facts_H: Sequence[Facts]) -> str | None:
    here = facts_H[0].get(name)
    for host, facts in enumerate(facts_H):
        there = facts.get(name)
        if there != here:
            return f"{name} ({_shown(here)} on host 0, {_shown(there)} on host {host})"
    return None


def listed(found: Sequence[str]) -> str:
    """Differences in words as one text; of hundreds of weights, say, the first ones."""
    more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return "; ".join([*found[:_MOST], *more])


def _shown(fact: Any) -> str:
    text = repr(fact)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."

"""Checks of arguments: each states the rule, what was received, and what to do."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from math import isinf, isnan
from numbers import Integral, Real
from typing import Any

import numpy as np

from phalanx.errors import InvalidInput, unknown_name

AUTO = "auto"
CALLED = {"n_jobs": "workers"}  # what users know by another name


def number(
    name: str,
    value: Any,
    *,
    integer: bool = False,
    finite: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> None:
    """Raise InvalidInput unless `value` is a number (no bool, no NaN) within the bounds."""
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    said = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    kind = Integral if integer else Real
    fits = isinstance(value, kind) and not isinstance(value, (bool, np.bool_))
    is_too_large = fits and finite and isinf(value)
    what = "an integer" if integer else "a finite number" if is_too_large else "a number"
    rule = f"{name} must be {what} {said}".strip()
    fits = fits and not isnan(value) and not is_too_large
    if fits:
        fits = (
            (at_least is None or value >= at_least)
            and (above is None or value > above)
            and (at_most is None or value <= at_most)
            and (below is None or value < below)
        )
    if not fits:
        raise InvalidInput(f"{rule}; got {value!r} of type {type(value).__name__}. {hint}".strip())


def become_pythons(given: Any, kind: type, *names: str) -> None:
    """Make Python's numbers, of one kind, of the checked ones among a frozen object's fields.
    NumPy's come to other bits (a float32 array times a float64 is a float64), and the compiled
    engine takes none."""
    for name in names:
        if isinstance(value := getattr(given, name), (Real, np.bool_)):  # neither None nor a word
            object.__setattr__(given, name, kind(value))


def boolean(name: str, value: Any) -> None:
    """Raise InvalidInput unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInput(
            f"{name} must be True or False; got {value!r} of type {type(value).__name__}."
        )


def switch(name: str, value: Any) -> None:
    """Raise InvalidInput unless `value` is True or False, or 1 or 0 for them."""
    if not isinstance(value, (bool, np.bool_, Integral)) or value not in (0, 1):
        raise InvalidInput(
            f"{name} must be True or False, or 1 or 0; got {value!r} of type "
            f"{type(value).__name__}."
        )


def one_of(name: str, value: Any, known: Collection[str]) -> None:
    """Raise InvalidInput, with the nearest known name, unless `value` is one of `known`."""
    if not isinstance(value, str) or value not in known:
        raise unknown_name(name, value, known)


def arguments(function: str, given: Collection[str], known: Collection[str], hint: str) -> None:
    """Raise InvalidInput, with the nearest known name, unless all arguments are known."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            if (here := CALLED.get(name)) in known:
                meant = f" It is called {here!r} here."
            raise InvalidInput(f"{function} has no argument {name!r}.{meant} {hint}")


def name_or_function(name: str, value: Any, known: Collection[str], signature: str) -> None:
    """Raise InvalidInput unless `value` is one of `known` or a function."""
    if callable(value):
        return
    if not isinstance(value, str):
        raise InvalidInput(
            f"{name} must be one of {', '.join(map(repr, sorted(known)))} or a function "
            f"{signature}; got {value!r} of type {type(value).__name__}."
        )
    one_of(name, value, known)


def workers_of(n_jobs: Any, cores: int, name: str = "n_jobs", alone: str = "None or 1") -> int:
    """scikit-learn's `n_jobs` as a number of workers: None is 1, -1 all cores, -2 all but one ...

    "auto" begins with all cores. name, alone: of the argument, and of its value for one worker.
    Raises InvalidInput for 0, for what is no integer, and where a negative number leaves nobody.
    """
    if n_jobs is None:
        return 1
    if isinstance(n_jobs, str) and n_jobs == AUTO:
        return cores
    hint = (
        f"Use {alone} for one worker in this process, -1 for one worker a core, 'auto' for the "
        "number that is found to be the quickest."
    )
    number(name, n_jobs, integer=True, hint=hint)
    if n_jobs == 0:
        raise InvalidInput(f"{name} must not be 0: nobody would do the work; got 0. {hint}")
    workers = int(n_jobs) if n_jobs > 0 else cores + 1 + int(n_jobs)
    if workers < 1:
        raise InvalidInput(
            f"{name}={n_jobs} means all {cores} cores but {-1 - int(n_jobs)}, which leaves nobody; "
            f"the lowest value on this machine is {-cores}. {hint}"
        )
    return workers

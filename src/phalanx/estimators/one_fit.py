"""One fit of an estimator at a time, and one that raises leaves the estimator as it was.

A second fit would change what the first is at work on; half of a fit is no model.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from phalanx.errors import InvalidInput

# Beside the estimators, which are pickled and cloned, and by process, for a fork in mid-fit.
_lock = threading.Lock()
_fitted: set[tuple[int, int]] = set()  # (pid, id of the estimator)


@contextmanager
def one_fit(estimator: Any) -> Iterator[None]:
    """Within it, nobody else can enter it with the same estimator: InvalidInput is raised."""
    key = os.getpid(), id(estimator)
    with _lock:
        if key in _fitted:
            raise InvalidInput(
                "an estimator can be fitted by one call at a time; another call of fit or "
                f"partial_fit is at work on this {type(estimator).__name__}, in another thread or "
                "around this callback. Fit a copy of it: sklearn.base.clone(estimator)."
            )
        _fitted.add(key)
    try:
        yield
    finally:
        _fitted.discard(key)


@contextmanager
def as_it_was(estimator: Any) -> Iterator[None]:
    """Put all attributes of an estimator back if anything is raised within it."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).update(before)  # first, for whoever reads them in another thread
        for name in vars(estimator).keys() - before.keys():
            delattr(estimator, name)
        raise

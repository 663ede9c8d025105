"""Test your own training under faults, as this project does.

    from phalanx.testing import Fault, scripted

    with scripted(Fault(worker=1, step=3, phase="update")):
        clf.fit(X, y)
    assert clf.run_.digest == undisturbed

Faults happen in worker processes alone; with one worker there are none, and nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phalanx.pure import faults
from phalanx.pure.faults import ACTIONS, PHASES, Fault, Slow

__all__ = ["ACTIONS", "PHASES", "Fault", "Slow", "scripted"]


@contextmanager
def scripted(*lines: Fault | Slow) -> Iterator[None]:
    """Within it, the worker processes of every fit that this process makes follow the script."""
    before = faults.active
    faults.active = lines
    try:
        yield
    finally:
        faults.active = before

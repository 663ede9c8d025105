"""What is to be warned of when a training is over. Its events tell, wherever it ran.

Whoever keeps what was learnt warns of it then, and not before: where warnings are errors, a
warning ends what it is given in.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from phalanx.pure.stopping import Reason
from phalanx.run import Event, Run
from phalanx.training.keeper import FAILED, WRITTEN
from phalanx.warning import warn_caller

DIFFER = "weights differ"  # hosts came to different ends
WHY_DIFFERENT = (
    "They are of several kinds, or a function that decides the answer, or a value that it reads, "
    "is not the same on all of them, though its name is. Make it the same, and train anew."
)
LATE = "after the last step"  # of Ctrl-C


def warnings_of(events: Sequence[Event]) -> list[str]:
    """In words, with what to do about them."""
    said = [f"{event.detail}. {WHY_DIFFERENT}" for event in events if event.what == DIFFER]
    checkpoints = [event for event in events if event.what in (WRITTEN, FAILED)]
    if checkpoints and checkpoints[-1].what == FAILED:
        why = checkpoints[-1].detail
        said.append(f"the last checkpoint of the training could not be written: {why}")
    if any(event.what == Reason.INTERRUPTED and event.detail == LATE for event in events):
        said.append(f"Ctrl-C came {LATE}, when the training was over: it changed nothing.")
    return said


def late_interrupt(updates: int) -> Event:
    """Ctrl-C came when the training was over, and has changed nothing."""
    return Event(Reason.INTERRUPTED.value, updates, LATE, at=monotonic())


def warn_afterwards(run: Run) -> None:
    """To be called once what was learnt is kept."""
    for said in warnings_of(run.events):
        warn_caller(said)

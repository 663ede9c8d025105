"""What leaves a training that is over in doubt. Its events tell, wherever it ran.

Whoever keeps what was learnt warns of it then, and not before: where warnings are errors, a
warning ends what it is given in.
"""

from __future__ import annotations

from collections.abc import Sequence

from phalanx.run import Event, Run
from phalanx.training.keeper import FAILED, WRITTEN
from phalanx.warning import warn_caller

DIFFER = "weights differ"  # hosts came to different ends


def doubts_of(events: Sequence[Event]) -> list[str]:
    """In words, with what to do about them."""
    doubts = [
        f"{event.detail}. They are of several kinds, or a function that decides the answer, or a "
        "value that it reads, is not the same on all of them, though its name is. Make it the "
        "same, and train anew."
        for event in events
        if event.what == DIFFER
    ]
    checkpoints = [event for event in events if event.what in (WRITTEN, FAILED)]
    if checkpoints and checkpoints[-1].what == FAILED:
        why = checkpoints[-1].detail
        doubts.append(f"the last checkpoint of the training could not be written: {why}")
    return doubts


def warn_of_doubts(run: Run) -> None:
    """To be called once what was learnt is kept."""
    for doubt in doubts_of(run.events):
        warn_caller(doubt)

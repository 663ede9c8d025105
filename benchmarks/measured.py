"""Everything that one run of the script found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memory import Peaks
from startup import Startup
from timing import Timed


@dataclass(frozen=True)
class Measured:
    """Steps of each case, the wait for the first of them, and the memory they take."""

    timed: Sequence[Timed]
    startup: Startup
    peaks: Peaks

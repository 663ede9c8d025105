"""Events on the terminal: a line each, and of many alike at once the first few and a count."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from phalanx.cli.console import note
from phalanx.run import Event

MOST_ALIKE = 5  # lines of one kind within SECONDS
SECONDS = 1.0


@dataclass
class Burst:
    """Events of one kind that came within a second: how many were said, and what was held back."""

    begun: float
    said: int = 0
    held: int = 0
    first: int = 0
    last: int = 0

    def hold(self, step: int) -> None:
        """Count an event at a step instead of saying it."""
        self.first = self.first if self.held else step
        self.held, self.last = self.held + 1, step

    def summary(self, what: str) -> str:
        """One line for all that was held back."""
        steps = f"step {self.first:,}" + (f" to {self.last:,}" if self.last != self.first else "")
        return f"{steps}: {what}, {self.held:,} more"


class EventLines:
    """Says events on standard error, above the bar where there is one."""

    def __init__(self) -> None:
        self._bursts: dict[str, Burst] = {}

    def say(self, event: Event) -> None:
        """Say the event's line, or hold it back where enough was said of its kind just now."""
        self.sum_up()
        burst = self._bursts.setdefault(event.what, Burst(monotonic()))
        if burst.said < MOST_ALIKE:
            burst.said += 1
            note(" ".join(str(event).split()))  # a detail may have several lines
        else:
            burst.hold(event.step)

    def sum_up(self, at_once: bool = False) -> None:
        """Say what was held back in the seconds that are over; `at_once`, in this one too."""
        now = monotonic()
        for what, burst in list(self._bursts.items()):
            if at_once or now - burst.begun >= SECONDS:
                del self._bursts[what]
                if burst.held:
                    note(burst.summary(what))

"""The timetable: which step of which epoch a tick is. Pure arithmetic.

An epoch has a tick for each step and, where there are validation samples, one for the evaluation.
Whoever joins late, or was away for some ticks, finds its place from the number of the tick alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

EVALUATION = -1


class Moment(NamedTuple):
    """epoch: counted over the whole training. step: in the epoch, or EVALUATION. updates: made
    before. row: epochs of the lease that are over."""

    epoch: int
    step: int
    updates: int
    row: int


@dataclass(frozen=True)
class Timetable:
    """From a lease's first tick on. `tick`: the last one before it; `place`: where in the epoch."""

    n_steps: int
    evaluates: bool
    tick: int
    epoch: int
    place: int
    updates: int

    @cached_property
    def _made_before(self) -> int:
        """Steps of the first epoch that were made before the lease."""
        return min(self.place, self.n_steps)

    def at(self, tick: int) -> Moment:
        """What the tick is."""
        row, place = divmod(tick - self.tick - 1 + self.place, self.n_steps + self.evaluates)
        made = row * self.n_steps - self._made_before
        if place < self.n_steps:
            return Moment(self.epoch + row, place, self.updates + made + place, row)
        return Moment(self.epoch + row, EVALUATION, self.updates + made + self.n_steps, row)

    def ends_epoch(self, tick: int) -> bool:
        """Whether the tick is the last one of its epoch."""
        return (tick - self.tick + self.place) % (self.n_steps + self.evaluates) == 0

    def place_of(self, tick: int) -> int:
        """How many ticks of its epoch come before it."""
        return (tick - self.tick - 1 + self.place) % (self.n_steps + self.evaluates)

    def tick_of_update(self, updates: int) -> int:
        """The tick of the step with which `updates` have been made, counted as `updates` is."""
        made = updates - 1 - self.updates + self._made_before
        row, step = divmod(made, self.n_steps)
        return self.tick + 1 + row * (self.n_steps + self.evaluates) + step - self.place

    def end_of_epoch(self, epoch: int) -> int:
        """The last tick of an epoch."""
        return self.tick + (epoch + 1 - self.epoch) * (self.n_steps + self.evaluates) - self.place

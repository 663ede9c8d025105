"""Learning-rate schedules: what scikit-learn's MLP has. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

SMALLEST_ADAPTIVE_RATE = 1e-6


class Schedule(Protocol):
    """The learning rate after an epoch, and after a plateau."""

    def after_epoch(self, rate: float, samples_seen: int) -> float:
        """The rate of the next epoch; `samples_seen` counts from the first epoch on."""

    def after_plateau(self, rate: float) -> float | None:
        """The rate to go on with once progress has stalled, or None to stop."""


@dataclass(frozen=True)
class Constant:
    """One rate throughout."""

    initial: float

    def after_epoch(self, rate: float, samples_seen: int) -> float:
        return rate

    def after_plateau(self, rate: float) -> float | None:
        return None


@dataclass(frozen=True)
class InverseScaling:
    """initial / (samples seen + 1)^power_t, changed at the end of each epoch."""

    initial: float
    power_t: float = 0.5

    def after_epoch(self, rate: float, samples_seen: int) -> float:
        return float(self.initial / (samples_seen + 1) ** self.power_t)

    def after_plateau(self, rate: float) -> float | None:
        return None


@dataclass(frozen=True)
class Adaptive:
    """Divided by 5 at each plateau, until it is 1e-6 or less."""

    initial: float

    def after_epoch(self, rate: float, samples_seen: int) -> float:
        return rate

    def after_plateau(self, rate: float) -> float | None:
        return None if rate <= SMALLEST_ADAPTIVE_RATE else rate / 5.0


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "invscaling": InverseScaling,
    "adaptive": Adaptive,
}

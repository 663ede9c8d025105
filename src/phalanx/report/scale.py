"""Axes: where a value lies on a chart, and which values get a tick. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

LOG_FROM_RATIO = 50


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on the way from `start` to `stop`, evenly or by logarithm."""

    low: float
    high: float
    start: float
    stop: float
    by_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._lift(self.low), self._lift(self.high)
        part = (self._lift(value) - low) / (high - low) if high > low else 0.5
        return round(self.start + part * (self.stop - self.start), 1)

    def _lift(self, value: float) -> float:
        return math.log10(value) if self.by_log else value

    def ticks(self, most: int = 6) -> list[float]:
        """Round values between `low` and `high`."""
        steps = decades if self.by_log else round_steps
        return steps(self.low, self.high, most)


def round_steps(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """At most about `most` multiples of 1, 2 or 5 times a power of ten, from low to high.

    >>> round_steps(0, 10, 5)
    [0, 2, 4, 6, 8, 10]
    """
    if not high > low:
        return [low]
    raw = (high - low) / most
    exponent = math.floor(math.log10(raw))
    power = 10.0**exponent
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    if whole or step >= 1:
        step = max(1, round(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step if step >= 1 else round(i * step, -exponent) for i in range(first, last + 1)]


def decades(low: float, high: float, most: int) -> list[float]:
    """Powers of ten between low and high, at most about `most` of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, -(-(last - first) // most))
    return [10.0**exponent for exponent in range(first, last + 1, every)]


def labels(ticks: list[float]) -> list[str]:
    """The ticks as texts, to as many digits as tell one from the next.

    >>> labels([0.5, 1.0]), labels([1.0000002, 1.0000004])
    (['0.5', '1'], ['1.0000002', '1.0000004'])
    """
    step = min((b - a for a, b in pairwise(ticks)), default=math.inf)
    for digits in range(6, 17):
        said = [f"{tick:.{digits}g}" for tick in ticks]
        errors = [abs(float(text) - tick) for text, tick in zip(said, ticks, strict=True)]
        if max(errors) < step / 100:
            return said
    return [f"{tick:.17g}" for tick in ticks]


def wants_log(values: list[float]) -> bool:
    """Whether positive values span so much that the small ones would lie flat on the axis."""
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM_RATIO

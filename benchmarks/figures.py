"""Figures and what is said about them. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, and the lowest and highest of them."""

    middle: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times longer `slow` took, taken round by round.

    Two times of one round saw the same machine; medians of all rounds might not.
    """
    return spread([s / f for s, f in zip(slow, fast, strict=True)])


@dataclass(frozen=True)
class Finding:
    """A measured figure beside its target."""

    what: str
    figure: float
    target: float
    unit: str
    at_least: bool  # whether the target is a floor; otherwise it is a ceiling

    @property
    def met(self) -> bool:
        return self.figure >= self.target if self.at_least else self.figure <= self.target

    def sentence(self) -> str:
        bound = "at least" if self.at_least else "at most"
        figure = f"{self.figure:.2f}{self.unit}"
        return f"{self.what}: {figure}, target {bound} {self.target:g}{self.unit}"

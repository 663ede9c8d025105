"""What surviving costs a fit that has nothing to survive: this code beside that of a checkout."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from cases import DIGITS, MNIST_SMALL, MNIST_WIDE, Case
from checkouts import Checkout, commit
from data import ROOT
from figures import Finding, Spread, spread
from section import Section
from table import ranged, table
from timing import WARM_UP_EPOCHS, Times, turn_of_each

OLD, NEW, OLD_AGAIN = "old", "new", "old again"
BOUND = 1.03
MS = 1e3
WORKERS = (1, 2)
TURNS = 4  # of each interpreter
CASES = (  # turns of half a second to two seconds
    replace(DIGITS, epochs=300),
    replace(MNIST_SMALL, epochs=3),
    replace(MNIST_WIDE, n_samples=15 * MNIST_WIDE.batch, epochs=1),
)

METHOD = """\
The same fits with the code of two checkouts: new is {new}, old is {old}. Each has an interpreter of
its own, the old one two of them, whose ratio shows the noise. They take turns, {turns} each, and
whoever has none sleeps; then all are started afresh, {rounds} times. Times are medians of all
turns. The ratio is that of these medians; in brackets stand the lowest and the highest ratio of
medians among the fresh starts."""


@dataclass(frozen=True)
class Price:
    """Seconds a step on a case with so many workers: by contestant, for each fresh start."""

    case: Case
    workers: int
    starts: Sequence[Times]

    def seconds(self, name: str) -> Spread:
        return spread([seconds for times in self.starts for seconds in times[name]])

    def over_old(self, name: str) -> Spread:
        """How many times longer than the old code."""
        within = spread([spread(t[name]).middle / spread(t[OLD]).middle for t in self.starts])
        middle = self.seconds(name).middle / self.seconds(OLD).middle
        return Spread(middle, within.low, within.high)

    def finding(self) -> Finding:
        what = f"{self.case.title}, {workers_in_words(self.workers)}: new over old"
        return Finding(what, self.over_old(NEW).middle, BOUND, "x", at_least=False)


def section(against: Path, rounds: int, quick: bool) -> Section:
    """Measure, and say what came out."""
    cases = [case.quick() for case in CASES] if quick else CASES
    prices = [price(case, workers, against, rounds) for case in cases for workers in WORKERS]
    method = METHOD.format(new=commit(ROOT), old=commit(against), turns=TURNS, rounds=rounds)
    found = [each.finding() for each in prices]
    return Section("The price when nothing fails", [method, price_table(prices)], found)


def price(case: Case, workers: int, against: Path, rounds: int) -> Price:
    """Let the two checkouts train a case in turn, in fresh interpreters every round."""
    folders = {OLD: against, NEW: ROOT, OLD_AGAIN: against}
    return Price(case, workers, [fresh_start(case, workers, folders) for _ in range(rounds)])


def fresh_start(case: Case, workers: int, folders: dict[str, Path]) -> Times:
    """A few turns of everybody in new interpreters."""
    with ExitStack() as stack:
        everybody = {name: Checkout(folder, case, workers) for name, folder in folders.items()}
        for checkout in everybody.values():
            stack.callback(checkout.close)
        turn_of_each(everybody, WARM_UP_EPOCHS)
        turns = [turn_of_each(everybody, case.epochs) for _ in range(TURNS)]
    return {name: [turn[name] for turn in turns] for name in folders}


def workers_in_words(workers: int) -> str:
    """The number, and what is counted.

    >>> workers_in_words(1)
    '1 worker'
    """
    return f"{workers} worker{'s' if workers > 1 else ''}"


def price_table(prices: Sequence[Price]) -> str:
    """Milliseconds a step, and what they are over those of the old code."""
    rows = []
    for each in prices:
        ms = [f"{each.seconds(name).middle * MS:.3f}" for name in (OLD, NEW)]
        over = [ranged(each.over_old(name), "x", 3) for name in (NEW, OLD_AGAIN)]
        rows.append([each.case.title, str(each.workers), *ms, *over])
    header = ("case", "workers", "old, ms a step", "new, ms a step", "new over old", "noise")
    return table(header, rows)

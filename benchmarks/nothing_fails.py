"""What surviving costs a fit that has nothing to survive: this code beside that of a checkout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

from cases import DIGITS, IRIS, MNIST_SMALL, MNIST_WIDE, Case
from checkouts import Checkout, commit
from data import ROOT
from figures import Finding, Spread
from section import Section
from table import ranged, table
from timing import WARM_UP_EPOCHS, Times, turn_of_each

OLD, NEW, OLD_AGAIN = "old", "new", "old again"
BOUND = 1.03
MS = 1e3
WORKERS = (1, 2)
TURNS = 8  # of each interpreter
CASES = (  # turns of a quarter of a second to two seconds
    replace(IRIS, epochs=2000),
    replace(DIGITS, epochs=300),
    replace(MNIST_SMALL, epochs=3),
    replace(MNIST_WIDE, n_samples=15 * MNIST_WIDE.batch, epochs=1),
)

METHOD = """\
The same fits with the code of two checkouts: new is {new}, old is {old}.
Three interpreters take turns, {turns} each: an old one, a new one, and another old one. Whoever has
no turn sleeps. Then all are started afresh, {rounds} times. Ratios are taken turn by turn, so that
a machine whose speed drifts does not favour anyone: "new over old" is the time of the new code over
the mean of what both old interpreters took just before and just after it, "noise" is that of the
second old one over the first. Medians of all turns; in brackets stand the lowest and the highest
median of the turns of one start, since a start keeps its luck with memory."""


@dataclass(frozen=True)
class Price:
    """Seconds a step on a case with so many workers: by contestant, for each fresh start."""

    case: Case
    workers: int
    starts: Sequence[Times]

    @property
    def all_turns(self) -> Times:
        names = self.starts[0]
        return {name: [turn for times in self.starts for turn in times[name]] for name in names}

    @property
    def new_over_old(self) -> Spread:
        return self._over(new_over_old)

    @property
    def noise(self) -> Spread:
        return self._over(old_over_old)

    def _over(self, ratios: Callable[[Times], list[float]]) -> Spread:
        """The median ratio of all turns, and the range of the medians of the fresh starts."""
        starts = [median(ratios(times)) for times in self.starts]
        return Spread(median(ratios(self.all_turns)), min(starts), max(starts))

    def finding(self) -> Finding:
        what = f"{self.case.title}, {workers_in_words(self.workers)}: new over old"
        return Finding(what, self.new_over_old.middle, BOUND, "x", at_least=False)


def new_over_old(times: Times) -> list[float]:
    """Turn by turn; old is the mean of the turns of old code before and after.

    >>> new_over_old({"old": [1.0, 3.0], "new": [3.0, 4.0], "old again": [2.0, 1.0]})
    [2.0, 2.0]
    """
    turns = zip(times[OLD], times[NEW], times[OLD_AGAIN], strict=True)
    return [new / mean([before, after]) for before, new, after in turns]


def old_over_old(times: Times) -> list[float]:
    """The same where nothing differs."""
    return [again / once for once, again in zip(times[OLD], times[OLD_AGAIN], strict=True)]


def old_code(times: Times) -> list[float]:
    """The turns of both interpreters with old code."""
    return [*times[OLD], *times[OLD_AGAIN]]


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
    starts = []
    for number in range(1, rounds + 1):
        who = f"{case.key}, {workers_in_words(workers)}"
        print(f"{who}: start {number} of {rounds}", file=sys.stderr)
        starts.append(fresh_start(case, workers, folders))
    return Price(case, workers, starts)


def fresh_start(case: Case, workers: int, folders: dict[str, Path]) -> Times:
    """A few turns of everybody in new interpreters."""
    with ExitStack() as stack:
        everybody = {
            name: Checkout(folder / "src", case, workers) for name, folder in folders.items()
        }
        for checkout in everybody.values():
            stack.callback(checkout.close)
        for checkout in everybody.values():
            checkout.wait_until_started()
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
        turns = each.all_turns
        ms = [f"{median(seconds) * MS:.3f}" for seconds in (old_code(turns), turns[NEW])]
        over = [ranged(ratio, "x", 3) for ratio in (each.new_over_old, each.noise)]
        rows.append([each.case.title, str(each.workers), *ms, *over])
    header = ("case", "workers", "old, ms a step", "new, ms a step", "new over old", "noise")
    return table(header, rows)

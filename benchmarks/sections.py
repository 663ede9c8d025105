"""The tables of the page, one function each."""

from __future__ import annotations

from collections.abc import Sequence

from cases import LIMITS, RATIOS, Ratio
from figures import Finding, ratio, spread
from memory import Peaks
from names import with_shards
from startup import Startup
from table import ranged, table
from targets import of_memory, of_startup, of_steps
from timing import Timed, Times

MS = 1e3
MB = 1e6


def step_table(timed: Sequence[Timed]) -> str:
    """Milliseconds a step: a line for each contestant, a column for each case."""
    names = dict.fromkeys(name for each in timed for name in each.times)
    header = ["ms a step", *(f"{each.case.title} ({each.source})" for each in timed)]
    return table(header, [[name, *(_step(each.times, name) for each in timed)] for name in names])


def _step(times: Times, name: str) -> str:
    return ranged(spread([s * MS for s in times[name]])) if name in times else ""


def ratio_table(timed: Sequence[Timed]) -> str:
    """How many times longer the others take, each ratio beside its target.

    Targets are for shards='auto', which is what a user gets.
    """
    rows: list[list[str]] = []
    for each in timed:
        goals = of_steps(each)
        cells = [_ratio(each.times, r) + _beside(goals.get(r)) for r in RATIOS]
        rows.append([each.case.title, *cells])
        for shards in each.case.extra_shards:
            cells = [_ratio(each.times, r.with_shards(shards)) for r in RATIOS]
            rows.append([with_shards(each.case.title, shards), *cells])
    return table(["case", *(r.title for r in RATIOS)], rows)


def limit_table(timed: Sequence[Timed]) -> str:
    """How far everything is from the products alone."""
    dense = [each for each in timed if not each.case.is_sparse]
    rows = [[each.case.title, *(_ratio(each.times, r) for r in LIMITS)] for each in dense]
    return table(["case", *(r.title for r in LIMITS)], rows)


def _ratio(times: Times, r: Ratio) -> str:
    return ranged(ratio(times[r.slow], times[r.fast]), "x") if r.slow in times else ""


def startup_table(startup: Startup) -> str:
    """Seconds before anything is trained."""
    goals = of_startup(startup)
    figures = {
        "`import phalanx`": startup.importing,
        "`from phalanx import MLPClassifier`": startup.importing_estimator,
        "iris, 2 workers, first fit": startup.iris[0],
        "iris, 2 workers, second fit": startup.iris[1],
        "digits, 2 workers, 5 epochs, first fit": startup.digits[0],
        "digits, 2 workers, 5 epochs, second fit": startup.digits[1],
    }
    rows = [
        [what, ranged(figure, digits=3), _target(goals.get(what))]
        for what, figure in figures.items()
    ]
    return table(["what", "seconds", "target"], rows)


def memory_table(peaks: Peaks) -> str:
    """Peak PSS of all processes together."""
    goals = of_memory(peaks)
    rows = [
        [kind, f"{one / MB:,.0f}", f"{four / MB:,.0f}", f"{four / one:.2f}x", _target(goals[kind])]
        for kind, (one, four) in peaks.items()
    ]
    return table(["samples held as", "1 worker, MB", "4 workers, MB", "ratio", "target"], rows)


def _target(finding: Finding | None) -> str:
    if finding is None:
        return ""
    return f"{finding.target:g}{finding.unit}, {'met' if finding.met else 'not met'}"


def _beside(finding: Finding | None) -> str:
    return f"; target {_target(finding)}" if finding else ""

"""The targets: every figure that has one, and which of them are met."""

from __future__ import annotations

from collections.abc import Sequence

from cases import Ratio
from figures import Finding, ratio
from measured import Measured
from memory import Peaks
from startup import Startup
from timing import Timed

IMPORT_SECONDS = 0.3
FIRST_FIT_SECONDS = 0.5
SECOND_FIT_SECONDS = 0.1
MEMORY_RATIO = 1.25  # four workers over one


Goals = dict[str, Finding]  # by the name that the table of the figure gives it


def findings(measured: Measured) -> list[Finding]:
    """Every measured figure that has a target."""
    goals = [goal for timed in measured.timed for goal in of_steps(timed).values()]
    goals += of_startup(measured.startup).values()
    return [*goals, *of_memory(measured.peaks).values()]


def of_steps(timed: Timed) -> dict[Ratio, Finding]:
    """Findings of a case by ratio."""
    found: dict[Ratio, Finding] = {}
    for r, target in timed.case.targets.items():
        figure = ratio(timed.times[r.slow], timed.times[r.fast]).middle
        what = f"{timed.case.title}: {r.title}"
        found[r] = Finding(what, figure, target, "x", at_least=True)
    return found


def of_startup(startup: Startup) -> Goals:
    """Findings by line of the table."""
    first, second = startup.iris
    seconds = {
        "`import phalanx`": (startup.importing, IMPORT_SECONDS),
        "iris, 2 workers, first fit": (first, FIRST_FIT_SECONDS),
        "iris, 2 workers, second fit": (second, SECOND_FIT_SECONDS),
    }
    return {
        what: Finding(what, figure.middle, target, " s", at_least=False)
        for what, (figure, target) in seconds.items()
    }


def of_memory(peaks: Peaks) -> Goals:
    """Findings by kind of array."""
    found: Goals = {}
    for kind, (one, four) in peaks.items():
        what = f"memory with 4 workers over 1 worker, {kind}"
        found[kind] = Finding(what, four / one, MEMORY_RATIO, "x", at_least=False)
    return found


def verdict(found: Sequence[Finding]) -> str:
    """Which targets are met and which are not, one a line."""
    groups = {"Met": [f for f in found if f.met], "Not met": [f for f in found if not f.met]}
    return "\n\n".join(
        "\n".join([f"{name}: {len(group)} of {len(found)}.", "", *map(_line, group)]).strip()
        for name, group in groups.items()
    )


def _line(finding: Finding) -> str:
    return f"- {finding.sentence()}"

"""What the soak counted, and its place in docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from statistics import median
from time import monotonic

from data import ROOT
from machine import processor
from phalanx import WorkerLost
from phalanx.run import Run
from table import table

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
DEAR = 2000.0  # milliseconds


@dataclass
class Tally:
    """Counts of a soak.

    same: fits that were compared, and equal. costs: milliseconds that each lost worker cost.
    remarkable: what a reader may want to look into, by the number of the fit.
    """

    begun: float
    faults: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    fits: int = 0
    same: int = 0
    given_up: int = 0
    number: int = 0
    remarkable: list[str] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    @property
    def n_faults(self) -> int:
        return self.faults.total()

    def seconds(self) -> float:
        """Since the soak began."""
        return monotonic() - self.begun

    def fitted(self, run: Run, sent: Mapping[str, int]) -> None:
        """A fit that ended, whatever its digest."""
        self.faults.update(sent)
        self.fits += 1
        self.events.update(event.what for event in run.events)
        lost = [event for event in run.events if event.what == "worker lost"]
        self.costs += [event.cost for event in lost if event.cost is not None]
        dear = [event for event in lost if event.cost is not None and event.cost > DEAR]
        self.remarkable += [f"fit {self.number}: {event}" for event in dear]

    def lost(self, error: WorkerLost, sent: Mapping[str, int]) -> None:
        """A fit that was given up, as it is to be where one task ends several processes."""
        self.faults.update(sent)
        self.fits += 1
        self.given_up += 1
        self.remarkable.append(f"fit {self.number}: {error}")

    def line(self) -> str:
        """One line."""
        return (
            f"{self.n_faults:,} faults, {self.fits:,} fits, {self.same:,} digests equal, "
            f"{self.given_up} given up, {self.seconds():.0f} s"
        )

    def table(self) -> str:
        """All counts."""
        rows = [[f"faults: {kind}", f"{count:,}"] for kind, count in self.faults.most_common()]
        rows += [
            ["faults in all", f"{self.n_faults:,}"],
            ["fits", f"{self.fits:,}"],
            ["fits with the digest of one undisturbed worker", f"{self.same:,}"],
            ["fits given up, one task having ended too many processes", f"{self.given_up:,}"],
        ]
        rows += [[f"events: {what}", f"{count:,}"] for what, count in self.events.most_common()]
        if self.costs:
            rows += [
                ["a lost worker cost, median", f"{median(self.costs):,.1f} ms"],
                ["a lost worker cost, at most", f"{max(self.costs):,.1f} ms"],
            ]
        return table(["what", "figure"], [*rows, ["minutes", f"{self.seconds() / 60:.1f}"]])


def rewrite(tally: Tally, seed: int) -> None:
    """Put the figures between the page's markers."""
    said = (
        f"Written by `scripts/soak --faults {tally.n_faults} --seed {seed}` on "
        f"{date.today().isoformat()}; {processor()}."
    )
    PAGE.write_text(between(PAGE.read_text(), f"{said}\n\n{tally.table()}", BEGIN, END))


def between(page: str, text: str, begin: str, end: str) -> str:
    """The page with another text between two markers.

    >>> between("a <old> b", "new", "<", ">").split()
    ['a', '<', 'new', '>', 'b']
    """
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"

"""Marks on the timeline: what happened to whom when.

In a worker's lane what is bad hangs from above and what is good stands from below, so that a loss
and the replacement a moment later are both seen. What concerns no single worker has its head above
the lanes, and its line goes through all of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from phalanx.report.markup import Markup, join, tag
from phalanx.run import Event

FAMILIES = {
    "worker lost": "lost",
    "worker stuck": "lost",
    "worker joined": "joined",
    "workers changed": "joined",
    "checkpoint": "saved",
    "checkpoint failed": "unsaved",
}
OTHER = "other"
HEADS = {  # later ones are drawn over earlier ones
    "other": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "saved": "M0-5L5 0L0 5L-5 0z",
    "joined": "M0-5L5 4H-5z",
    "unsaved": "M0-6L6 0L0 6L-6 0zM0-2.5L-2.5 0L0 2.5L2.5 0z",
    "lost": "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0z",
}
TIMES = "\N{MULTIPLICATION SIGN}"
STRIP = 18  # pixels above the lanes, for what concerns no single worker
CELL = 1.25  # percent of the width; what is alike within one is one mark
MOST_AT_EASE = 24  # marks of a lane at their full size
MOST_LINES = 6  # of a mark's title


@dataclass(frozen=True)
class Mark:
    """What happened alike, in one lane (None: in no single one), at nearly the same place.

    place: where the first of the events lies, in percent of the drawing's width.
    """

    family: str
    lane: int | None
    place: float
    events: list[Event]

    @property
    def title(self) -> str:
        """What is said of the events where the pointer rests on the mark."""
        lines = [str(event) for event in self.events[:MOST_LINES]]
        more = len(self.events) - len(lines)
        return "\n".join([*lines, f"... and {more:,} more"] if more else lines)


def marks(events: Iterable[Event], begun: float, total: float) -> list[Mark]:
    """The marks of what has a time; what lies outside of begun ... begun + total, on the edge."""
    cells: dict[tuple[str, int | None, int], Mark] = {}
    for event, at in sorted(_timed(events), key=lambda timed: timed[1]):
        place = 100 * min(max((at - begun) / total, 0.0), 1.0)
        kind, lane = family(event), event.worker
        mark = cells.setdefault((kind, lane, int(place / CELL)), Mark(kind, lane, place, []))
        mark.events.append(event)
    order = list(HEADS)
    return sorted(cells.values(), key=lambda mark: (order.index(mark.family), mark.place))


def _timed(events: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    for event in events:
        if event.at is not None and math.isfinite(event.at):
            yield event, event.at


def family(event: Event) -> str:
    """Which shape and colour an event has."""
    return FAMILIES.get(event.what, OTHER)


def drawn(found: list[Mark], lane: int, n_lanes: int) -> Markup:
    """The marks as SVG, over `n_lanes` lanes that are `lane` pixels high."""
    families = {mark.family for mark in found}
    heads = [
        tag("path", id=f"mark-{name}", d=path, class_="head")
        for name, path in HEADS.items()
        if name in families
    ]
    defined = tag("defs", *heads) if heads else ""
    return join([defined, *(_drawn(mark, lane, n_lanes, strip(found)) for mark in found)])


def is_crowded(found: list[Mark]) -> bool:
    """Whether a lane has so many marks that they are to be small and faint."""
    lanes = Counter(mark.lane for mark in found)
    return max(lanes.values(), default=0) > MOST_AT_EASE


def strip(found: list[Mark]) -> int:
    """Height of the strip above the lanes; none where every mark has a lane."""
    return STRIP if any(mark.lane is None for mark in found) else 0


def _drawn(mark: Mark, lane: int, n_lanes: int, above: int) -> Markup:
    place = f"{mark.place:.2f}%"
    if mark.lane is None:
        head, top, bottom = above // 2, above // 2, above + n_lanes * lane
    else:
        top = above + mark.lane * lane + 2
        bottom = top + lane - 4
        head = middle = (top + bottom) // 2
        if mark.family == "lost":
            head, bottom = top + 5, middle
        elif mark.family == "joined":
            head, top = bottom - 5, middle
    return tag(
        "g",
        tag("title", mark.title),
        tag("line", x1=place, x2=place, y1=top, y2=bottom),
        tag("use", href=f"#mark-{mark.family}", x=place, y=head),
        class_=f"mark {mark.family}" + (" all" if mark.lane is None else ""),
    )


def legend(found: list[Mark]) -> Markup:
    """An entry for each family that occurs: its head, and what happened how often."""
    return join(
        tag("li", _swatch(name), happened)
        for name in reversed(HEADS)
        if (happened := _counts(mark for mark in found if mark.family == name))
    )


def about(found: list[Mark]) -> str:
    """What the marks tell, in words."""
    happened = _counts(found)
    return f" Marked in the lanes: {happened}." if happened else ""


def _counts(found: Iterable[Mark]) -> str:
    times = Counter(event.what for mark in found for event in mark.events)
    return ", ".join(what if n == 1 else f"{what} {TIMES} {n:,}" for what, n in times.items())


def _swatch(name: str) -> Markup:
    head = tag("use", href=f"#mark-{name}", x=7, y=7)
    return tag("svg", head, width=14, height=14, class_=f"mark {name}", aria_hidden="true")

"""Who computed what when: a lane for each worker, drawn from the spans and events of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from phalanx.report import marks
from phalanx.report.charts import svg
from phalanx.report.markup import Markup, join, tag
from phalanx.report.scale import round_steps
from phalanx.report.words import count, seconds
from phalanx.run import Run, Span

MOST_EPOCHS = 200  # drawn apart; of a longer training, several epochs are drawn as one
MOST_GAP = 1 / 300  # of the whole; spans further apart than that are never drawn as one
LANE, BAR = 34, 22  # pixels; style.css has them too
PARTS = ("compute", "update", "wait")
MEANINGS = {
    "compute": "computing the gradients of its shards",
    "update": "updating its blocks of the parameters",
    "wait": "waiting for the others",
}


def timeline(run: Run) -> Markup:
    """The lanes with their workers' shares, what happened, the time axis, and a legend."""
    spans = merged(run.spans, MOST_EPOCHS)
    if not spans:
        return tag("p", "No worker was timed in this run.", class_="note")
    begun, total = _extent(spans)
    found = marks.marks(run.events, begun, total)
    n_lanes, strip = _lanes(run), marks.strip(found)
    bars = join(_bars(span, begun, total, strip) for span in spans)
    drawing = svg(
        "timeline",
        "Who computed what when",
        _about(run, n_lanes, total) + marks.about(found),
        join([_ground(n_lanes, strip), bars, marks.drawn(found, LANE, n_lanes)]),
        class_="lanes crowded" if marks.is_crowded(found) else "lanes",
        style=f"height: {strip + LANE * n_lanes}px",
    )
    names = tag(
        "div", *(_name(run, seat) for seat in range(n_lanes)), style=f"padding-top: {strip}px"
    )
    lanes = tag("div", names, tag("div", drawing, _axis(total)), class_="timeline")
    return join([_legend(found), lanes])


def _lanes(run: Run) -> int:
    """As many as there were workers, or more where a seat beyond them occurs."""
    seats = [span.worker for span in run.spans]
    seats += [event.worker for event in run.events if event.worker is not None]
    return max([run.workers, *(seat + 1 for seat in seats)])


def _extent(spans: Sequence[Span]) -> tuple[float, float]:
    """When the first span began, and seconds from there to the end of the last."""
    begun = min(span.begun for span in spans)
    return begun, max(_end(span) for span in spans) - begun or 1e-9


def merged(spans: Iterable[Span], most: int) -> list[Span]:
    """Spans with neighbouring epochs of a worker put together, so that at most `most` remain.

    Where a worker was away for long enough to be seen, there is a gap, however many remain then.
    """
    in_order = sorted(spans, key=lambda span: (span.worker, span.epoch, span.begun))
    if not in_order:
        return []
    epochs = {span.epoch for span in in_order}
    first, size = min(epochs), -(-len(epochs) // most)
    groups = groupby(in_order, key=lambda span: (span.worker, (span.epoch - first) // size))
    longest = _extent(in_order)[1] * MOST_GAP
    return [_sum(part) for _, group in groups for part in _apart(group, longest)]


def _apart(spans: Iterable[Span], longest: float) -> list[list[Span]]:
    """Divided where the gap between one span and the next is longer."""
    parts: list[list[Span]] = []
    for span in spans:
        if parts and span.begun - _end(parts[-1][-1]) <= longest:
            parts[-1].append(span)
        else:
            parts.append([span])
    return parts


def _sum(spans: Sequence[Span]) -> Span:
    return Span(
        spans[0].worker,
        spans[0].epoch,
        spans[0].begun,
        sum(span.compute for span in spans),
        sum(span.update for span in spans),
        sum(span.wait for span in spans),
        sum(span.shards for span in spans),
    )


def _end(span: Span) -> float:
    return span.begun + span.compute + span.update + span.wait


def _ground(n_lanes: int, strip: int) -> Markup:
    return tag("rect", class_="ground", y=strip, width="100%", height=LANE * n_lanes)


def _bars(span: Span, begun: float, total: float, strip: int) -> Markup:
    """One bar a part, one after another: how the epoch's time was divided."""
    start, bars = span.begun - begun, []
    y = strip + span.worker * LANE + (LANE - BAR) // 2
    for part in PARTS:
        duration = getattr(span, part)
        x, width = start / total, duration / total
        if width >= 0.00005:
            bars.append(tag("rect", x=f"{x:.2%}", width=f"{width:.2%}", y=y, class_=part))
        start += duration
    return join(bars)


def _name(run: Run, seat: int) -> Markup:
    share = run.shares[seat] if seat < len(run.shares) else 0.0
    share_of_all = tag("small", f"{share:.0%} of the shards")
    return tag("div", tag("span", f"worker {seat}"), share_of_all, class_="lane-name")


def _axis(total: float) -> Markup:
    """Seconds below the lanes; ticks near the right edge are left out, or they would stick out."""
    ticks = [tick for tick in round_steps(0, total, 5) if tick <= 0.9 * total]
    return tag(
        "div",
        *(tag("span", f"{tick:g} s", style=f"left: {tick / total:.2%}") for tick in ticks),
        class_="axis",
        aria_hidden="true",
    )


def _legend(found: list[marks.Mark]) -> Markup:
    entries = [
        tag("li", tag("span", class_=f"swatch {part}"), f"{part}: {MEANINGS[part]}")
        for part in PARTS
    ]
    happened = tag("ul", marks.legend(found), class_="legend") if found else ""
    return join([tag("ul", *entries, class_="legend"), happened])


def _about(run: Run, n_lanes: int, total: float) -> str:
    times = "; ".join(
        f"worker {seat} " + ", ".join(f"{part} {_spent(run, seat, part)}" for part in PARTS)
        for seat in range(n_lanes)
    )
    return f"{count(run.workers, 'worker')} over {seconds(total)}: {times}."


def _spent(run: Run, seat: int, part: str) -> str:
    return seconds(sum(getattr(span, part) for span in run.spans if span.worker == seat))

"""Who computed what when: a lane for each worker, drawn from the spans of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from phalanx.report.charts import svg
from phalanx.report.markup import Markup, join, tag
from phalanx.report.scale import round_steps
from phalanx.report.words import count, seconds
from phalanx.run import Run, Span

MOST_EPOCHS = 200  # drawn apart; of a longer training, several epochs are drawn as one
WIDTH, LANE, BAR = 1000, 34, 22
PARTS = ("compute", "update", "wait")
MEANINGS = {
    "compute": "computing the gradients of its shards",
    "update": "updating its blocks of the parameters",
    "wait": "waiting for the others",
}


def timeline(run: Run) -> Markup:
    """The lanes with their workers' shares, the time axis, and a legend."""
    spans = merged(run.spans, MOST_EPOCHS)
    if not spans:
        return tag("p", "No worker was timed in this run.", class_="note")
    begun = min(span.begun for span in spans)
    total = max(_end(span) for span in spans) - begun or 1e-9
    drawn = join(_bars(span, begun, WIDTH / total) for span in spans)
    bars = svg(
        "timeline",
        "Who computed what when",
        _about(run, total),
        drawn,
        WIDTH,
        LANE * run.workers,
        preserveAspectRatio="none",
        class_="lanes",
        style=f"height: {LANE * run.workers}px",
    )
    names = tag("div", *(_name(rank, share) for rank, share in enumerate(run.shares)))
    drawing = tag("div", bars, _axis(total))
    return join([_legend(), tag("div", names, drawing, class_="timeline")])


def merged(spans: Iterable[Span], most: int) -> list[Span]:
    """Spans with neighbouring epochs of a worker put together, so that at most `most` remain."""
    in_order = sorted(spans, key=lambda span: (span.worker, span.epoch))
    epochs = {span.epoch for span in in_order}
    first, size = min(epochs, default=0), max(1, -(-len(epochs) // most))
    groups = groupby(in_order, key=lambda span: (span.worker, (span.epoch - first) // size))
    return [_sum(list(group)) for _, group in groups]


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


def _bars(span: Span, begun: float, scale: float) -> Markup:
    """One bar a part, one after another: how the epoch's time was divided."""
    start, bars = span.begun - begun, []
    for part in PARTS:
        duration = getattr(span, part)
        x, width = start * scale, duration * scale
        if width >= 0.05:
            y = span.worker * LANE + (LANE - BAR) / 2
            path = f"M{x:.1f} {y:g}h{width:.1f}v{BAR}h-{width:.1f}z"
            bars.append(tag("path", d=path, class_=part))
        start += duration
    return join(bars)


def _name(rank: int, share: float) -> Markup:
    share_of_all = tag("small", f"{share:.0%} of the shards")
    return tag("div", tag("span", f"worker {rank}"), share_of_all, class_="lane-name")


def _axis(total: float) -> Markup:
    """Seconds below the lanes; ticks near the right edge are left out, or they would stick out."""
    ticks = [tick for tick in round_steps(0, total, 5) if tick <= 0.9 * total]
    return tag(
        "div",
        *(tag("span", f"{tick:g} s", style=f"left: {tick / total:.2%}") for tick in ticks),
        class_="axis",
        aria_hidden="true",
    )


def _legend() -> Markup:
    entries = [
        tag("li", tag("span", class_=f"swatch {part}"), f"{part}: {MEANINGS[part]}")
        for part in PARTS
    ]
    return tag("ul", *entries, class_="legend")


def _about(run: Run, total: float) -> str:
    times = "; ".join(
        f"worker {rank} " + ", ".join(f"{part} {_spent(run, rank, part)}" for part in PARTS)
        for rank in range(run.workers)
    )
    return f"{count(run.workers, 'worker')} over {seconds(total)}: {times}."


def _spent(run: Run, rank: int, part: str) -> str:
    return seconds(sum(getattr(span, part) for span in run.spans if span.worker == rank))

"""Charts as inline SVG, drawn by hand. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from phalanx.report.markup import Markup, join, tag
from phalanx.report.scale import Scale, labels, round_steps, wants_log

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 40  # the left edge is farther in where labels are long
TITLE, GAP, CHARACTER = 18, 7, 8  # of the y axis: its title's width, before the ticks, a digit's
MOST_POINTS = 500

Point = tuple[float, float]


def curve(name: str, title: str, values: Sequence[float | None], y_label: str) -> Markup:
    """A line over epochs 1 ... n; what is missing or not finite leaves a gap.

    `name` is unique on the page, for the references from title and description.
    """
    points = _points(values)
    if not points:
        return tag("p", "No finite value was recorded.", class_="note")
    y = _y_scale([value for _, value in points])
    ticks = y.ticks()
    names = labels(ticks)
    left = max(LEFT, TITLE + GAP + round(CHARACTER * max(map(len, names))))
    x = Scale(1, len(values), left, WIDTH - RIGHT)
    lowest, highest = min(v for _, v in points), max(v for _, v in points)
    about = (
        f"{y_label} over {len(values)} epochs: {points[0][1]:.4g} at first, {points[-1][1]:.4g} at "
        f"last, between {lowest:.4g} and {highest:.4g}."
    )
    grid = join([_rows(x, [*map(y, ticks)], names), _columns(x, len(values))])
    drawn = join([grid, _titles(y_label, x, y), _line(points, x, y)])
    return svg(name, title, about, drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="chart")


def svg(name: str, title: str, about: str, drawn: Markup, **attributes: str) -> Markup:
    """A drawing with a title and a description for those who do not see it."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", about, id=f"{name}-desc"),
        drawn,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        **attributes,
    )


def _points(values: Sequence[float | None]) -> list[Point]:
    """(epoch, value) of what is finite, thinned out to what a screen can show."""
    every = max(1, -(-len(values) // MOST_POINTS))
    last = len(values)
    return [
        (epoch, value)
        for epoch, value in enumerate(values, 1)
        if value is not None
        and math.isfinite(value)
        and (epoch == last or (epoch - 1) % every == 0)
    ]


def _y_scale(values: list[float]) -> Scale:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    by_log = wants_log(values)
    if by_log:
        low, high = 10 ** math.floor(math.log10(low)), high * 1.2
    else:
        low, high = low - margin, high + margin
    return Scale(low, high, HEIGHT - BOTTOM, TOP, by_log)


def _rows(x: Scale, heights: list[float], names: list[str]) -> Markup:
    """The ticks of the y axis, each with a rule through the chart."""
    rules = [_rule(x.start, height, x.stop, height) for height in heights]
    texts = [
        _text(x.start - GAP, height + 4, name, "end")
        for height, name in zip(heights, names, strict=True)
    ]
    return join([*rules, *texts])


def _columns(x: Scale, n_epochs: int) -> Markup:
    """The ticks below; the last name is moved to the left where it would be cut off."""
    lines = []
    for epoch in _epoch_ticks(n_epochs):
        name = f"{epoch:g}"
        place = min(x(epoch), WIDTH - CHARACTER / 2 * len(name))
        lines.append(_rule(x(epoch), HEIGHT - BOTTOM, x(epoch), HEIGHT - BOTTOM + 5))
        lines.append(_text(place, HEIGHT - BOTTOM + 19, name, "middle"))
    return join(lines)


def _epoch_ticks(n_epochs: int) -> list[float]:
    if n_epochs < 2:
        return [1]
    inner = [tick for tick in round_steps(1, n_epochs, 6, whole=True) if tick > 1]
    return [1, *(tick for tick in inner if tick >= 1 + 0.06 * n_epochs)]


def _titles(y_label: str, x: Scale, y: Scale) -> Markup:
    scale = " (logarithmic)" if y.by_log else ""
    middle = (HEIGHT - BOTTOM + TOP) / 2
    return join(
        [
            _text((x.start + x.stop) / 2, HEIGHT - 4, "epoch", "middle"),
            tag(
                "text",
                y_label + scale,
                x=12,
                y=middle,
                text_anchor="middle",
                transform=f"rotate(-90 12 {middle})",
            ),
        ]
    )


def _line(points: list[Point], x: Scale, y: Scale) -> Markup:
    places = [(x(epoch), y(value)) for epoch, value in points]
    path = " ".join(f"{px:g},{py:g}" for px, py in places)
    end = tag("circle", cx=places[-1][0], cy=places[-1][1], r=4, class_="end")
    return join([tag("polyline", points=path, class_="line"), end])


def _rule(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="rule")


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor)

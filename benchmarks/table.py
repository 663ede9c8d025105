"""Markdown tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from figures import Spread


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it also reads well as plain text.

    >>> print(table(["a", "b"], [["1", "long"]]))
    | a | b    |
    |---|------|
    | 1 | long |
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([_line(header, widths), rule, *(_line(row, widths) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def ranged(value: Spread, unit: str = "", digits: int = 2) -> str:
    """The median, and in brackets the range.

    >>> ranged(Spread(2.0, 1.5, 3.0), "x")
    '2.00x (1.50..3.00)'
    """
    low, high = f"{value.low:.{digits}f}", f"{value.high:.{digits}f}"
    return f"{value.middle:.{digits}f}{unit} ({low}..{high})"

"""The confusion matrix as a heat-map table, or as a list where there are too many classes."""

from __future__ import annotations

from phalanx.report.markup import Markup, join, scrolling, table, tag
from phalanx.runs.evaluation import Evaluation

MOST_CLASSES = 40
MOST_CONFUSIONS = 20
LEAST_HEAT, MOST_HEAT = 12, 42  # percent of the colour: seen, and the number on it readable


def matrix(evaluation: Evaluation) -> Markup:
    """Samples by true class (row) and predicted class (column)."""
    labels = [figures.label for figures in evaluation.classes]
    if len(labels) > MOST_CLASSES:
        return _confusions(labels, evaluation.confusion)
    corner = tag("th", "true ↓ predicted →", scope="col")
    head = tag("tr", corner, *(tag("th", label, scope="col") for label in labels))
    rows = [
        tag("tr", tag("th", label, scope="row"), _cells(evaluation.confusion[c], c))
        for c, label in enumerate(labels)
    ]
    caption = "Samples by true class (rows) and predicted class (columns)"
    drawn = tag(
        "table",
        tag("caption", caption),
        tag("thead", head),
        tag("tbody", *rows),
        class_="matrix",
    )
    return scrolling(drawn, "Confusion matrix")


def _cells(counts: list[int], true_class: int) -> Markup:
    total = sum(counts) or 1
    return join(
        _cell(count, count / total, is_right=c == true_class) for c, count in enumerate(counts)
    )


def _cell(count: int, share: float, is_right: bool) -> Markup:
    if not count:
        return tag("td", "0", class_="none")
    heat = LEAST_HEAT + (MOST_HEAT - LEAST_HEAT) * share**0.5
    return tag("td", count, class_="good" if is_right else "bad", style=f"--heat: {heat:.0f}%")


def _confusions(labels: list[str], counts_CC: list[list[int]]) -> Markup:
    wrong = [
        (count, labels[t], labels[p])
        for t, row in enumerate(counts_CC)
        for p, count in enumerate(row)
        if count and t != p
    ]
    wrong.sort(key=lambda entry: -entry[0])
    rows = [(true, predicted, count) for count, true, predicted in wrong[:MOST_CONFUSIONS]]
    caption = f"The most frequent confusions among {len(labels)} classes"
    return table(("true", "predicted", "samples"), rows, caption)

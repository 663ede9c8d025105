"""How good a network is on some samples: figures, figures by class, and the confusion matrix."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from phalanx.pure.arrays import Array
from phalanx.pure.metrics import CLASS_METRICS, VALUE_METRICS, confusion, log_loss


@dataclass(frozen=True)
class ClassFigures:
    """One class: precision, recall, F1 and mean log loss of its `samples` samples."""

    label: str
    precision: float
    recall: float
    f1: float
    log_loss: float
    samples: int


@dataclass(frozen=True)
class Evaluation:
    """Figures by name over `samples` samples; by class and as a matrix where there are classes.

    NaN is what is undefined: R² of a single sample; of a class without samples the log loss, and
    all figures if nothing was taken for it either.
    confusion: samples by true class (row) and predicted class (column), in the order of `classes`.
    """

    samples: int
    figures: dict[str, float]
    classes: list[ClassFigures] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, ready for JSON."""
        return asdict(self)


def evaluate_classes(labels: tuple[str, ...], classes_B: Array, proba_BC: Array) -> Evaluation:
    """Accuracy, macro averages and log loss of probabilities [n, C] for class indices [n]."""
    n_classes = len(labels)
    ones_B = np.ones(len(classes_B))
    cells = confusion(n_classes)(classes_B, proba_BC.argmax(axis=1), ones_B)
    figures = {name: final(cells) for name, final in CLASS_METRICS.items()}
    figures["log_loss"] = _log_loss(classes_B, proba_BC)
    matrix_CC = cells.reshape(n_classes, n_classes).astype(int)
    by_class = [
        _class_figures(label, c, matrix_CC, classes_B, proba_BC) for c, label in enumerate(labels)
    ]
    return Evaluation(len(classes_B), figures, by_class, matrix_CC.tolist())


def _class_figures(
    label: str, c: int, matrix_CC: Array, classes_B: Array, proba_BC: Array
) -> ClassFigures:
    right, truly, said = matrix_CC[c, c], matrix_CC[c].sum(), matrix_CC[:, c].sum()
    mine_B = classes_B == c
    nothing = 0.0 if truly + said else math.nan  # which no mean has
    loss = _log_loss(classes_B[mine_B], proba_BC[mine_B]) if truly else math.nan
    return ClassFigures(
        label,
        precision=float(right / said) if said else nothing,
        recall=float(right / truly) if truly else nothing,
        f1=float(2 * right / (truly + said)) if truly + said else nothing,
        log_loss=loss,
        samples=int(truly),
    )


def _log_loss(classes_B: Array, proba_BC: Array) -> float:
    """Of certainty about all that is true, 0 rather than -0."""
    return log_loss(classes_B, proba_BC) + 0.0


def evaluate_values(values_B: Array, predicted_B: Array) -> Evaluation:
    """MSE, MAE and R2 of predicted values [n], in the target's own unit."""
    figures = {name: metric(values_B, predicted_B) for name, metric in VALUE_METRICS.items()}
    if len(values_B) < 2:
        figures["r2"] = math.nan
    return Evaluation(len(values_B), figures)

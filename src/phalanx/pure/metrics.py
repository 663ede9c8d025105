"""Metrics from sums over samples, so that they are exact however the samples were divided. Pure.

A metric is a pair of functions: `partial` turns the outputs for some samples into a vector of
sums, `final` turns the total of those vectors into the figure. Totals are float64 and added in
sample order. Targets `y` and predictions are [B] class indices or [B, O] values; `weight_B` are
sample weights (ones where there are none).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from phalanx.pure.arrays import Array

Partial = Callable[[Array, Array, Array], Array]
Final = Callable[[Array], float]


@dataclass(frozen=True)
class Metric:
    """How a figure is made of sums: `final(sum of partial(y, predicted, weight_B))`."""

    partial: Partial
    final: Final

    def __call__(self, y: Array, predicted: Array, weight_B: Array | None = None) -> float:
        weight_B = np.ones(len(y)) if weight_B is None else weight_B
        return self.final(self.partial(y, predicted, weight_B))

    def total(self, parts: Iterable[tuple[Array, Array, Array]]) -> float:
        """The figure over several groups of samples, each (y, predicted, weight_B)."""
        return self.final(np.sum([self.partial(*part) for part in parts], axis=0))


def confusion(n_classes: int) -> Partial:
    """Sums of weight by (true class, predicted class), flattened to [C * C]."""

    def partial(y: Array, predicted: Array, weight_B: Array) -> Array:
        cells = y.astype(np.intp) * n_classes + predicted.astype(np.intp)
        return np.bincount(cells, weight_B, n_classes * n_classes)

    return partial


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole != 0)


def _accuracy(cells: Array) -> float:
    matrix = _square(cells)
    return float(np.trace(matrix) / matrix.sum())


def _precision(cells: Array) -> float:
    matrix = _square(cells)
    return float(_present(_ratio(np.diag(matrix), matrix.sum(axis=0)), matrix).mean())


def _recall(cells: Array) -> float:
    matrix = _square(cells)
    return float(_present(_ratio(np.diag(matrix), matrix.sum(axis=1)), matrix).mean())


def _f1(cells: Array) -> float:
    matrix = _square(cells)
    both = matrix.sum(axis=0) + matrix.sum(axis=1)
    return float(_present(_ratio(2 * np.diag(matrix), both), matrix).mean())


def _square(cells: Array) -> Array:
    side = round(len(cells) ** 0.5)
    return cells.reshape(side, side)


def _present(per_class: Array, matrix: Array) -> Array:
    """Figures of the classes that occur among targets or predictions, as scikit-learn averages."""
    return np.asarray(per_class[matrix.sum(axis=0) + matrix.sum(axis=1) > 0])


def _log_loss_partial(y: Array, probability: Array, weight_B: Array) -> Array:
    probability = probability.astype(np.float64)
    tiny = np.finfo(np.float64).eps
    true_B = probability[np.arange(len(y)), y.astype(np.intp)]
    return np.array([-(weight_B * np.log(np.clip(true_B, tiny, 1))).sum(), weight_B.sum()])


def _columns(y: Array) -> Array:
    return y.reshape(len(y), -1).astype(np.float64)


def _squared_partial(y: Array, predicted: Array, weight_B: Array) -> Array:
    square_BO = (_columns(y) - _columns(predicted)) ** 2
    return np.array([weight_B @ square_BO.mean(axis=1), weight_B.sum()])


def _absolute_partial(y: Array, predicted: Array, weight_B: Array) -> Array:
    error_BO = np.abs(_columns(y) - _columns(predicted))
    return np.array([weight_B @ error_BO.mean(axis=1), weight_B.sum()])


def _r2_partial(y: Array, predicted: Array, weight_B: Array) -> Array:
    """[4 * O]: for each output, sums of squared error, of weight, of y and of y squared."""
    y_BO = _columns(y)
    error_O = weight_B @ (y_BO - _columns(predicted)) ** 2
    weight_O = np.full_like(error_O, weight_B.sum())
    return np.concatenate([error_O, weight_O, weight_B @ y_BO, weight_B @ y_BO**2])


def _r2(sums: Array) -> float:
    """1 - squared error / variance, averaged over outputs; a constant target scores 1 or 0."""
    error_O, weight_O, sum_O, square_O = sums.reshape(4, -1)
    spread_O = np.maximum(square_O - sum_O**2 / weight_O, 0)
    flat_O = spread_O <= 1e-14 * square_O
    with np.errstate(divide="ignore", invalid="ignore"):
        score_O = 1 - error_O / spread_O
    return float(np.where(flat_O, (error_O == 0).astype(float), score_O).mean())


def _mean(sums: Array) -> float:
    return float(sums[0] / sums[1])


CLASS_METRICS: dict[str, Final] = {
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
}


def class_metric(name: str, n_classes: int) -> Metric:
    """accuracy, or the macro average of precision, recall or f1, over class indices."""
    return Metric(confusion(n_classes), CLASS_METRICS[name])


log_loss = Metric(_log_loss_partial, _mean)
mean_squared_error = Metric(_squared_partial, _mean)
mean_absolute_error = Metric(_absolute_partial, _mean)
r2 = Metric(_r2_partial, _r2)

VALUE_METRICS: dict[str, Metric] = {
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2,
}

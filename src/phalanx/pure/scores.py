"""How a network's raw outputs are scored while it trains: accuracy, or R2. Pure."""

from __future__ import annotations

import numpy as np

from phalanx.pure.arrays import Array
from phalanx.pure.metrics import Metric, r2


def _class_hits(class_B: Array, output_BO: Array, weight_B: Array) -> Array:
    right_B = output_BO.argmax(axis=1) == class_B
    return np.array([weight_B @ right_B, weight_B.sum()])


def _label_hits(label_BO: Array, output_BO: Array, weight_B: Array) -> Array:
    """A sample counts where all its labels are right, as in scikit-learn's accuracy."""
    right_B = ((output_BO > 0.5) == (label_BO > 0.5)).all(axis=1)
    return np.array([weight_B @ right_B, weight_B.sum()])


def _certain_hits(label_BO: Array, output_BO: Array, weight_B: Array) -> Array:
    """Of a single class, whatever the output."""
    return np.full(2, weight_B.sum())


def _share(sums: Array) -> float:
    return float(sums[0] / sums[1])


def _finite_r2(sums: Array) -> float:
    return r2.final(sums) if np.isfinite(sums).all() else float("nan")


certain_accuracy = Metric(_certain_hits, _share)
class_accuracy = Metric(_class_hits, _share)
label_accuracy = Metric(_label_hits, _share)
finite_r2 = Metric(r2.partial, _finite_r2)

"""Losses with the output activation that belongs to them. Pure.

A loss sees the last layer feature-major, `z_OB` [outputs, samples]. `link` turns it in place into
predictions; `gradient` returns each sample's loss [B] and turns predictions in place into the
derivative of the loss by `z`. `target` is a class index [B] for `log_loss` over classes, else
values [O, B].

As in scikit-learn, the regression losses are reported as the mean over outputs, while their
gradient is that of the sum over outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.pure import kernels
from phalanx.pure.arrays import Array

HUBER_DELTA = 1.0


@dataclass(frozen=True)
class Loss:
    """One loss, its link, and its derivative."""

    link: Callable[[Array], None]
    gradient: Callable[[Array, Array], Array]
    out_activation: str  # scikit-learn's name of the link
    takes_classes: bool = False


def softmax(z_OB: Array) -> None:
    """exp(z) / sum exp(z) over outputs, in place, shifted by the maximum."""
    kernels.subtract_max(z_OB)
    np.exp(z_OB, out=z_OB)
    kernels.divide_by_sum(z_OB)


def _exp(z_OB: Array) -> None:
    np.exp(z_OB, out=z_OB)


def _class_gradient(p_OB: Array, class_B: Array) -> Array:
    likelihood_B = np.empty(len(class_B), p_OB.dtype)
    kernels.take_classes(p_OB, class_B, likelihood_B)
    least, most = _bounds(p_OB.dtype)
    np.maximum(likelihood_B, least, out=likelihood_B)
    np.minimum(likelihood_B, most, out=likelihood_B)
    np.log(likelihood_B, out=likelihood_B)
    return np.negative(likelihood_B, out=likelihood_B)


def _binary_gradient(p_OB: Array, y_OB: Array) -> Array:
    """Cross entropy summed over outputs: one for two classes, several for several labels."""
    tiny = _tiny(p_OB.dtype)
    clipped = np.clip(p_OB, tiny, 1 - tiny)
    loss_OB = y_OB * np.log(clipped) + (1 - y_OB) * np.log(1 - clipped)
    p_OB -= y_OB
    return np.asarray(-loss_OB.sum(axis=0))


def _squared_gradient(p_OB: Array, y_OB: Array) -> Array:
    p_OB -= y_OB
    return np.asarray(0.5 * np.square(p_OB).mean(axis=0))


def _absolute_gradient(p_OB: Array, y_OB: Array) -> Array:
    p_OB -= y_OB
    loss_B = np.abs(p_OB).mean(axis=0)
    np.sign(p_OB, out=p_OB)
    return np.asarray(loss_B)


def _huber_gradient(p_OB: Array, y_OB: Array) -> Array:
    """0.5 e^2 up to |e| = 1, |e| - 0.5 beyond (Huber 1964)."""
    p_OB -= y_OB
    error_OB = np.abs(p_OB)
    inner_OB = np.minimum(error_OB, HUBER_DELTA)
    np.clip(p_OB, -HUBER_DELTA, HUBER_DELTA, out=p_OB)
    return np.asarray((inner_OB * (error_OB - 0.5 * inner_OB)).mean(axis=0))


def _poisson_gradient(p_OB: Array, y_OB: Array) -> Array:
    """Half the Poisson deviance, y log(y / p) - y + p, summed over outputs."""
    ratio_OB = np.where(y_OB > 0, y_OB / p_OB, 1)  # y log y is 0 at 0
    loss_OB = y_OB * np.log(ratio_OB) - y_OB + p_OB
    p_OB -= y_OB
    return np.asarray(loss_OB.sum(axis=0))


@cache
def _tiny(dtype: np.dtype[np.floating]) -> float:
    """What keeps a likelihood off 0 and 1, as in scikit-learn."""
    return float(np.finfo(dtype).eps)


@cache
def _bounds(dtype: np.dtype[np.floating]) -> tuple[Array, Array]:
    """The least and the most of a likelihood: as arrays, which need not be converted."""
    tiny = _tiny(dtype)
    return np.array(tiny, dtype), np.array(1 - tiny, dtype)


_identity = ACTIVATIONS["identity"].forward
_logistic = ACTIVATIONS["logistic"].forward

LOSSES: dict[str, Loss] = {
    "log_loss": Loss(softmax, _class_gradient, "softmax", takes_classes=True),
    "binary_log_loss": Loss(_logistic, _binary_gradient, "logistic"),
    "squared_error": Loss(_identity, _squared_gradient, "identity"),
    "absolute_error": Loss(_identity, _absolute_gradient, "identity"),
    "huber": Loss(_identity, _huber_gradient, "identity"),
    "poisson": Loss(_exp, _poisson_gradient, "exp"),
}
REGRESSION_LOSSES = ("squared_error", "absolute_error", "huber", "poisson")

"""Losses with the output activation that belongs to them. Pure.

A loss sees the last layer feature-major, `z_OB` [outputs, samples]. `link` turns it in place into
predictions; `per_sample` gives each sample's loss [B]; `delta` turns predictions in place into
the derivative of the loss by `z`, summed over outputs. `target` is a class index [B] for
`log_loss` over classes, else values [O, B].

As in scikit-learn, the regression losses are reported as the mean over outputs, while their
gradient is that of the sum over outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phalanx.arrays import Array
from phalanx.models.mlp.activations import ACTIVATIONS

HUBER_DELTA = 1.0


@dataclass(frozen=True)
class Loss:
    """One loss, its link, and its derivative."""

    link: Callable[[Array], None]
    per_sample: Callable[[Array, Array], Array]
    delta: Callable[[Array, Array], None]
    out_activation: str  # scikit-learn's name of the link
    averages_outputs: bool = False
    takes_classes: bool = False


def softmax(z_OB: Array) -> None:
    """exp(z) / sum exp(z) over outputs, in place, shifted by the maximum."""
    z_OB -= np.maximum.reduce(z_OB, axis=0)
    np.exp(z_OB, out=z_OB)
    z_OB /= np.add.reduce(z_OB, axis=0)


def _exp(z_OB: Array) -> None:
    np.exp(z_OB, out=z_OB)


def _cells(p_OB: Array, class_B: Array) -> Array:
    """Flat index of each sample's own class in the C-ordered [O, B] array."""
    n = p_OB.shape[1]
    return np.asarray(class_B * n + np.arange(n))


def _class_loss(p_OB: Array, class_B: Array) -> Array:
    tiny = np.finfo(p_OB.dtype).eps
    own_B = p_OB.ravel().take(_cells(p_OB, class_B))
    own_B = np.minimum(np.maximum(own_B, tiny, out=own_B), 1 - tiny, out=own_B)
    return np.negative(np.log(own_B, out=own_B), out=own_B)


def _class_delta(p_OB: Array, class_B: Array) -> None:
    p_OB.ravel()[_cells(p_OB, class_B)] -= 1


def _binary_loss(p_OB: Array, y_OB: Array) -> Array:
    """Cross entropy summed over outputs: one for two classes, several for several labels."""
    tiny = np.finfo(p_OB.dtype).eps
    clipped = np.clip(p_OB, tiny, 1 - tiny)
    return np.asarray(-(y_OB * np.log(clipped) + (1 - y_OB) * np.log(1 - clipped)).sum(axis=0))


def _difference(p_OB: Array, y_OB: Array) -> None:
    """The derivative wherever the link is the canonical one of the loss."""
    p_OB -= y_OB


def _squared_loss(p_OB: Array, y_OB: Array) -> Array:
    return np.asarray(0.5 * np.square(y_OB - p_OB).mean(axis=0))


def _absolute_loss(p_OB: Array, y_OB: Array) -> Array:
    return np.asarray(np.abs(y_OB - p_OB).mean(axis=0))


def _absolute_delta(p_OB: Array, y_OB: Array) -> None:
    np.sign(p_OB - y_OB, out=p_OB)


def _huber_loss(p_OB: Array, y_OB: Array) -> Array:
    """0.5 e^2 up to |e| = 1, |e| - 0.5 beyond (Huber 1964)."""
    error = np.abs(y_OB - p_OB)
    inner = np.minimum(error, HUBER_DELTA)
    return np.asarray((inner * (error - 0.5 * inner)).mean(axis=0))


def _huber_delta(p_OB: Array, y_OB: Array) -> None:
    p_OB -= y_OB
    np.clip(p_OB, -HUBER_DELTA, HUBER_DELTA, out=p_OB)


def _poisson_loss(p_OB: Array, y_OB: Array) -> Array:
    """Half the Poisson deviance, y log(y / p) - y + p, summed over outputs."""
    from scipy.special import xlogy

    return np.asarray((xlogy(y_OB, y_OB / p_OB) - y_OB + p_OB).sum(axis=0))


_identity = ACTIVATIONS["identity"].forward
_logistic = ACTIVATIONS["logistic"].forward

LOSSES: dict[str, Loss] = {
    "log_loss": Loss(softmax, _class_loss, _class_delta, "softmax", takes_classes=True),
    "binary_log_loss": Loss(_logistic, _binary_loss, _difference, "logistic"),
    "squared_error": Loss(_identity, _squared_loss, _difference, "identity", averages_outputs=True),
    "absolute_error": Loss(
        _identity, _absolute_loss, _absolute_delta, "identity", averages_outputs=True
    ),
    "huber": Loss(_identity, _huber_loss, _huber_delta, "identity", averages_outputs=True),
    "poisson": Loss(_exp, _poisson_loss, _difference, "exp"),
}
REGRESSION_LOSSES = ("squared_error", "absolute_error", "huber", "poisson")

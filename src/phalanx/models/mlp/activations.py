"""Activations of hidden layers, in place, with their derivatives. Pure.

`forward(z)` overwrites pre-activations with activations. `backward(a, delta)` multiplies `delta`
by the derivative. Where the derivative cannot be told from the activation, `keeps_input` is true
and `backward` receives the pre-activations instead. All arrays are of one shape and dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np

from phalanx.pure import kernels
from phalanx.pure.arrays import Array

LEAK = 0.01
ELU_ALPHA = 1.0


@dataclass(frozen=True)
class Activation:
    """A function of one real variable and its derivative."""

    forward: Callable[[Array], None]
    backward: Callable[[Array, Array], None]
    keeps_input: bool = False


def _sigmoid(z: Array, out: Array | None = None) -> Array:
    """1 / (1 + exp(-z)); an overflow of the exponential gives the limit, 0."""
    out = np.negative(z, out=out)
    np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)


def _nothing(*arrays: Array) -> None:
    """The identity and its derivative."""


def _logistic(z: Array) -> None:
    _sigmoid(z, out=z)


def _logistic_backward(a: Array, delta: Array) -> None:
    delta *= a
    delta *= 1 - a


def _tanh(z: Array) -> None:
    np.tanh(z, out=z)


def _tanh_backward(a: Array, delta: Array) -> None:
    delta *= 1 - a * a


def _relu(z: Array) -> None:
    kernels.relu(z)


def _relu_backward(a: Array, delta: Array) -> None:
    kernels.relu_backward(delta, a)


def _leaky_relu(z: Array) -> None:
    np.maximum(z, LEAK * z, out=z)


def _leaky_relu_backward(a: Array, delta: Array) -> None:
    np.multiply(delta, LEAK, out=delta, where=a <= 0)


def _elu(z: Array) -> None:
    np.maximum(z, ELU_ALPHA * np.expm1(np.minimum(z, 0)), out=z)


def _elu_backward(a: Array, delta: Array) -> None:
    delta *= np.minimum(a + ELU_ALPHA, 1)


def _normal_cdf(z: Array) -> Array:
    from scipy.special import ndtr  # 60 ms to import, and no other activation needs it

    return np.asarray(ndtr(z))


def _gelu(z: Array) -> None:
    z *= _normal_cdf(z)


def _gelu_backward(z: Array, delta: Array) -> None:
    """Phi(z) + z phi(z): the exact form of Hendrycks & Gimpel (2016), not the tanh one."""
    density = np.exp(-0.5 * z * z) / sqrt(2 * pi)
    delta *= _normal_cdf(z) + z * density


def _silu(z: Array) -> None:
    z *= _sigmoid(z)


def _silu_backward(z: Array, delta: Array) -> None:
    s = _sigmoid(z)
    delta *= s * (1 + z * (1 - s))


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(_nothing, _nothing),
    "logistic": Activation(_logistic, _logistic_backward),
    "sigmoid": Activation(_logistic, _logistic_backward),
    "tanh": Activation(_tanh, _tanh_backward),
    "relu": Activation(_relu, _relu_backward),
    "leaky_relu": Activation(_leaky_relu, _leaky_relu_backward),
    "elu": Activation(_elu, _elu_backward),
    "gelu": Activation(_gelu, _gelu_backward, keeps_input=True),
    "silu": Activation(_silu, _silu_backward, keeps_input=True),
}

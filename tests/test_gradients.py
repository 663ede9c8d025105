"""Every activation with every loss: against finite differences, and against torch's autograd."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from phalanx.data.samples import Rows
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.models.mlp.losses import LOSSES
from phalanx.pure.randomness import Key

RNG = np.random.default_rng(3)
ROWS, FEATURES, HIDDEN, OUTPUTS = 7, 5, (6, 4), 3
X = RNG.normal(size=(ROWS, FEATURES))
WEIGHT = RNG.random(ROWS) + 0.1
AVERAGED = {"squared_error", "absolute_error", "huber"}

TORCH_ACTIVATION = {
    "identity": lambda z: z,
    "logistic": torch.sigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda z: functional.leaky_relu(z, 0.01),
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}
TORCH_LOSS = {
    "log_loss": lambda z, y: functional.cross_entropy(z, y, reduction="none"),
    "binary_log_loss": lambda z, y: functional.binary_cross_entropy_with_logits(
        z, y, reduction="none"
    ).sum(1),
    "squared_error": lambda z, y: 0.5 * ((z - y) ** 2).sum(1),
    "absolute_error": lambda z, y: (z - y).abs().sum(1),
    "huber": lambda z, y: functional.huber_loss(z, y, reduction="none").sum(1),
    "poisson": lambda z, y: (torch.xlogy(y, y) - y * z - y + z.exp()).sum(1),
}

grid = pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
losses = pytest.mark.parametrize("loss", sorted(LOSSES))


def target_of(loss):
    if loss == "log_loss":
        return RNG.integers(0, OUTPUTS, ROWS)
    if loss == "binary_log_loss":
        return RNG.integers(0, 2, (ROWS, OUTPUTS)).astype(float)
    return RNG.poisson(3, (ROWS, OUTPUTS)) + 0.5 * (loss != "poisson")


def problem(activation, loss, weight=None, dropout=0.0):
    spec = MLPSpec((FEATURES, *HIDDEN, OUTPUTS), activation, loss, "float64", dropout)
    params = RNG.normal(size=spec.n_parameters) * 0.5
    y = target_of(loss)
    rows = Rows(X, ROWS, weight_B=weight)
    if loss == "log_loss":
        rows.classes_B = y
    else:
        rows.target_OB = np.ascontiguousarray(y.T)
    return spec, params, rows, y


def objective(spec, params, rows, loss, key=None):
    """What the gradient is the gradient of: for averaged losses, the sum over outputs."""
    total, weight = spec.build(params).gradient(rows, np.empty(spec.n_parameters), key)
    return total / weight * (OUTPUTS if loss in AVERAGED else 1)


def gradient(spec, params, rows, key=None):
    grad = np.empty(spec.n_parameters)
    spec.build(params).gradient(rows, grad, key)
    return grad


def finite_differences(function, params, h=1e-6):
    grad = np.empty_like(params)
    for i in range(len(params)):
        step = np.zeros_like(params)
        step[i] = h
        grad[i] = (function(params + step) - function(params - step)) / (2 * h)
    return grad


@grid
@losses
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_against_finite_differences(activation, loss, weight):
    spec, params, rows, _ = problem(activation, loss, weight)
    expected = finite_differences(lambda p: objective(spec, p, rows, loss), params)
    np.testing.assert_allclose(gradient(spec, params, rows), expected, rtol=2e-6, atol=2e-8)


@grid
@losses
def test_against_autograd(activation, loss):
    spec, params, rows, y = problem(activation, loss)
    flat = torch.tensor(params, requires_grad=True)
    views = [
        flat[start:stop].reshape(shape)
        for (start, stop), shape in zip(spec.layout.bounds, spec.layout.shapes, strict=True)
    ]
    weights, biases = views[:3], views[3:]
    z = torch.tensor(X)
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        z = z @ weight.T + bias
        z = TORCH_ACTIVATION[activation](z) if i < 2 else z
    value = TORCH_LOSS[loss](z, torch.tensor(y)).mean()
    value.backward()
    np.testing.assert_allclose(
        gradient(spec, params, rows), flat.grad.numpy(), rtol=1e-9, atol=1e-12
    )
    assert objective(spec, params, rows, loss) == pytest.approx(value.item(), rel=1e-9)


@grid
def test_with_dropout_against_finite_differences(activation):
    spec, params, rows, _ = problem(activation, "log_loss", dropout=0.4)

    def value(p):
        return objective(spec, p, rows, "log_loss", Key(1, 2, 3))

    expected = finite_differences(value, params)
    grad = gradient(spec, params, rows, Key(1, 2, 3))
    np.testing.assert_allclose(grad, expected, rtol=2e-6, atol=2e-8)
    assert not np.allclose(grad, gradient(spec, params, rows, Key(1, 2, 4)))


def test_samples_of_no_weight_at_all_give_no_gradient():
    spec, params, rows, _ = problem("tanh", "log_loss", np.zeros(ROWS))
    assert not gradient(spec, params, rows).any()

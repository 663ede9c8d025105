"""Keras' Adam by torch's fused kernel, which reads and writes each number once.

Keras passes over a block a dozen times. The two rules are one, but for where the correction of the
second moment stands: with c_k = sqrt(1 - beta_2^k),

    Keras:  p -= lr  c_k / (1 - beta_1^k)  m / (sqrt(v) + eps)
    torch:  p -= lr'     / (1 - beta_1^k)  m / (sqrt(v) / c_k + eps')

(Kingma and Ba, arXiv 1412.6980, before and after its section 2's last remark), the same for
lr' = lr and eps' = eps / c_k. Keras computes c_k and beta_1^k in the variable's type, where they
may be wrong in the fifth digit in the first steps; lr' makes up for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch

from phalanx.models.pytorch.tracing import lent

DECOUPLED = ("Adam", "AdamW")  # of Keras' own: both take the decay of weights off the parameter
SLOTS = ("_momentums", "_velocities")
SCALARS = ("_iterations",)
FLOATS = (torch.float32, torch.float64)
TRIAL_COUNT, TRIAL_RATE = 2, 0.5
AGREED = 1e-5  # of a large step from moments of about one: the two differ in the seventh digit


class FusedAdam:
    """The kernel with the settings of a Keras optimiser, for variables of one floating type."""

    def __init__(self, optimizer: Any, dtype: torch.dtype) -> None:
        self._beta_1, self._beta_2 = float(optimizer.beta_1), float(optimizer.beta_2)
        self._epsilon, self._decay = float(optimizer.epsilon), float(optimizer.weight_decay or 0)
        self._count = torch.zeros((), dtype=torch.float32, device="cpu")
        self._betas = torch.tensor([self._beta_1, self._beta_2], dtype=dtype, device="cpu")
        self._key: tuple[float, float] | None = None
        self._settings: dict[str, Any] = {}

    def update(
        self, tensors: Sequence[torch.Tensor], grad: torch.Tensor, count: float, rate: float
    ) -> None:
        """One step of (parameter, first moment, second moment), in place, after `count` others."""
        if self._key != (count, rate):
            self._key, self._settings = (count, rate), self._of_step(count + 1, rate)
        param, first, second = tensors
        self._count.fill_(count + 1)
        torch._fused_adamw_([param], [grad], [first], [second], [], [self._count], **self._settings)

    def _of_step(self, k: float, rate: float) -> dict[str, Any]:
        correction = sqrt(1 - self._beta_2**k)
        factor = self._keras_correction(k) * (1 - self._beta_1**k) / correction
        return {
            "lr": rate * factor,
            "beta1": self._beta_1,
            "beta2": self._beta_2,
            "weight_decay": self._decay / factor,
            "eps": self._epsilon / correction,
            "amsgrad": False,
            "maximize": False,
        }

    def _keras_correction(self, k: float) -> float:
        """c_k / (1 - beta_1^k) as Keras computes it."""
        powers = torch.pow(self._betas, torch.full_like(self._betas, k))
        one, two = (1 - powers).tolist()
        return sqrt(two) / float(one)


def fused_adam(machine: Any, name: str, slots: Sequence[str], scalars: Sequence[str]) -> Any:
    """The kernel for a machine (optimizers.py) whose optimiser Keras calls by that name; None where
    there is none, or where a trial shows that it does not compute what Keras does."""
    is_adam = name in DECOUPLED and tuple(slots) == SLOTS and tuple(scalars) == SCALARS
    dtype = machine.variable._value.dtype
    if not is_adam or dtype not in FLOATS or machine.optimizer.loss_scale_factor is not None:
        return None
    try:
        fused = FusedAdam(machine.optimizer, dtype)
        return fused if _agrees(machine, fused) else None
    except (TypeError, RuntimeError, AttributeError, ArithmeticError, ValueError):
        return None  # the kernels are no public part of torch, whose next version may differ


def _agrees(machine: Any, fused: FusedAdam) -> bool:
    """Whether a third step from some values is the same either way."""
    generator, like = torch.Generator("cpu").manual_seed(0), machine.variable._value
    *start, grad = (
        torch.rand(like.shape, generator=generator, dtype=like.dtype, device="cpu")
        for _ in range(4)
    )
    mine = [value.clone() for value in start]
    fused.update(mine, grad.clone(), TRIAL_COUNT, TRIAL_RATE)
    variables = [machine.variable, *machine.slots, *machine.scalars, machine.rate]
    tensors = [variable._value for variable in variables]
    with lent(tensors):
        for tensor in tensors:
            tensor.data = tensor.data.clone()
        *theirs, count, rate = tensors
        for tensor, value in zip(theirs, start, strict=True):
            tensor.copy_(value)
        count.fill_(TRIAL_COUNT)
        rate.fill_(TRIAL_RATE)
        machine.by_keras(grad)
        return all(
            torch.allclose(one, other, AGREED, AGREED)
            for one, other in zip(mine, theirs, strict=True)
        )

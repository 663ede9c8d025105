"""What a module is trained for: a step from a batch to a loss, and measures of its outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from phalanx.errors import UserFunctionError
from phalanx.models.pytorch.parameters import parameters_of
from phalanx.models.pytorch.weighing import weight_of
from phalanx.pure.registry import name_of

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "nll": functional.nll_loss,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "huber": functional.huber_loss,
    "smooth_l1": functional.smooth_l1_loss,
    "bce": functional.binary_cross_entropy,
    "bce_with_logits": functional.binary_cross_entropy_with_logits,
    "poisson_nll": functional.poisson_nll_loss,
    "kl_div": functional.kl_div,
}


def accuracy(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 for each sample whose class is right: the largest of several outputs, or the sign of one
    logit. [B]"""
    check_tensors("accuracy", outputs, target)
    if outputs.ndim > 1 and outputs.shape[1] > 1:
        classes = outputs.argmax(dim=1)
        right = classes == alike(target, classes, "accuracy", (outputs, target))
    else:
        logits = outputs.reshape(len(outputs), -1)
        flat = target.reshape(len(target), -1)
        right = (logits > 0) == (alike(flat, logits, "accuracy", (outputs, target)) > 0.5)
    return right.reshape(len(right), -1).float().mean(dim=1)


def squared_error(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Each sample's mean squared error. [B]"""
    check_tensors("mse", outputs, target)
    errors = outputs - alike(target, outputs, "mse", (outputs, target))
    return errors.reshape(len(outputs), -1).square().mean(dim=1)


def absolute_error(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Each sample's mean absolute error. [B]"""
    check_tensors("mae", outputs, target)
    errors = outputs - alike(target, outputs, "mae", (outputs, target))
    return errors.reshape(len(outputs), -1).abs().mean(dim=1)


def check_tensors(name: str, outputs: Any, target: Any) -> None:
    """Raise UserFunctionError unless both are tensors."""
    for what, value in (("outputs", outputs), ("target", target)):
        if not isinstance(value, torch.Tensor):
            raise UserFunctionError(
                f"the metric {name!r} compares outputs with a target, a tensor each; got "
                f"{described(value)} as {what}. Pass a function (outputs, target) -> [B] that "
                "takes what it needs of them."
            )


def alike(
    target: torch.Tensor, other: torch.Tensor, name: str, given: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """The target in the shape of what it is compared with, where a last axis of one is all that
    they differ by. Raises UserFunctionError otherwise: torch would repeat one along the other."""
    shape, wanted = tuple(target.shape), tuple(other.shape)
    if shape == wanted:
        return target
    if shape in ((*wanted, 1), wanted[:-1] if wanted[-1:] == (1,) else None):
        return target.reshape(wanted)
    outputs_shape, target_shape = (tuple(part.shape) for part in given)
    raise UserFunctionError(
        f"the metric {name!r} compares each output with a target of its own; got outputs of shape "
        f"{outputs_shape} and a target of shape {target_shape}. Give them one shape (for accuracy, "
        "outputs are scores of classes along axis 1, and a target is the number of one class: not "
        "several labels, no one-hot row), or pass a function (outputs, target) -> [B]."
    )


METRICS: dict[str, Callable[..., torch.Tensor]] = {
    "accuracy": accuracy,
    "mse": squared_error,
    "mae": absolute_error,
}


@dataclass(frozen=True)
class Objective:
    """loss: `(outputs, target) -> mean loss`. step: `(module, batch) -> mean loss`, or that and
    the weight of the mean, instead of `loss(module(x), y)`. metrics: `(outputs, target) -> [B]`.
    """

    loss: Callable[..., Any] | None
    step: Callable[..., Any] | None
    metrics: dict[str, Callable[..., Any]]

    def of_batch(self, module: Any, content: Any, count: int) -> tuple[torch.Tensor, float]:
        """The mean loss of a batch of `count` samples, and what it weighs among others; zero, if
        that is nothing."""
        if self.step is not None:
            made = self.step(module, content)
            is_pair = isinstance(made, tuple) and len(made) == 2
            loss, weight = made if is_pair else (made, count)
            loss, weight = checked_loss(loss, self.step), checked_weight(weight, self.step)
            return (_nothing(module, loss) if weight == 0.0 else loss), weight
        outputs, target = outputs_of(module, content)
        weight = weight_of(self.loss, target, count)
        return self._mean_loss(outputs, target, weight), weight

    def mean_loss(self, module: Any, content: Any) -> torch.Tensor:
        """torch's mean loss of a batch, whose targets are not looked at: for a tape, which holds
        no question about values."""
        return self._loss(*outputs_of(module, content))

    def _mean_loss(self, outputs: Any, target: Any, weight: float) -> torch.Tensor:
        if weight == 0.0:  # of no target, torch's mean is 0 / 0
            nothing: torch.Tensor = outputs[:0].sum()
            return nothing
        return self._loss(outputs, target)

    def _loss(self, outputs: Any, target: Any) -> torch.Tensor:
        assert self.loss is not None
        return checked_loss(self.loss(outputs, target), self.loss)

    def measures(self, module: Any, content: Any, count: int) -> list[float]:
        """Sums for a validation chunk: of loss, weight and samples, then of each metric."""
        if self.step is not None:
            loss, weight = self.of_batch(module, content, count)
            return [float(loss) * weight, weight, float(count)]
        outputs, target = outputs_of(module, content)
        weight = weight_of(self.loss, target, count)
        loss = self._mean_loss(outputs, target, weight)
        sums = [float(loss) * weight, weight, float(count)]
        for name, metric in self.metrics.items():
            sums.append(float(checked_metric(metric(outputs, target), name, count).double().sum()))
        return sums


def _nothing(module: Any, loss: torch.Tensor) -> torch.Tensor:
    """A loss of zero, with a gradient of zero: of no sample that counts, a mean is 0 / 0."""
    parts = [param.reshape(-1)[:0].sum() for param in parameters_of(module) if param.requires_grad]
    nothing: torch.Tensor = sum(parts, torch.zeros_like(loss))
    return nothing.to(loss.dtype)


def outputs_of(module: Any, content: Any) -> tuple[Any, Any]:
    """The module's outputs for a batch (inputs..., target), and the target."""
    if isinstance(content, (tuple, list)) and len(content) >= 2:
        *inputs, target = content
        return called(module, inputs[0] if len(inputs) == 1 else tuple(inputs)), target
    raise UserFunctionError(
        "a batch must be (inputs, target), or (input, input, ..., target); got "
        f"{described(content)}. Pass step=, a function (module, batch) -> loss, for any other kind."
    )


def called(module: Any, inputs: Any) -> Any:
    """module(*inputs) for a tuple, module(**inputs) for a dict, else module(inputs)."""
    if isinstance(inputs, dict):
        return module(**inputs)
    is_several = isinstance(inputs, (tuple, list)) and not isinstance(inputs, PackedSequence)
    return module(*inputs) if is_several else module(inputs)


def checked_loss(loss: Any, function: Any) -> torch.Tensor:
    """Raise UserFunctionError unless it is one floating-point number."""
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise UserFunctionError(
            "a loss must be a tensor of one floating-point number, the mean over the samples; "
            f"{name_of(function)} returned {described(loss)}. Use e.g. "
            "reduction='mean', or .mean()."
        )
    return loss.reshape(())


def checked_weight(weight: Any, step: Any) -> float:
    """Raise UserFunctionError for what is no number."""
    try:
        return float(weight)
    except (TypeError, ValueError, RuntimeError):
        raise UserFunctionError(
            "a step must return the mean loss, or (mean loss, weight), where the weight is a "
            f"number, such as that of the tokens; {name_of(step)} returned {described(weight)} "
            "beside the loss. Return the loss alone; other figures can be had by phalanx.evaluate."
        ) from None


def checked_metric(values: Any, name: str, count: int) -> torch.Tensor:
    """Raise UserFunctionError unless there is one value a sample."""
    if not isinstance(values, torch.Tensor) or values.shape != (count,):
        raise UserFunctionError(
            f"a metric must return one value a sample, a tensor of shape [{count}] for {count} "
            f"samples, so that it can be averaged exactly; {name!r} returned {described(values)}. "
            "Leave out the final mean."
        )
    return values


def described(value: Any) -> str:
    """A value's kind, in a few words."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, (tuple, list)):
        kinds = ", ".join(type(part).__name__ for part in value[:4])
        return f"a {type(value).__name__} of {len(value)} ({kinds}{', ...' * (len(value) > 4)})"
    return f"a {type(value).__name__}"

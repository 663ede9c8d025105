"""What a tape may stand for: modules and losses of which all code is torch's own.

A user's `forward` may count its calls, or read an attribute that a callback changes; a tape would
hold what it was. Keras' models have no such freedom with the backends that compile them.
"""

from __future__ import annotations

from typing import Any

import torch

from phalanx.models.pytorch.batches import Batch
from phalanx.models.pytorch.objective import LOSSES, Objective
from phalanx.models.pytorch.settings import Settings
from phalanx.pure.arrays import Array

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip


def example_of(
    module: torch.nn.Module, objective: Objective, settings: Settings, batch: Batch
) -> list[Array] | None:
    """The leaves of a few samples, of which a tape can be recorded; None where it may not be."""
    is_plain = settings.device == "cpu" and settings.precision == "float32"
    if not (is_plain and _is_loss(objective) and _is_torchs(module)):
        return None
    content = batch.content
    if isinstance(content, (tuple, list)) and all(_is_leaf(part, batch.count) for part in content):
        return [part.numpy().copy() for part in content]
    return None


def _is_leaf(part: Any, count: int) -> bool:
    """Whether it is a plain tensor with a row a sample, of a dtype that NumPy knows."""
    if type(part) is not torch.Tensor or part.layout is not torch.strided or part.requires_grad:
        return False
    return part.ndim > 0 and len(part) == count and part.dtype is not torch.bfloat16


def _is_loss(objective: Objective) -> bool:
    loss: Any = objective.loss
    is_module = isinstance(loss, torch.nn.Module) and _is_torchs(loss)
    return objective.step is None and (loss in LOSSES.values() or is_module)


def _is_torchs(module: torch.nn.Module) -> bool:
    """Whether all parts are torch's own, have no hooks and keep nothing but parameters."""
    has_buffers = next(module.buffers(), None) is not None
    return not has_buffers and all(
        type(part).__module__.startswith("torch.nn.modules.")
        and all(map(_is_data_or_torchs, vars(part).values()))
        and not any(getattr(part, name) for name in HOOKS)
        for part in module.modules()
    )


def _is_data_or_torchs(value: Any) -> bool:
    """Whether an attribute is no function of the user's, such as an activation."""
    origin = getattr(value, "__module__", None) or "torch"  # torch's own in C have none
    return not callable(value) or origin.startswith("torch")

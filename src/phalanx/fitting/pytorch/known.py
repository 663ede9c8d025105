"""What a tape may stand for: modules and losses of which all code is torch's own, or straight
(straight.py).

Any other `forward` may count its calls, or ask for numbers; a tape would hold what they were.
Keras' models have no such freedom with the backends that compile them.
"""

from __future__ import annotations

from typing import Any

import torch

from phalanx.fitting.pytorch.straight import (
    is_data_or_torchs,
    is_straight,
    is_straight_function,
)
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
    if not (is_plain and _is_loss(objective) and _is_known(module)):
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
    if objective.step is not None:
        return False
    if isinstance(loss, torch.nn.Module):
        return _is_known(loss)
    return loss in LOSSES.values() or is_straight_function(loss)


def _is_known(module: torch.nn.Module) -> bool:
    """Whether all parts are torch's own or straight, have no hooks and keep nothing but
    parameters."""
    parts = list(module.modules())
    has_buffers = next(module.buffers(), None) is not None
    has_hooks = any(getattr(part, name) for part in parts for name in HOOKS)
    if has_buffers or has_hooks:
        return False
    return all(_is_torchs(part) or is_straight(part, parts) for part in parts)


def _is_torchs(part: torch.nn.Module) -> bool:
    is_own = type(part).__module__.startswith("torch.nn.modules.")
    return is_own and all(map(is_data_or_torchs, vars(part).values()))

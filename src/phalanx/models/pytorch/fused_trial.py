"""Whether a fused kernel, called directly, does what `step` does, found by trying."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from phalanx.models.pytorch.fused import KERNELS, Direct
from phalanx.models.pytorch.optimizers import bare

TRIAL = 67  # elements: full vectors and a rest
KNOWN = {  # slots and scalars that the kernels take
    (("exp_avg", "exp_avg_sq"), (("step", "float32"),)),
    (("momentum_buffer",), ()),
    ((), ()),
}
BESIDES = ("grad_scale", "found_inf")  # what `step` heeds besides
Scalars = tuple[tuple[str, str], ...]


def is_direct(
    optimizer: Any, groups: list[dict[str, Any]], slots: tuple[str, ...], scalars: Scalars
) -> bool:
    """Whether the kernel may be called in place of `step` for all groups of an optimiser."""
    if type(optimizer) not in KERNELS or (slots, scalars) not in KNOWN:
        return False
    if any(getattr(optimizer, name, None) for name in BESIDES):
        return False
    try:
        return all(_is_plain(group) and _agrees(optimizer, group, slots) for group in groups)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError):
        return False  # the kernels are no public part of torch, whose next version may differ


def _is_plain(group: dict[str, Any]) -> bool:
    """Whether a group is computed by the fused kernel, its settings being plain numbers."""
    values = [*group.values(), *group.get("betas", ())]
    return bool(group["fused"]) and not any(isinstance(value, torch.Tensor) for value in values)


def _agrees(optimizer: Any, group: dict[str, Any], slots: tuple[str, ...]) -> bool:
    """Whether a second step gives the same bits either way."""
    generator = torch.Generator().manual_seed(0)
    start, *grads = (torch.randn(TRIAL, generator=generator) for _ in range(3))
    param = torch.nn.Parameter(start, requires_grad=False)
    trial = bare(type(optimizer), optimizer.__dict__, [{**group, "params": [param]}])
    param.grad = grads[0]
    trial.step()
    theirs = [param, *(trial.state[param][name] for name in slots)]
    mine = [tensor.detach().clone() for tensor in theirs]
    direct = Direct(type(optimizer), mine[0], mine[1:])
    direct.take_settings(group)
    direct.update(grads[1].numpy(), np.ones(2), np.zeros(2))
    param.grad = grads[1]
    trial.step()
    return all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))

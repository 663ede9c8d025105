"""torch's fused kernels, called directly.

On the way from `optimizer.step()` to the kernel torch spends 40 microseconds; the kernel takes 5 to
40 for a block. The direct call is for torch's own classes, where a trial (fused_trial.py) shows
that it gives the same bits as `step` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from phalanx.pure.arrays import Array

Kernel = Callable[[torch.Tensor], None]  # changes a block and its state by a gradient


class Direct:
    """The kernel over one block whose state has begun. is_ready: whether it can do what the present
    settings ask for."""

    def __init__(self, kind: type, param: torch.Tensor, rows: Sequence[torch.Tensor]) -> None:
        self._make = KERNELS[kind]
        self._param, self._rows = param, rows
        self._count = np.zeros((), np.float32)  # steps, as Adam keeps them
        self._step = torch.from_numpy(self._count)
        self._kernel: Kernel | None = None

    @property
    def is_ready(self) -> bool:
        return self._kernel is not None

    def take_settings(self, group: dict[str, Any]) -> None:
        """Go by the settings of a group from now on."""
        self._kernel = self._make(self._param, self._rows, self._step, group)

    def update(self, grad_n: Array, before_C: Array, after_C: Array) -> None:
        """One step of the block; its scalars are (begun, number of steps) or (begun,)."""
        assert self._kernel is not None
        after_C[0] = before_C[0]
        if len(after_C) > 1:
            after_C[1] = self._count[...] = before_C[1] + 1
        self._kernel(torch.from_numpy(grad_n))


def _adam(
    param: torch.Tensor, rows: Sequence[torch.Tensor], step: torch.Tensor, group: dict[str, Any]
) -> Kernel:
    """Adam and AdamW without amsgrad."""
    kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    (first, second), betas = rows, group["betas"]
    settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "maximize")}
    settings |= {"amsgrad": False, "beta1": betas[0], "beta2": betas[1]}

    def update(grad: torch.Tensor) -> None:
        kernel([param], [grad], [first], [second], [], [step], **settings)

    return update


def _sgd(
    param: torch.Tensor, rows: Sequence[torch.Tensor], step: torch.Tensor, group: dict[str, Any]
) -> Kernel | None:
    """SGD, with momentum or without; None where there is momentum of a sudden."""
    if group["momentum"] and not rows:
        return None
    names = ("lr", "weight_decay", "momentum", "dampening", "nesterov", "maximize")
    settings = {name: group[name] for name in names} | {"is_first_step": False}
    buffers = list(rows) if group["momentum"] else []

    def update(grad: torch.Tensor) -> None:
        torch._fused_sgd_([param], [grad], buffers, **settings)

    return update


KERNELS: dict[type, Callable[..., Kernel | None]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.SGD: _sgd,
}

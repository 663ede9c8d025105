"""How torch is to compute in whichever process a module is computed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch

from phalanx.models.pytorch.switches import Changed, set_switches
from phalanx.pure.arrays import Array
from phalanx.pure.factors import Multiply
from phalanx.pure.factors import multiply as numpy_multiply


@dataclass(frozen=True)
class Settings:
    """What a process is to have set like the caller's. device: where the module computes.
    switches: those of torch that are not as in a new process (switches.py)."""

    default_dtype: str
    matmul_precision: str
    precision: str
    device: str
    switches: Changed = field(default=(), repr=False)

    def apply(self) -> None:
        """Set it, in a process of a worker."""
        torch.set_default_dtype(getattr(torch, self.default_dtype))
        set_switches(self.device, self.matmul_precision, self.switches)

    @property
    def multiply(self) -> Multiply:
        """By torch's BLAS, which the model's layers use, too; by NumPy's where torch would round
        what it multiplies."""
        return torch_multiply if self.matmul_precision == "highest" else numpy_multiply

    def autocast(self) -> Any:
        """Within it, operations that gain by it compute in bfloat16, where that is wanted. It keeps
        no casts: they are forgotten at the end of the outermost autocast alone (see as_guest)."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False)


def torch_multiply(left_RC: Array, right: Array, out: Array) -> None:
    """See pure/factors.py, Multiply."""
    left, into = torch.from_numpy(left_RC), torch.from_numpy(out)
    torch.matmul(left, torch.from_numpy(right), out=into)

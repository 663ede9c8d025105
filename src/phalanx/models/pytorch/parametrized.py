"""Pickles of parametrized modules (weight_norm, orthogonal, spectral_norm ...).

`torch.nn.utils.parametrize` gives such a module a class of its own, made on the spot, which says
no to pickle. So it travels as its first class, the names of what is parametrized, and its state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parametrize


def reduced(part: Any) -> tuple[Any, ...] | None:
    """What pickle's `__reduce__` would return for a parametrized module; None for all else."""
    if not (isinstance(part, torch.nn.Module) and parametrize.is_parametrized(part)):
        return None
    first, own = type(part).__mro__[1], type(part)
    names = tuple(part.parametrizations)  # type: ignore[arg-type]
    return _shell, (first, names), super(own, part).__getstate__()


def _shell(kind: type[torch.nn.Module], names: tuple[str, ...]) -> torch.nn.Module:
    """A module that computes these attributes, of a state that it is given afterwards."""
    shell = kind.__new__(kind)
    torch.nn.Module.__init__(shell)
    for name in names:
        shell.register_parameter(name, torch.nn.Parameter(torch.empty(0)))
        parametrize.register_parametrization(shell, name, torch.nn.Identity())
    return shell

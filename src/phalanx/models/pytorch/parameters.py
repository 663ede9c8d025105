"""All parameters of a module, in one order wherever they are counted.

A class of the user's may override `parameters()` to name some alone, those of a head or an adapter,
which is what an optimiser by name is then over.
"""

from __future__ import annotations

import torch

Named = list[tuple[str, torch.nn.Parameter]]


def named_parameters_of(module: torch.nn.Module) -> Named:
    """With their names, each once."""
    return list(torch.nn.Module.named_parameters(module))


def parameters_of(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Without them."""
    return [param for _, param in named_parameters_of(module)]

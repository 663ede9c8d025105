"""Sequences of which some steps are masked, for a loop over all steps.

The steps that count are moved to the front of each sequence, since what comes behind them changes
nothing of what they put out. Then each step has the output of the last one that counted by then, or
zeros, as Keras has it.
"""

from __future__ import annotations

import torch


def to_front(sequences_BTF: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """The steps that count, in their order, before those that are masked."""
    order_BT = (~mask_BT).byte().argsort(dim=1, stable=True)
    return _taken(sequences_BTF, order_BT)


def to_their_places(
    outputs_BTU: torch.Tensor, mask_BT: torch.Tensor, zero_at_masked: bool
) -> torch.Tensor:
    """Outputs of sequences whose steps are in front, at the steps that they belong to.

    zero_at_masked: masked steps put out zeros, not what came before them.
    """
    counted_BT = mask_BT.cumsum(dim=1)
    is_there_BT = mask_BT if zero_at_masked else counted_BT > 0
    outputs_BTU = _taken(outputs_BTU, (counted_BT - 1).clamp(min=0))
    return torch.where(is_there_BT.unsqueeze(-1), outputs_BTU, torch.zeros_like(outputs_BTU))


def _taken(rows_BTX: torch.Tensor, places_BT: torch.Tensor) -> torch.Tensor:
    """Of each sequence the steps at these places."""
    return rows_BTX.gather(1, places_BT.unsqueeze(-1).expand(-1, -1, rows_BTX.shape[-1]))

"""torch modules of deep.py that have a class of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RowReader(nn.Module):
    """An LSTM over the rows of an image, and a linear layer on its last output."""

    def __init__(self, n_columns: int, n_units: int, n_classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n_columns, n_units, batch_first=True)
        self.head = nn.Linear(n_units, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        outputs, _ = self.lstm(images)
        scores: Tensor = self.head(outputs[:, -1])
        return scores


def seeded() -> None:
    """The same network for everybody."""
    torch.manual_seed(0)

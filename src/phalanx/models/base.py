"""What the engine asks of a model: a flat layout, gradients of shards, predictions.

A `ModelSpec` is a small picklable description. `build` turns it, inside a worker, into a `Model`
whose parameters are views into the arena. The first `n_decayed` parameters are those that the
L2 penalty shrinks.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from phalanx.arrays import Array
from phalanx.data.samples import Rows


class Model(Protocol):
    """A network bound to one parameter vector."""

    def gradient(
        self, rows: Rows, grad_N: Array, rng: np.random.Generator | None
    ) -> tuple[float, float]:
        """Write the mean gradient over `rows`; return (sum of weighted losses, sum of weights)."""

    def outputs(self, rows: Rows) -> Array:
        """Predictions [rows, O], a view that the next call overwrites."""


class ModelSpec(Protocol):
    """A model's description."""

    @property
    def n_parameters(self) -> int:
        """N."""

    @property
    def n_decayed(self) -> int:
        """How many of the first parameters carry the L2 penalty."""

    @property
    def n_outputs(self) -> int:
        """O."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of parameters, gradients and optimiser state."""

    @property
    def draws(self) -> bool:
        """Whether `gradient` needs random numbers (dropout)."""

    def build(self, params_N: Array) -> Model:
        """The model over `params_N`, which it reads and never writes."""

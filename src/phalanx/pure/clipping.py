"""Gradient clipping: by the norm of the whole gradient, or by value. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from phalanx.pure.arrays import Array


@dataclass(frozen=True)
class Clip:
    """norm: the gradient is scaled down to at most this L2 norm (Pascanu et al., ICML 2013).
    value: each coordinate is cut to [-value, value]. epsilon: added to the norm, as PyTorch does.
    """

    norm: float | None = None
    value: float | None = None
    epsilon: float = 0.0

    def scale(self, squares_K: list[float]) -> float:
        """What to multiply by, from the sums of squares of all blocks, added in block order."""
        if self.norm is None:
            return 1.0
        total = sqrt(sum(squares_K))
        return min(1.0, self.norm / (total + self.epsilon)) if isfinite(total) and total else 1.0

    def apply(self, grad_n: Array, scale: float) -> None:
        """Clip one block in place."""
        if scale != 1.0:
            grad_n *= scale
        if self.value is not None:
            np.clip(grad_n, -self.value, self.value, out=grad_n)


def square(grad_n: Array) -> float:
    """The sum of squares of one block, in double precision."""
    return float(np.dot(wide := grad_n.astype(np.float64), wide))

"""The weights that training begins with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from phalanx.models.mlp import MLPSpec
from phalanx.pure.arrays import Array


def initial_weights(spec: MLPSpec, rng: np.random.RandomState) -> tuple[list[Array], list[Array]]:
    """scikit-learn's, drawn in its order: matrices [in, out] and biases [out], uniform within
    a bound by Glorot & Bengio (2010)."""
    factor = 2.0 if spec.activation in ("logistic", "sigmoid") else 6.0
    coefs, intercepts = [], []
    for fan_in, fan_out in pairwise(spec.sizes):
        bound = np.sqrt(factor / (fan_in + fan_out))
        coefs.append(rng.uniform(-bound, bound, (fan_in, fan_out)).astype(spec.dtype))
        intercepts.append(rng.uniform(-bound, bound, fan_out).astype(spec.dtype))
    return coefs, intercepts

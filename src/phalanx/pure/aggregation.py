"""Result aggregation: the gradients of S shards to one. Pure.

A rule is a function `(grads_Sn, weights_S) -> grad_n` over one block of n coordinates. Row s is
the mean gradient of shard s, weight s its number of samples (or the sum of their sample weights).
Shards without samples are left out before a rule is called. A rule returns a new array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from phalanx.errors import UserFunctionError
from phalanx.pure import kernels
from phalanx.pure.arrays import Array
from phalanx.pure.registry import name_of

Aggregation = Callable[[Array, Array], Array]

TRIMMED_FRACTION = 0.25


def mean(grads_Sn: Array, weights_S: Array) -> Array:
    """The mean weighted by samples: exactly the batch's gradient, however it was split."""
    return _weighted_sum(grads_Sn, _shares(tuple(weights_S.tolist()), grads_Sn.dtype))


@lru_cache(maxsize=64)
def _shares(weights: tuple[float, ...], dtype: np.dtype[Any]) -> Array:
    """Each shard's part of the mean. Nearly all steps of a training have the same weights."""
    total = sum(weights) or 1.0
    shares_S = np.array([weight / total for weight in weights], dtype)
    shares_S.flags.writeable = False
    return shares_S


def sum_(grads_Sn: Array, weights_S: Array) -> Array:
    """The sum of the shards' mean gradients: S times the mean when shards are of one size."""
    return _weighted_sum(grads_Sn, np.ones(len(grads_Sn), grads_Sn.dtype))


def _weighted_sum(grads_Sn: Array, weights_S: Array) -> Array:
    sum_n = np.empty(grads_Sn.shape[1], grads_Sn.dtype)
    kernels.weighted_sum(sum_n, grads_Sn, weights_S)
    return sum_n


def max_(grads_Sn: Array, weights_S: Array) -> Array:
    """Per coordinate, the value of largest magnitude; the first shard's where two are equal."""
    largest_n = np.abs(grads_Sn).argmax(axis=0)
    return np.asarray(np.take_along_axis(grads_Sn, largest_n[np.newaxis], axis=0)[0])


def median(grads_Sn: Array, weights_S: Array) -> Array:
    """Per coordinate, the median; the mean of the middle two for an even number of shards."""
    return np.asarray(np.median(grads_Sn, axis=0), grads_Sn.dtype)


def trimmed_mean(grads_Sn: Array, weights_S: Array) -> Array:
    """Per coordinate, the mean without the lowest and highest quarter of the shards.

    A quarter is rounded down, so with fewer than four shards it is the plain mean of all.
    Bounds corrupted SHARDS, not workers (Yin et al., ICML 2018).
    """
    cut = int(len(grads_Sn) * TRIMMED_FRACTION)
    kept_Sn = np.sort(grads_Sn, axis=0)[cut : len(grads_Sn) - cut]
    return np.asarray(kept_Sn.mean(axis=0, dtype=grads_Sn.dtype))


def is_linear(rule: Aggregation) -> bool:
    """Whether a rule comes to the sum of the gradients, each times its share."""
    return rule in (mean, sum_)


def scales(rule: Aggregation, weights: Sequence[float], n_rows: int) -> list[float]:
    """By what a linear rule multiplies each of S shards' part of the mean over `n_rows` samples.

    >>> scales(mean, [6.0, 2.0], 8), scales(mean, [3.0, 1.0], 8), scales(sum_, [6.0, 2.0], 8)
    ([1.0, 1.0], [2.0, 2.0], [1.3333333333333333, 4.0])
    """
    if rule is sum_:
        return [n_rows / (weight or 1.0) for weight in weights]
    return [n_rows / (sum(weights) or 1.0)] * len(weights)


AGGREGATIONS: dict[str, Aggregation] = {
    "mean": mean,
    "sum": sum_,
    "max": max_,
    "median": median,
    "trimmed_mean": trimmed_mean,
}


def checked(rule: Aggregation) -> Aggregation:
    """A user's rule, guarded: what it returns must be a real `[n]`, whatever it does.

    The guarded rule raises UserFunctionError with the rule's name and what came back.
    """
    if rule in AGGREGATIONS.values():
        return rule

    def guarded(grads_Sn: Array, weights_S: Array) -> Array:
        try:
            result = rule(grads_Sn.copy(), weights_S.copy())
        except Exception as error:
            raise UserFunctionError(
                f"the aggregation function {name_of(rule)} raised {type(error).__name__}: {error}. "
                f"It is called with gradients of shape {grads_Sn.shape} and weights of shape "
                f"{weights_S.shape}, for every block of the parameters."
            ) from error
        return as_gradient(result, rule, grads_Sn)

    return guarded


def as_gradient(result: object, rule: Aggregation, grads_Sn: Array) -> Array:
    """`result` in the gradients' dtype, or UserFunctionError where it is not of shape [n]."""
    array = np.asarray(result)
    if array.shape != grads_Sn.shape[1:] or array.dtype.kind not in "fiu":
        raise UserFunctionError(
            f"an aggregation function takes gradients [S, n] and weights [S] and returns numbers "
            f"of shape [n]; for S, n = {grads_Sn.shape}, {name_of(rule)} returned dtype "
            f"{array.dtype} of shape {array.shape}. Reduce over axis 0 alone."
        )
    return array.astype(grads_Sn.dtype)

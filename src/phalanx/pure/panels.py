"""Panels: rows of a layer's weights whose gradient is made at once, out of its factors. Pure.

The gradient of weights [O, F] over a shard is a product of two factors, the deltas [O, B] and the
inputs [B, F]. Where shards are small beside the layer, their factors are far smaller than their
gradients. Then shards leave the factors, and whoever updates a panel multiplies them: the mean over
all shards comes of it in one place, in shard order, and no shard's gradient is ever written.
"""

from __future__ import annotations

from typing import NamedTuple

MIN_WEIGHTS = 524_288  # elements; below, what is saved is not worth what the calls cost
MIN_PAIRS = 4  # of panels, so that they can be shared out by the speeds of workers
MAX_PANEL = 524_288  # elements, so that a panel's gradient stays near a core until its update
GAIN = 1.5  # how much smaller than the gradients the factors must be, for they are read more often


class Panel(NamedTuple):
    """Rows start..stop of the weights of a layer."""

    layer: int
    start: int
    stop: int


def factors_pay(fan_in: int, fan_out: int, batch_size: int, n_shards: int) -> bool:
    """Whether shards are to leave factors for the weights of a layer; depends on the job alone.

    >>> factors_pay(784, 2048, batch_size=256, n_shards=4)
    True
    >>> factors_pay(64, 100, batch_size=200, n_shards=2), factors_pay(784, 2048, 4096, 4)
    (False, False)
    """
    weights = fan_in * fan_out
    factors = batch_size * (fan_in + fan_out)
    return weights >= MIN_WEIGHTS and GAIN * factors <= n_shards * weights


def panels_of(layer: int, fan_in: int, fan_out: int) -> list[Panel]:
    """The panels of a layer: in pairs, of as many rows each, so that two workers have the same.

    >>> len(panels_of(0, 784, 2048)), panels_of(0, 784, 2048)[-1]
    (8, Panel(layer=0, start=1792, stop=2048))
    """
    pairs = max(MIN_PAIRS, -(-fan_in * fan_out // (2 * MAX_PANEL)))
    rows = -(-fan_out // (2 * pairs))
    return [Panel(layer, at, min(at + rows, fan_out)) for at in range(0, fan_out, rows)]

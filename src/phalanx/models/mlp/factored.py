"""A multi-layer perceptron whose shards leave factors instead of gradients; see pure/factors.py.

It computes right where the factors are to lie: what a layer puts out are the inputs of the next.
Shards that lie side by side go through it in one pass, where that comes to the same bits
(side_by_side.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from phalanx.data.samples import Rows
from phalanx.models.mlp.network import MLPSpec, Network
from phalanx.models.mlp.passing import Pass, room_for
from phalanx.models.mlp.side_by_side import tried
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.factors import FactorLayout, Layer, Panel, factors_pay, panels_of
from phalanx.pure.layout import Region
from phalanx.pure.randomness import Key


@dataclass(frozen=True)
class FactoredMLP(MLPSpec):
    """batch_size: rows of a batch, at most, in so many shards."""

    batch_size: int = 1
    n_shards: int = 1

    @cached_property
    def factors(self) -> FactorLayout:
        return FactorLayout(self.sizes, self.batch_size, self.n_shards, self.dtype.itemsize)

    @property
    def plain(self) -> MLPSpec:
        """The network that leaves gradients."""
        return MLPSpec(self.sizes, self.activation, self.loss, self.dtype_name, self.dropout)

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """By number, in the order of the parameters."""
        return panels_of(self.layout, self.n_shards)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        return tuple(
            Region(panel.start, panel.stop, panel=number)
            for number, panel in enumerate(self.panels)
        )

    def build(self, params_N: Array) -> FactoredNetwork:
        return FactoredNetwork(self, params_N)


def factored(spec: MLPSpec, batch_size: int, n_shards: int) -> MLPSpec:
    """The description of the network that leaves factors, or itself where they do not pay.

    For dense samples, and a mean or a sum over the shards.
    """
    if not factors_pay(spec.sizes, spec.n_parameters, batch_size, n_shards):
        return spec
    plain = spec.sizes, spec.activation, spec.loss, spec.dtype_name, spec.dropout
    return FactoredMLP(*plain, batch_size=batch_size, n_shards=n_shards)


class FactoredNetwork(Network):
    """See models/base.py: FactoredModel."""

    spec: FactoredMLP

    def __init__(self, spec: FactoredMLP, params_N: Array) -> None:
        super().__init__(spec, params_N)
        self._passes: dict[tuple[int, ...], Pass] = {}
        self._room = room_for(spec, spec.factors)
        self._products: dict[tuple[int, int, int], list[Product]] = {}
        largest = max(panel.stop - panel.start for panel in spec.panels)
        columns = spec.factors.width * spec.n_shards
        self._panel_n = aligned_empty((largest,), spec.dtype)
        self._scaled = aligned_empty((max(spec.sizes[1:]) * columns,), spec.dtype)
        self._ones_C = np.ones(columns, spec.dtype)

    def may_be_joined(self, n_shards: int) -> bool:
        return self._at_once(n_shards) is not None

    def inputs(self, layers: Sequence[Layer], shards: Sequence[int]) -> Array:
        return self._pass(layers, shards).x_CF

    def leave(
        self,
        rows: Rows,
        layers: Sequence[Layer],
        shards: Sequence[int],
        counts: Sequence[int],
        n_rows: int,
        keys: Sequence[Key],
    ) -> list[tuple[float, float]]:
        return self._pass(layers, shards).compute(rows, counts, n_rows, keys)

    def _pass(self, layers: Sequence[Layer], shards: Sequence[int]) -> Pass:
        """Kept, and with it the layers, by whose identity it is known."""
        key = (id(layers), *shards)
        known = self._passes.get(key)
        if known is None:
            at_once = self._at_once(len(shards)) or 1
            known = Pass(self, layers, self.spec.factors, shards, at_once, self._room)
            self._passes[key] = known
        return known

    def _at_once(self, n_shards: int) -> int | None:
        """Shards of each product in a pass over so many; None where there may be no such pass."""
        return 1 if n_shards == 1 else tried(self.spec.plain, self.spec.factors, n_shards)

    def panel(
        self, number: int, layers: Sequence[Layer], n_shards: int, scale: float | Array
    ) -> Array:
        products = self._products.get((number, id(layers), n_shards))
        if products is None:
            products = self._products_of(number, layers, n_shards)
            self._products[number, id(layers), n_shards] = products
        is_scaled = isinstance(scale, np.ndarray) or scale != 1
        for product in products:
            delta_OC = product.delta_OC
            if is_scaled:
                np.multiply(delta_OC, scale, out=product.scaled_OC)
                delta_OC = product.scaled_OC
            np.dot(delta_OC, product.inputs, out=product.grad)
        return products[0].panel_n

    def _products_of(self, number: int, layers: Sequence[Layer], n_shards: int) -> list[Product]:
        """What the gradient of a panel is made of. Kept, since a batch's factors never move."""
        panel, products, end = self.spec.panels[number], [], 0
        panel_n = self._panel_n[: panel.stop - panel.start]
        columns = self.spec.factors.columns(0, n_shards)
        for piece in panel.pieces:
            layer, n_outputs = layers[piece.array % len(layers)], piece.stop - piece.start
            delta_OC = layer.deltas_OC[piece.start : piece.stop, columns]
            is_bias = piece.array >= len(layers)
            shape = (n_outputs,) if is_bias else (n_outputs, len(layer.inputs_FC))
            start, end = end, end + prod(shape)
            products.append(
                Product(
                    delta_OC,
                    self._scaled[: delta_OC.size].reshape(delta_OC.shape),
                    self._ones_C[columns] if is_bias else layer.inputs_FC[:, columns].T,
                    panel_n[start:end].reshape(shape),
                    panel_n,
                    layers,
                )
            )
        return products


class Product(NamedTuple):
    """A piece of a panel's gradient: deltas times inputs, or times ones where it is of biases."""

    delta_OC: Array
    scaled_OC: Array
    inputs: Array
    grad: Array
    panel_n: Array
    batch: Sequence[Layer]  # by whose identity it is known, so it must live on

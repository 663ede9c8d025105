"""A multi-layer perceptron whose shards leave the factors of wide layers' gradients.

See pure/panels.py. A slot holds, behind the gradient of all parameters (of which the factored ones
are never written, hence take no memory), the deltas [O, B] and the inputs of each factored layer.
The network computes right in there: deltas and activations need not be copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from phalanx.data.samples import Rows
from phalanx.models.mlp.network import Gradients, MLPSpec, Network, Workspace, padded
from phalanx.pure.arrays import Array, aligned_empty, blas_gemm
from phalanx.pure.layout import Region
from phalanx.pure.panels import Panel, factors_pay, panels_of
from phalanx.pure.randomness import Key


@dataclass(frozen=True)
class FactoredMLP(MLPSpec):
    """factored: the layers, by number from the input. shard_rows: of the largest shard."""

    factored: tuple[int, ...] = ()
    shard_rows: int = 0

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """By number, in the order of the parameters."""
        sizes = [*pairwise(self.sizes)]
        return tuple(panel for layer in self.factored for panel in panels_of(layer, *sizes[layer]))

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The panels, and what lies between them."""
        regions, end = [], 0
        for number, (layer, first, last) in enumerate(self.panels):
            start, fan_in = self.layout.bounds[layer][0], self.sizes[layer]
            if start + first * fan_in > end:
                regions.append(Region(end, start + first * fan_in))
            end = start + last * fan_in
            regions.append(Region(start + first * fan_in, end, panel=number))
        return (*regions, Region(end, self.size))

    @cached_property
    def places(self) -> dict[int, tuple[int, int]]:
        """Where in a slot a layer's deltas begin, and its inputs."""
        places, end = {}, padded(self.size)
        for layer in self.factored:
            fan_in, fan_out = self.sizes[layer : layer + 2]
            inputs = end + padded(fan_out * self.shard_rows)
            places[layer] = end, inputs
            end = inputs + padded(fan_in * self.shard_rows)
        return places

    @property
    def slot_size(self) -> int:
        last = self.factored[-1]
        return self.places[last][1] + padded(self.sizes[last] * self.shard_rows)

    def build(self, params_N: Array) -> FactoredNetwork:
        return FactoredNetwork(self, params_N)


def factored(spec: MLPSpec, batch_size: int, n_shards: int) -> MLPSpec:
    """The description with the layers for which factors pay, or itself where they pay for none.

    For dense samples, and a mean or a sum over the shards.
    """
    layers = tuple(
        layer
        for layer, (fan_in, fan_out) in enumerate(pairwise(spec.sizes))
        if factors_pay(fan_in, fan_out, batch_size, n_shards)
    )
    if not layers:
        return spec
    plain = spec.sizes, spec.activation, spec.loss, spec.dtype_name, spec.dropout
    return FactoredMLP(*plain, factored=layers, shard_rows=-(-batch_size // n_shards))


class FactoredNetwork(Network):
    """See models/base.py: FactoredModel."""

    spec: FactoredMLP

    def __init__(self, spec: FactoredMLP, params_N: Array) -> None:
        super().__init__(spec, params_N)
        self._spaces: dict[tuple[int, int], tuple[Array, Workspace]] = {}
        self._panel = aligned_empty((0,), spec.dtype)

    def gradient(self, rows: Rows, slot_N: Array, key: Key) -> tuple[float, float]:
        if 0 in self.spec.factored:
            self._factors(0, slot_N, rows.count)[1][...] = rows.x
        return super().gradient(rows, slot_N, key)

    def panel(
        self, number: int, slots: Sequence[Array], counts: Sequence[int], shares: Array
    ) -> Array:
        layer, start, stop = self.spec.panels[number]
        fan_in = self.spec.sizes[layer]
        size = (stop - start) * fan_in
        if size > self._panel.size:
            self._panel = aligned_empty((size,), self.spec.dtype)
        grad_n = self._panel[:size]
        grad_FO = grad_n.reshape(stop - start, fan_in).T
        for s, (slot_N, count, share) in enumerate(zip(slots, counts, shares, strict=True)):
            delta_OB, inputs = self._factors(layer, slot_N, count)
            inputs_FB = inputs if layer else inputs.T
            blas_gemm(share, inputs_FB, delta_OB[start:stop].T, float(s > 0), grad_FO)
        return grad_n

    def _factors(self, layer: int, slot_N: Array, count: int) -> tuple[Array, Array]:
        """Deltas [O, B], and inputs: [F, B], but those of the first layer as they come, [B, F]."""
        fan_in, fan_out = self.spec.sizes[layer : layer + 2]
        deltas, inputs = self.spec.places[layer]
        shape = (fan_in, count) if layer else (count, fan_in)
        return (
            slot_N[deltas : deltas + fan_out * count].reshape(fan_out, count),
            slot_N[inputs : inputs + fan_in * count].reshape(shape),
        )

    def _space_in(self, slot_N: Array, n_rows: int) -> Workspace:
        """A workspace of which the factors lie in the slot; kept, since a slot never changes."""
        known = self._spaces.get((id(slot_N), n_rows))
        if known is None:
            known = slot_N, self._made_space(slot_N, n_rows)
            self._spaces[id(slot_N), n_rows] = known
        return known[1]

    def _made_space(self, slot_N: Array, n_rows: int) -> Workspace:
        buffers, depth = self._buffers(n_rows), len(self.spec.sizes) - 1
        for layer in self.spec.factored:
            delta_OB, inputs = self._factors(layer, slot_N, n_rows)
            buffers[depth - 1 if layer == depth - 1 else depth + layer] = delta_OB
            if layer:
                buffers[layer - 1] = inputs
        return Workspace(self.spec, buffers, n_rows)

    def _weight_views(self, slot_N: Array) -> Gradients:
        weights, biases = super()._weight_views(slot_N)
        kept = [None if i in self.spec.factored else view for i, view in enumerate(weights)]
        return kept, biases

"""A multi-layer perceptron whose shards leave the factors of wide layers' gradients.

See pure/panels.py. A slot holds, behind the gradient of all parameters (of which the factored ones
are never written, hence take no memory), the deltas [O, B] and the inputs of each factored layer.
The network computes right in there: deltas and activations need not be copied. Several shards go
through it layer by layer, side by side where layers are wide (stacking.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from phalanx.data.samples import Rows
from phalanx.models.mlp.network import MLPSpec, Network, Workspace, features_of, halves, padded
from phalanx.models.mlp.stacking import ROWS_AT_ONCE, Stack
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


class Place(NamedTuple):
    """What belongs to a slot: where a shard of so many rows leaves what, and computes it."""

    slot_N: Array
    space: Workspace
    weight_grads: list[Array]
    bias_grads: list[Array]


class Pass(NamedTuple):
    """A shard on its way through the network."""

    rows: Rows
    place: Place
    masks: list[Array]

    @property
    def space(self) -> Workspace:
        return self.place.space


class FactoredNetwork(Network):
    """See models/base.py: FactoredModel."""

    spec: FactoredMLP
    rows_at_once = ROWS_AT_ONCE

    def __init__(self, spec: FactoredMLP, params_N: Array) -> None:
        super().__init__(spec, params_N)
        self._places: dict[tuple[int, int], Place] = {}
        self._stack = Stack(spec.dtype)
        self._panel = aligned_empty((0,), spec.dtype)

    def gradient(self, rows: Rows, grad_N: Array, key: Key) -> tuple[float, float]:
        return self.gradients([(rows, grad_N, key)])[0]

    def gradients(self, shards: Sequence[tuple[Rows, Array, Key]]) -> list[tuple[float, float]]:
        passes = [self._pass(*shard) for shard in shards]
        for i in range(len(self.weights)):
            self._project(i, passes)
            for one in passes:
                self._activate(i, one.space, one.masks)
        outcomes = [self._judge(one.rows, one.space.layers[-1]) for one in passes]
        for i in range(len(self.weights) - 1, -1, -1):
            for one in passes:
                self._leave(i, one)
            if i > 0:
                self._pass_back(i, passes)
                for one in passes:
                    self._differentiate(i - 1, one.space, one.masks)
        return outcomes

    def _pass(self, rows: Rows, slot_N: Array, key: Key) -> Pass:
        place = self._place(slot_N, rows.count)
        if 0 in self.spec.factored:
            self._factors(0, slot_N, rows.count)[1][...] = rows.x.T
        return Pass(rows, place, self._masks(rows.count, key))

    def _project(self, i: int, passes: Sequence[Pass]) -> None:
        """Layer i <- its weights times what is below."""
        weight, outputs = self.weights[i], [one.space.layers[i] for one in passes]
        if i in self.spec.factored:
            inputs = [self._factors(i, one.place.slot_N, one.rows.count)[1] for one in passes]
            self._stack.project(weight, inputs, outputs)
            return
        for one, output in zip(passes, outputs, strict=True):
            if i == 0:
                one.rows.project(weight, output)
            else:
                weight.dot(one.space.layers[i - 1], out=output)

    def _pass_back(self, i: int, passes: Sequence[Pass]) -> None:
        """The deltas below layer i <- its transposed weights times its deltas."""
        weight, deltas = self.weights[i], [one.space.deltas[i] for one in passes]
        below = [one.space.deltas[i - 1] for one in passes]
        if i in self.spec.factored:
            self._stack.pass_back(weight, deltas, below)
            return
        for delta, under in zip(deltas, below, strict=True):
            weight.T.dot(delta, out=under)

    def _leave(self, i: int, one: Pass) -> None:
        """The gradient of layer i, less that of weights whose factors lie in the slot."""
        delta = one.space.deltas[i]
        delta.dot(one.space.ones_B, out=one.place.bias_grads[i])
        if i in self.spec.factored:
            return
        if i == 0:
            one.rows.correlate(delta, one.place.weight_grads[0])
        else:
            delta.dot(one.space.layers[i - 1].T, out=one.place.weight_grads[i])

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
            delta_OB, inputs_FB = self._factors(layer, slot_N, count)
            blas_gemm(share, inputs_FB, delta_OB[start:stop].T, float(s > 0), grad_FO)
        return grad_n

    def _factors(self, layer: int, slot_N: Array, count: int) -> tuple[Array, Array]:
        """Deltas [O, B], and inputs [F, B]; those of the first layer lie as they come, by rows."""
        fan_in, fan_out = self.spec.sizes[layer : layer + 2]
        deltas, inputs = self.spec.places[layer]
        delta_OB = slot_N[deltas : deltas + fan_out * count].reshape(fan_out, count)
        input_n = slot_N[inputs : inputs + fan_in * count]
        if layer == 0:
            return delta_OB, input_n.reshape(count, fan_in).T
        return delta_OB, input_n.reshape(fan_in, count)

    def _place(self, slot_N: Array, n_rows: int) -> Place:
        """Kept, since a slot never changes. Each has buffers of its own, since several shards are
        on their way at once."""
        known = self._places.get((id(slot_N), n_rows))
        if known is None:
            weight_grads, bias_grads = halves(self.spec.layout.views(slot_N))
            known = Place(slot_N, self._space_in(slot_N, n_rows), weight_grads, bias_grads)
            self._places[id(slot_N), n_rows] = known
        return known

    def _space_in(self, slot_N: Array, n_rows: int) -> Workspace:
        """A workspace of which the factors lie in the slot."""
        depth = len(self.spec.sizes) - 1
        buffers = [
            aligned_empty((features, n_rows), self.spec.dtype)
            for features in features_of(self.spec)
        ]
        for layer in self.spec.factored:
            delta_OB, inputs_FB = self._factors(layer, slot_N, n_rows)
            buffers[depth - 1 if layer == depth - 1 else depth + layer] = delta_OB
            if layer:
                buffers[layer - 1] = inputs_FB
        return Workspace(self.spec, buffers, n_rows)

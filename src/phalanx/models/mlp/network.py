"""A multi-layer perceptron bound to a flat parameter vector.

Layers are kept feature-major, `[features, samples]`, and weights as [out, in]: in this orientation
all three matrix products of a layer read their large operand along its rows, which is worth 10%
on wide layers. scikit-learn's `coefs_` are the transposed views.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np

from phalanx.data.samples import Rows
from phalanx.errors import InvalidInput
from phalanx.models.mlp.activations import ACTIVATIONS, Activation
from phalanx.models.mlp.losses import LOSSES, Loss
from phalanx.pure import kernels
from phalanx.pure.arrays import Array, aligned_empty, in_cache_lines
from phalanx.pure.factors import FactorLayout, Multiply, multiply
from phalanx.pure.layout import Layout, Region
from phalanx.pure.randomness import Key

Gradients = tuple[list[Array], list[Array]]  # views by layer: of weights, of biases


@dataclass(frozen=True)
class MLPSpec:
    """Layer sizes from input to output, activation and loss by name, dropout probability."""

    sizes: tuple[int, ...]
    activation: str
    loss: str
    dtype_name: str
    dropout: float = 0.0

    @cached_property
    def layout(self) -> Layout:
        """All weights [out, in], then all biases [out]."""
        weights = tuple((fan_out, fan_in) for fan_in, fan_out in pairwise(self.sizes))
        biases = tuple((fan_out,) for fan_out in self.sizes[1:])
        return Layout(weights + biases)

    @property
    def n_parameters(self) -> int:
        return self.layout.size

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def factors(self) -> FactorLayout | None:
        return None

    @property
    def multiply(self) -> Multiply:
        return multiply

    @property
    def regions(self) -> tuple[Region, ...]:
        return (Region(0, self.size),)

    @property
    def n_measures(self) -> int:
        return 0

    @property
    def runs_here(self) -> bool:
        return True

    @property
    def libraries(self) -> tuple[str, ...]:
        return ()

    @property
    def n_decayed(self) -> int:
        return sum(fan_in * fan_out for fan_in, fan_out in pairwise(self.sizes))

    @property
    def n_outputs(self) -> int:
        return self.sizes[-1]

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return np.dtype(self.dtype_name)

    def as_guest(self) -> AbstractContextManager[None]:
        return nullcontext()

    def build(self, params_N: Array) -> Network:
        return Network(self, params_N)

    def pack(self, coefs: Sequence[Array], intercepts: Sequence[Array]) -> Array:
        """scikit-learn's weights [in, out] and biases [out] as one new flat vector [N].

        Raises InvalidInput where their shapes are not this network's.
        """
        flat_N = aligned_empty((self.n_parameters,), self.dtype)
        arrays = [np.asarray(c).T for c in coefs] + [np.asarray(b) for b in intercepts]
        shapes = tuple(array.shape for array in arrays)
        if shapes != self.layout.shapes:
            raise InvalidInput(
                f"weights must fit the layers {self.sizes}; got weights and biases of shapes "
                f"{shapes}, transposed. After a change of hidden_layer_sizes or of the data's "
                "columns, fit anew without warm_start."
            )
        for view, array in zip(self.layout.views(flat_N), arrays, strict=True):
            view[...] = array
        return flat_N

    def unpack(self, params_N: Array) -> tuple[list[Array], list[Array]]:
        """Weights [in, out] and biases [out] as views into `params_N`."""
        views = self.layout.views(params_N)
        half = len(views) // 2
        return [weight.T for weight in views[:half]], views[half:]


class Space(Protocol):
    """What a pass over some samples computes, [features, samples] each, by layer.

    inputs: what the derivative of each hidden layer's activation is told from.
    """

    layers: list[Array]
    deltas: list[Array]
    inputs: list[Array]


class Workspace:
    """Buffers of a pass over `n_rows` samples; contiguous, so the kernels are always the same."""

    def __init__(self, spec: MLPSpec, buffers: list[Array], n_rows: int) -> None:
        """buffers: [features, n_rows] each, as `features_of` says."""
        depth = len(spec.sizes) - 1
        self.layers, hidden = buffers[:depth], buffers[depth:]
        self.deltas = [
            *hidden[: depth - 1],
            self.layers[-1],
        ]  # the last one takes its layer's place
        self.inputs = hidden[depth - 1 :] or self.layers[:-1]
        self.ones_B = np.ones(n_rows, spec.dtype)


def features_of(spec: MLPSpec) -> list[int]:
    """Of each buffer: layers, hidden deltas, and pre-activations where they are kept."""
    hidden = spec.sizes[1:-1]
    kept = hidden if ACTIVATIONS[spec.activation].keeps_input else ()
    return [*spec.sizes[1:], *hidden, *kept]


class Network:
    """See models/base.py: Model."""

    def __init__(self, spec: MLPSpec, params_N: Array) -> None:
        self.spec = spec
        self.weights, self.biases = halves(spec.layout.views(params_N))
        self.activation: Activation = ACTIVATIONS[spec.activation]
        self.loss: Loss = LOSSES[spec.loss]
        self._flat = aligned_empty((0,), spec.dtype)
        self._workspaces: dict[int, Workspace] = {}
        self._gradients: dict[int, tuple[Array, Gradients]] = {}

    def outputs(self, rows: Rows) -> Array:
        space = self._workspace(rows.count)
        self._forward(rows, space, [])
        return space.layers[-1].T

    def gradient(self, rows: Rows, grad_N: Array, key: Key) -> tuple[float, float]:
        space = self._workspace(rows.count)
        masks = self._forward(rows, space, self.masks(rows.count, key))
        outcome = self._judge(rows, space.layers[-1])
        self._backward(rows, space, masks, *self._gradient_views(grad_N))
        return outcome

    def _judge(self, rows: Rows, predictions: Array) -> tuple[float, float]:
        """Sums of losses and of weights; predictions become the gradient of the mean loss."""
        target = rows.classes_B if self.loss.takes_classes else rows.target_OB
        loss_B = self.loss.gradient(predictions, target)
        if rows.weight_B is None:
            loss, weight = float(np.add.reduce(loss_B)), float(rows.count)
            predictions *= 1 / weight
        else:
            loss, weight = float(rows.weight_B @ loss_B), float(rows.weight_B.sum())
            predictions *= rows.weight_B / weight if weight else rows.weight_B
        return loss, weight

    def _forward(self, rows: Rows, space: Workspace, masks: list[Array]) -> list[Array]:
        below: Array | None = None
        for i, (weight, layer) in enumerate(zip(self.weights, space.layers, strict=True)):
            if below is None:
                rows.project(weight, layer)
            else:
                weight.dot(below, out=layer)
            self.activate(i, space, masks)
            below = layer
        return masks

    def activate(self, i: int, space: Space, masks: list[Array]) -> None:
        """Layer i, from the products with its weights to what it puts out."""
        layer = space.layers[i]
        kernels.add_bias(layer, self.biases[i])
        if i == len(self.biases) - 1:
            self.loss.link(layer)
            return
        if self.activation.keeps_input:
            np.copyto(space.inputs[i], layer)
        self.activation.forward(layer)
        if masks:
            layer *= masks[i]

    def _backward(
        self,
        rows: Rows,
        space: Workspace,
        masks: list[Array],
        weight_grads: list[Array],
        bias_grads: list[Array],
    ) -> None:
        delta = space.layers[-1]
        for i in range(len(self.weights) - 1, -1, -1):
            delta.dot(space.ones_B, out=bias_grads[i])
            if i == 0:
                rows.correlate(delta, weight_grads[0])
                return
            delta.dot(space.layers[i - 1].T, out=weight_grads[i])
            below = space.deltas[i - 1]
            self.weights[i].T.dot(delta, out=below)
            self.differentiate(i - 1, space, masks)
            delta = below

    def differentiate(self, i: int, space: Space, masks: list[Array]) -> None:
        """The delta of layer i, from that of what it puts out to that of what is put in."""
        delta = space.deltas[i]
        if masks:
            delta *= masks[i]
        self.activation.backward(self._seen_by_derivative(space, masks, i), delta)

    def _seen_by_derivative(self, space: Space, masks: list[Array], i: int) -> Array:
        """Pre-activations, or activations with the dropout taken off again."""
        if self.activation.keeps_input or not masks:
            return space.inputs[i]
        return np.asarray(space.layers[i] * (1 - self.spec.dropout))

    def masks(self, n_rows: int, key: Key) -> list[Array]:
        """For each hidden layer, 0 for a dropped neuron and 1 / (1 - dropout) for a kept one."""
        if not self.spec.dropout:
            return []
        rng = key.generator()
        keep = 1 - self.spec.dropout
        shapes = [(size, n_rows) for size in self.spec.sizes[1:-1]]
        dtype = self.spec.dtype.type
        return [(rng.random(shape, dtype) < keep) * dtype(1 / keep) for shape in shapes]

    def _workspace(self, n_rows: int) -> Workspace:
        space = self._workspaces.get(n_rows)
        if space is None:
            space = Workspace(self.spec, self._buffers(n_rows), n_rows)
            self._workspaces[n_rows] = space
        return space

    def _buffers(self, n_rows: int) -> list[Array]:
        """All in one piece of memory, which all workspaces share."""
        sizes = [size * n_rows for size in features_of(self.spec)]
        itemsize = self.spec.dtype.itemsize
        ends = [*accumulate(in_cache_lines(size, itemsize) for size in sizes)]
        if ends[-1] > self._flat.size:
            self._flat = aligned_empty((ends[-1],), self.spec.dtype)
            self._workspaces.clear()
        starts = [0, *ends]
        return [
            self._flat[start : start + size].reshape(-1, n_rows)
            for start, size in zip(starts, sizes, strict=False)
        ]

    def _gradient_views(self, grad_N: Array) -> Gradients:
        """Kept, with the slot itself, since a shard's slot never changes."""
        known = self._gradients.get(id(grad_N))
        if known is None:
            known = grad_N, halves(self.spec.layout.views(grad_N))
            self._gradients[id(grad_N)] = known
        return known[1]


def halves(views: list[Array]) -> tuple[list[Array], list[Array]]:
    """Weights and biases, of the parts of a flat vector."""
    half = len(views) // 2
    return views[:half], views[half:]

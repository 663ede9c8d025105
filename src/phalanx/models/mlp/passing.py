"""A pass of some shards through a network, forward and back, that leaves their factors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from phalanx.data.samples import Rows
from phalanx.models.mlp.network import MLPSpec, Network
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.factors import FactorLayout
from phalanx.pure.randomness import Key

Products = list[list[tuple[Array, Array]]]  # by layer: what is multiplied by its weights, and into


class Pass:
    """Of these shards, which are neighbours from the left to the right, right where their factors
    are to lie in `batch`.

    at_once: shards of each product. room: memory of one pass at a time, made by `room_for`.
    """

    def __init__(
        self,
        network: Network,
        batch: Sequence[Array],
        layout: FactorLayout,
        shards: Sequence[int],
        at_once: int,
        room: Array,
    ) -> None:
        self._room, self._used = room, 0
        self.network, self.batch, self.width = network, batch, layout.width
        mine, n_columns = layout.columns(shards), len(shards) * layout.width
        x_FC, *hidden = (inputs[:, mine] for inputs in batch[::2])
        self.x_CF, self.deltas = x_FC.T, [deltas[:, mine] for deltas in batch[1::2]]
        self.layers = [*hidden, self._take((network.spec.n_outputs, n_columns))]
        self.inputs = hidden
        if network.activation.keeps_input:
            self.inputs = [self._take(layer.shape) for layer in hidden]
        step = layout.width * at_once
        parts = [slice(at, at + step) for at in range(0, n_columns, step)]
        self._forward = _parted([x_FC, *hidden], self.layers, parts)
        self._back = _parted(self.deltas[1:], self.deltas[:-1], parts)
        self._is_given = layout.factors[0].is_given
        self._shares: dict[tuple[int, ...], Array] = {}

    def _take(self, shape: tuple[int, ...]) -> Array:
        """The next part of the room; it begins on a cache line, as all columns of a shard do."""
        start, self._used = self._used, self._used + prod(shape)
        return self._room[start : self._used].reshape(shape)

    def compute(
        self, rows: Rows, counts: Sequence[int], n_rows: int, keys: Sequence[Key]
    ) -> list[tuple[float, float]]:
        """See models/base.py: JoinedModel.leave_all; the samples lie in `x_CF`, unless they are
        given."""
        network, masks = self.network, self._masks(counts, keys)
        for i, weight in enumerate(network.weights):
            if i == 0 and self._is_given:
                rows.project(weight, self.layers[0])
            else:
                self._multiply(weight, self._forward[i])
            network.activate(i, self, masks)
        outcomes = self._judge(rows, counts, n_rows)
        for i in range(len(network.weights) - 1, 0, -1):
            self._multiply(network.weights[i].T, self._back[i - 1])
            network.differentiate(i - 1, self, masks)
        return outcomes

    def _multiply(self, weight: Array, parts: list[tuple[Array, Array]]) -> None:
        for below, layer in parts:
            np.matmul(weight, below, out=layer)

    def _judge(self, rows: Rows, counts: Sequence[int], n_rows: int) -> list[tuple[float, float]]:
        """Of each shard the sums of losses and of weights; and the deltas of the last layer."""
        loss, predictions, weight_C = self.network.loss, self.layers[-1], rows.weight_B
        loss_C = loss.gradient(
            predictions, rows.classes_B if loss.takes_classes else rows.target_OB
        )
        if weight_C is not None:
            predictions *= weight_C
            loss_C = loss_C * weight_C
        np.multiply(predictions, self._share(counts, n_rows), out=self.deltas[-1])
        return [
            (
                float(np.add.reduce(loss_C[mine])),
                float(mine.stop - mine.start if weight_C is None else weight_C[mine].sum()),
            )
            for mine in self._rows(counts)
        ]

    def _share(self, counts: Sequence[int], n_rows: int) -> Array:
        """Of each column in the mean over the rows of the batch; none of those that are filled."""
        key = (n_rows, *counts)
        if key not in self._shares:
            share_C = np.zeros(self.layers[-1].shape[1], self.layers[-1].dtype)
            for mine in self._rows(counts):
                share_C[mine] = 1 / n_rows
            self._shares[key] = share_C
        return self._shares[key]

    def _rows(self, counts: Sequence[int]) -> list[slice]:
        """Where the rows of each shard are."""
        return [slice(i * self.width, i * self.width + count) for i, count in enumerate(counts)]

    def _masks(self, counts: Sequence[int], keys: Sequence[Key]) -> list[Array]:
        """See Network.masks; nothing is dropped behind a shard's rows."""
        if not self.network.spec.dropout:
            return []
        masks = [np.ones(layer.shape, layer.dtype) for layer in self.layers[:-1]]
        for mine, key in zip(self._rows(counts), keys, strict=True):
            drawn = self.network.masks(mine.stop - mine.start, key)
            for mask, part in zip(masks, drawn, strict=True):
                mask[:, mine] = part
        return masks


def room_for(spec: MLPSpec, layout: FactorLayout) -> Array:
    """Room for a pass, of as many shards as there are at most; what is not used takes no memory."""
    columns = layout.width * layout.n_shards
    return aligned_empty((columns * sum(spec.sizes[1:]),), spec.dtype)


def _parted(sources: Sequence[Array], results: Sequence[Array], parts: list[slice]) -> Products:
    return [
        [(source[:, part], result[:, part]) for part in parts]
        for source, result in zip(sources, results, strict=True)
    ]

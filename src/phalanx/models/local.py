"""A model as replicas: the gradient of a shard is what some steps of a replica changed.

Whatever the model and its optimiser are, a `LocalSpec` is a model too: its `gradient` copies the
parameters, makes the steps of a round on the copy, each with a part of the shard's rows, and writes
before - after. A round is a function of (parameters, samples, key) alone, so that anybody can
compute a shard, and compute it again: the state of the replicas' optimiser begins anew with each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from phalanx.data.samples import Samples
from phalanx.models.base import ModelSpec
from phalanx.pure import kernels
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.clipping import Clip, square
from phalanx.pure.factors import FactorLayout, Multiply
from phalanx.pure.layout import Kind, Region, blocks_of
from phalanx.pure.optimizers import Optimizer, Slice
from phalanx.pure.randomness import Key
from phalanx.pure.rounds import Rounds
from phalanx.pure.timetable import Moment


@dataclass(frozen=True)
class LocalSpec:
    """See models/base.py: ModelSpec.

    inner, optimizer: what each replica is and goes by. max_rows: of a step of one shard. alpha,
    clip: L2 penalty and clipping of the replicas' gradients, of which there are `n_shards`.
    """

    inner: ModelSpec
    optimizer: Optimizer
    rounds: Rounds
    n_shards: int
    max_rows: int
    alpha: float
    clip: Clip

    @property
    def n_parameters(self) -> int:
        return self.inner.n_parameters

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def factors(self) -> FactorLayout | None:
        return None

    @property
    def regions(self) -> tuple[Region, ...]:
        return self.inner.regions

    @property
    def n_measures(self) -> int:
        return self.inner.n_measures

    @property
    def runs_here(self) -> bool:
        return self.inner.runs_here

    @property
    def multiply(self) -> Multiply:
        return self.inner.multiply

    @property
    def libraries(self) -> tuple[str, ...]:
        return self.inner.libraries

    @property
    def n_decayed(self) -> int:
        return self.inner.n_decayed

    @property
    def n_outputs(self) -> int:
        return self.inner.n_outputs

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self.inner.dtype

    def as_guest(self) -> AbstractContextManager[None]:
        return self.inner.as_guest()

    def build(self, params_N: Array) -> LocalModel:
        return LocalModel(self, params_N)


class ShardRows(NamedTuple):
    """The rows of a shard, not yet gathered: a replica takes them step by step."""

    gatherer: Any
    index_B: Array


class ShardGatherer:
    """Leaves the gathering to the replica, so that the buffers are of one step alone."""

    def __init__(self, gatherer: Any) -> None:
        self._gatherer = gatherer

    def rows(self, index_B: Array, key: Key) -> ShardRows:
        """The rows that `index_B` names, in its order."""
        return ShardRows(self._gatherer, index_B)


class LocalModel:
    """See models/base.py: Model. One replica, which the shards of a round use in turn."""

    def __init__(self, spec: LocalSpec, params_N: Array) -> None:
        self.spec, self._params_N = spec, params_N
        self._replica = Replica(spec, params_N)

    def gatherer(self, samples: Samples) -> ShardGatherer:
        """What takes the rows that `gradient` is given."""
        return ShardGatherer(samples.gatherer(self.spec.max_rows))

    def begin(
        self, moment: Moment, rate: float, settings_TGX: Array, beat: Callable[[], None]
    ) -> None:
        """A round begins. rate: the learning rate; settings_TGX: the optimiser's settings, for
        each round of the epoch (see `Rounds.folded`); beat: called after each step."""
        self._moment, self._rate, self._beat = moment, rate, beat
        if settings_TGX.size:
            self._replica.settings_HGX[...] = self.spec.rounds.unfolded(settings_TGX[moment.step])

    def gradient(self, rows: ShardRows, grad_N: Array, key: Key) -> Sequence[float]:
        """Write before - after, or the final values of what is not learnt; the sums are those of
        all steps, each before its update."""
        replica = self._replica
        replica.begin(self._params_N)
        sums = [0.0] * (2 + self.spec.n_measures)
        for h, (part, own) in enumerate(self._steps(rows, key)):
            moment = self._moment._replace(step=h, updates=h)
            figures = replica.step(part, own, moment, self._rate)
            sums = [total + figure for total, figure in zip(sums, figures, strict=True)]
            self._beat()
        np.subtract(self._params_N, replica.values_N, out=grad_N)
        for start, stop in replica.unlearnt:
            grad_N[start:stop] = replica.values_N[start:stop]
        return sums

    def _steps(self, rows: ShardRows, key: Key) -> Iterator[tuple[Any, Key]]:
        """The rows of each step, and a key of its own."""
        rounds = self.spec.rounds
        batches = rounds.batches(len(rows.index_B), self._moment.step)
        for h, (start, stop) in enumerate(batches):
            own = key._replace(step=key.step * rounds.every + h)
            yield rows.gatherer.rows(rows.index_B[start:stop], own), own

    def outputs(self, rows: Any) -> Array:
        outputs: Array = self._replica.at(self._params_N).outputs(rows)
        return outputs

    def measures(self, rows: Any) -> Array:
        """Sums for a validation chunk, of a model that makes them itself."""
        measures: Array = self._replica.at(self._params_N).measures(rows)
        return measures


class Replica:
    """A worker's own copy of the parameters, with gradient, optimiser state and settings.

    unlearnt: bounds of the regions that a forward pass changes, not the optimiser.
    """

    def __init__(self, spec: LocalSpec, params_N: Array) -> None:
        self.spec, optimizer = spec, spec.optimizer
        self.values_N, self.grad_N = (_zeros((spec.size,), spec.dtype) for _ in range(2))
        self.values_N[...] = params_N
        self._model = spec.inner.build(self.values_N)
        self.settings_HGX = self._settings()
        regions = blocks_of(spec.inner.regions, optimizer.largest_block)
        learnt = [region for region in regions if region.kind is Kind.TRAINED]
        self.unlearnt = [region[:2] for region in regions if region.kind is not Kind.TRAINED]
        state_MN = _zeros((len(optimizer.slots), spec.size), spec.dtype)
        scratch_n = _zeros((max(region.stop - region.start for region in learnt),), spec.dtype)
        self._slices = [self._slice(region, state_MN, scratch_n) for region in learnt]
        self._updates = [optimizer.bind(at) for at in self._slices]

    def _settings(self) -> Array:
        groups, width = self.spec.optimizer.settings_shape
        return np.zeros((self.spec.rounds.every, groups, width))

    def _slice(self, region: Region, state_MN: Array, scratch_n: Array) -> Slice:
        start, stop = region[:2]
        settings = self.settings_HGX
        return Slice(
            self.values_N[start:stop],
            state_MN[:, start:stop],
            scratch_n[: stop - start],
            self.grad_N[start:stop],
            np.zeros((2, self.spec.optimizer.n_scalars)),
            settings[:, region.group] if settings.size else None,
            region,
        )

    def at(self, params_N: Array) -> Any:
        """The model, with these parameters."""
        self.values_N[...] = params_N
        return self._model

    def begin(self, params_N: Array) -> None:
        """Go on from these parameters, with a new optimiser."""
        self.values_N[...] = params_N
        for at in self._slices:
            self.spec.optimizer.fresh(at)

    def step(self, rows: Any, key: Key, moment: Moment, rate: float) -> Sequence[float]:
        """One step on some rows; the sums that the model makes, the penalty among the losses."""
        loss, weight, *measures = self._model.gradient(rows, self.grad_N, key)
        clip, scale = self.spec.clip, 1.0
        if clip.norm is not None:
            scale = clip.scale([square(at.grad_n) for at in self._slices])
        for at, update in zip(self._slices, self._updates, strict=True):
            clip.apply(at.grad_n, scale)
            loss += self._penalty(at, weight)
            update(moment, rate)
        for start, stop in self.unlearnt:
            self.values_N[start:stop] = self.grad_N[start:stop]
        return loss, weight, *measures

    def _penalty(self, at: Slice, weight: float) -> float:
        """Add the pull of the L2 penalty to a block's gradient; this shard's part of the penalty.

        A replica is pulled as by the whole batch, which weighs as much as all shards together.
        """
        spec = self.spec
        assert at.block is not None
        n_decayed = min(spec.n_decayed - at.block.start, len(at.params_n))
        if not spec.alpha or weight <= 0 or n_decayed <= 0:
            return 0.0
        decayed = at.params_n[:n_decayed]
        strength = spec.alpha / (weight * spec.n_shards)
        squares: float = kernels.pull(at.grad_n[:n_decayed], strength, decayed)
        return 0.5 * spec.alpha / spec.n_shards * squares


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Aligned as the arena's rows are, so that kernels take the same path."""
    array = aligned_empty(shape, dtype)
    array[...] = 0
    return array

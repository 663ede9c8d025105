"""What the engine asks of a model: a flat layout, gradients of shards, predictions.

A `ModelSpec` is a small picklable description. `build` turns it, inside a worker, into a `Model`
whose parameters are views into the arena. The first `n_decayed` parameters are those that the
L2 penalty shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from phalanx.pure.arrays import Array
from phalanx.pure.factors import FactorLayout, Multiply
from phalanx.pure.layout import Region
from phalanx.pure.metrics import Metric
from phalanx.pure.randomness import Key


class Model(Protocol):
    """A network bound to one parameter vector."""

    def gradient(self, rows: Any, grad_N: Array, key: Key) -> Sequence[float]:
        """Write the mean gradient over `rows`; return (sum of weighted losses, sum of weights),
        and then as many sums of measures as the description says. `key` is for random numbers."""

    def outputs(self, rows: Any) -> Array:
        """Predictions [rows, O], a view that the next call overwrites."""


class FactoredModel(Model, Protocol):
    """A model whose shards leave, in place of gradients, what these are the products of: as its
    description's `factors` say."""

    def leave(self, rows: Any, factors: Sequence[Array], n_rows: int, key: Key) -> Sequence[float]:
        """Write the shard's columns of a batch's factors, views [size of the factor, columns], zero
        behind its rows; return what `gradient` returns. Their product is the gradient of the sum of
        the weighted losses, divided by `n_rows`, the rows of the batch.

        The views are the same list every time for the same place, and may be known by that.
        """


@runtime_checkable
class JoinedModel(Model, Protocol):
    """A model that leaves factors of several shards at once."""

    def may_be_joined(self, n_shards: int) -> bool:
        """Whether so many shards come to the same bits if they are computed at once."""

    def inputs(self, batch: Sequence[Array], shards: Sequence[int]) -> Array:
        """Where the samples of these shards go before `leave_all`, [C, F]: each shard's to the
        first of its columns, with one of them again in the others. Samples that are given go
        nowhere: then it has no elements."""

    def leave_all(
        self,
        rows: Any,
        batch: Sequence[Array],
        shards: Sequence[int],
        counts: Sequence[int],
        n_rows: int,
        keys: Sequence[Key],
    ) -> Sequence[Sequence[float]]:
        """Compute shards and leave their factors in their columns of `batch`; return of each what
        `gradient` returns. Of the products see `FactoredModel.leave`.

        rows: what lies in `inputs`, or is given; counts, keys: rows and key of each shard. `batch`
        is the same list every time for the same place, and known by that.
        """


class ModelSpec(Protocol):
    """A model's description."""

    @property
    def n_parameters(self) -> int:
        """How many numbers are learnt."""

    @property
    def size(self) -> int:
        """N: elements of the flat vector, what is not learnt included."""

    @property
    def factors(self) -> FactorLayout | None:
        """Where the factors of a batch lie, if shards leave factors instead of gradients."""

    @property
    def multiply(self) -> Multiply:
        """By what the factors of a batch are multiplied."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """What becomes of each part of the vector in a step."""

    @property
    def n_measures(self) -> int:
        """How many sums `gradient` returns beside loss and weight."""

    @property
    def runs_here(self) -> bool:
        """Whether the caller's own process can compute it."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """What is to be loaded in a process before workers are forked from it."""

    @property
    def n_decayed(self) -> int:
        """How many of the first parameters carry the L2 penalty."""

    @property
    def n_outputs(self) -> int:
        """O."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of parameters, gradients and optimiser state."""

    def as_guest(self) -> AbstractContextManager[None]:
        """Within it, the caller's own process may compute the model, and its random numbers stay
        as they were, as they do when workers compute it."""

    def build(self, params_N: Array) -> Model:
        """The model over `params_N`, which it reads and never writes."""


class Score(Protocol):
    """How validation samples are judged: sums over chunks of them, and a figure of the total."""

    def width(self, model: ModelSpec) -> int:
        """How many sums there are."""

    def sums(self, model: Any, rows: Any) -> Array:
        """Of one chunk."""

    def final(self, sums: Array) -> float:
        """The figure; the larger, the better, where a rule follows it."""


@dataclass(frozen=True)
class OutputScore:
    """A metric of a model's outputs."""

    metric: Metric

    def width(self, model: ModelSpec) -> int:
        return 4 * model.n_outputs

    def sums(self, model: Model, rows: Any) -> Array:
        target = rows.classes_B if rows.classes_B is not None else rows.target_OB.T
        weight_B = np.ones(rows.count) if rows.weight_B is None else rows.weight_B
        return self.metric.partial(target, model.outputs(rows), weight_B)

    def final(self, sums: Array) -> float:
        return self.metric.final(sums)


@dataclass(frozen=True)
class OwnScore:
    """Sums that a model makes itself, by its own loss and metrics. The first two are those of loss
    and weight, so the figure is the mean loss, negated."""

    n_sums: int

    def width(self, model: ModelSpec) -> int:
        return self.n_sums

    def sums(self, model: Any, rows: Any) -> Array:
        return np.asarray(model.measures(rows))

    def final(self, sums: Array) -> float:
        return -float(sums[0] / sums[1]) if sums[1] else float("nan")

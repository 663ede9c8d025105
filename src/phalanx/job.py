"""A job: everything that decides a training's answer, and the arena fields that it needs. Pure.

A job is picklable and the same for every worker. The number of workers is not part of the answer;
it is here because the assignment needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from phalanx.aggregation import Aggregation
from phalanx.arena import Field, Fields
from phalanx.assignment import Assignment
from phalanx.exchange.board import board_fields
from phalanx.layout import block_bounds
from phalanx.metrics import Metric
from phalanx.models.base import ModelSpec
from phalanx.optimizers import Optimizer
from phalanx.plan import Plan
from phalanx.stopping import Progress, Rule

CHUNK_ROWS = 256  # rows of a validation or prediction chunk: fixed, so its bits are too


@dataclass(frozen=True)
class Job:
    """A training.

    alpha: L2 penalty, alpha / 2 * |weights|^2, divided by the batch's weight as in scikit-learn.
    score: how the validation samples are judged after each epoch.
    """

    model: ModelSpec
    plan: Plan
    optimizer: Optimizer
    aggregation: Aggregation
    assignment: Assignment
    rule: Rule
    alpha: float
    n_workers: int
    n_validation: int = 0
    score: Metric | None = None

    @cached_property
    def blocks(self) -> list[tuple[int, int]]:
        """Bounds of the K blocks."""
        return block_bounds(self.model.n_parameters)

    @cached_property
    def chunks(self) -> list[tuple[int, int]]:
        """Bounds of the V validation chunks."""
        return chunk_bounds(self.n_validation)

    @property
    def fields(self) -> Fields:
        """What the arena holds for this job, samples apart."""
        n, dtype = self.model.n_parameters, self.model.dtype.name
        s, k, t = self.plan.n_shards, len(self.blocks), self.plan.n_steps
        return {
            **board_fields(s, self.n_workers),
            "parameters": Field((n,), dtype),
            "best": Field((n if self.rule.by_score else 0,), dtype),
            "state": Field((len(self.optimizer.slots), n), dtype),
            "grads": Field((s, n), dtype),
            "losses": Field((t, s)),
            "weights": Field((t, s)),
            "penalties": Field((t, k)),
            "partials": Field((len(self.chunks), 4 * self.model.n_outputs)),
            "rate": Field((1,)),
            "shard_owner": Field((s,), "int64"),
            "block_owner": Field((k,), "int64"),
            "speed": Field((self.n_workers, 2)),
        }


@dataclass(frozen=True)
class Lease:
    """A number of epochs that the workers may run without asking the driver.

    tick: ticks that were done before; updates: optimiser steps likewise.
    """

    first_epoch: int
    n_epochs: int
    tick: int
    updates: int
    progress: Progress


def chunk_bounds(n_samples: int) -> list[tuple[int, int]]:
    """Bounds of the chunks in which predictions are made; depends on the samples alone."""
    starts = range(0, n_samples, CHUNK_ROWS)
    return [(start, min(start + CHUNK_ROWS, n_samples)) for start in starts]

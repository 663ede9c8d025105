"""The arguments that `phalanx.fit` takes for every kind of model, and the job they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from phalanx.clusters.control import Control
from phalanx.clusters.hosts.launch import cores
from phalanx.clusters.ray.cluster import check_cluster
from phalanx.errors import InvalidInput
from phalanx.job import Job
from phalanx.local import in_rounds
from phalanx.models.base import ModelSpec, Score
from phalanx.pure import checks
from phalanx.pure.aggregation import AGGREGATIONS
from phalanx.pure.agreement import REFUSE
from phalanx.pure.arrays import Array
from phalanx.pure.assignment import ASSIGNMENTS
from phalanx.pure.checks import AUTO, workers_of
from phalanx.pure.clipping import Clip
from phalanx.pure.factors import may_leave_factors
from phalanx.pure.optimizers import Optimizer
from phalanx.pure.options import (
    check_exchange,
    check_n_shards,
    check_shards,
    check_strategies,
    check_sync_every,
)
from phalanx.pure.plan import DISTRIBUTIONS, Plan, auto_shards, stratified
from phalanx.pure.registry import choose
from phalanx.pure.rounding import EXACT
from phalanx.pure.rounds import Rounds
from phalanx.pure.schedules import Constant
from phalanx.pure.stopping import Rule
from phalanx.run import Run, tell_fewer_workers
from phalanx.training.following import Agenda, Following
from phalanx.training.keeping import keeping
from phalanx.training.staffing import staffed
from phalanx.training.tuning import tuned

NONFINITE = ("stop", "skip", "keep")


@dataclass(frozen=True)
class Wishes:
    """See `phalanx.fit`."""

    epochs: int
    batch_size: int
    workers: Any = -1
    shards: Any = AUTO
    seed: int = 0
    data_distribution: Any = "random"
    task_assignment: Any = "round_robin"
    aggregation: Any = "mean"
    clip_norm: float | None = None
    clip_value: float | None = None
    nonfinite: str = "stop"
    loss_threshold: float | None = None
    checkpoint: Any = None
    checkpoint_every: Any = None
    resume: Any = None
    wire: str = EXACT
    exact: bool = True
    mixed: str = REFUSE
    cluster: Any = None
    sync_every: int = 1

    def __post_init__(self) -> None:
        """Raise InvalidInput for the first argument that breaks its rule."""
        checks.number("epochs", self.epochs, integer=True, at_least=1)
        checks.number("batch_size", self.batch_size, integer=True, at_least=1)
        checks.number("seed", self.seed, integer=True, at_least=0, below=2**32)
        check_sync_every(self.sync_every)
        check_n_shards(self.shards)
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), above=0, hint="Or None for no clipping.")
        if self.loss_threshold is not None:
            checks.number("loss_threshold", self.loss_threshold)
        checks.one_of("nonfinite", self.nonfinite, NONFINITE)
        check_strategies(self.data_distribution, self.task_assignment, self.aggregation)
        check_exchange(self.wire, self.exact, self.mixed, self.aggregation)
        n_workers(self.workers)
        check_cluster(self.cluster)
        checks.become_pythons(self, int, "epochs", "batch_size", "shards", "seed", "sync_every")
        checks.become_pythons(self, float, "clip_norm", "clip_value", "loss_threshold")
        checks.become_pythons(self, bool, "exact")

    @property
    def may_leave_factors(self) -> bool:
        """Whether shards may leave factors of their gradients, where the model has such."""
        rule = choose("aggregation", self.aggregation, AGGREGATIONS)
        return may_leave_factors(rule, self.wire, self.exact, self.sync_every)

    def plan(
        self,
        n_samples: int,
        n_parameters: int,
        labels_of: Callable[[], Any],
        max_steps: int | None = None,
    ) -> Plan:
        """Which samples form which shard; `labels_of` is asked for classes where they count."""
        batch_size = min(self.batch_size, n_samples)
        shards = self.shards
        if shards == AUTO:
            shards = auto_shards(batch_size, n_parameters, is_deep=True)
        check_shards(shards, batch_size)
        distribution = choose("data_distribution", self.data_distribution, DISTRIBUTIONS)
        stratifies = distribution is stratified or distribution not in DISTRIBUTIONS.values()
        if max_steps is not None:
            checks.number("steps_per_epoch", max_steps, integer=True, at_least=1)
            max_steps = int(max_steps)
        labels_B = labels_of() if stratifies else None
        return Plan(n_samples, batch_size, shards, self.seed, distribution, labels_B, max_steps)

    def job(
        self,
        model: ModelSpec,
        plan: Plan,
        optimizer: Optimizer,
        n_validation: int,
        score: Score | None,
        epsilon: float,
    ) -> Job:
        """The training, of a plan of single steps, in rounds where that is wanted.

        epsilon: what is added to the norm of a gradient that is clipped.
        """
        job = Job(
            model=model,
            plan=plan,
            optimizer=optimizer,
            aggregation=choose("aggregation", self.aggregation, AGGREGATIONS),
            assignment=choose("task_assignment", self.task_assignment, ASSIGNMENTS),
            rule=Rule(Constant(0.0), self.epochs, patience=inf, loss_threshold=self.loss_threshold),
            alpha=0.0,
            n_validation=n_validation,
            score=score,
            clip=Clip(self.clip_norm, self.clip_value, epsilon),
            nonfinite=self.nonfinite,
            wire=self.wire,
            exact=self.exact,
        )
        return in_rounds(staffed(job, n_workers(self.workers)), self.sync_every)

    def following(self, agenda: Agenda, plan: Plan) -> Following:
        """Where the training is kept and what it goes on from, its number of workers, and the
        settings of its optimiser, which the agenda has for single steps."""
        kept = keeping(self.checkpoint, self.checkpoint_every, self.resume, {})
        following = Following(
            checkpoints=kept.checkpoints, resume=kept.saved, agenda=agenda, mixed=self.mixed
        )
        following.cluster = self.cluster
        if self.sync_every > 1:
            following.agenda = RoundAgenda(agenda, Rounds.of(plan, self.sync_every))
        if self.workers == AUTO:
            following.control = Control(cores())
            following.watch = tuned(following.control, None)
        return following

    def tell_fewer_workers(self, run: Run) -> None:
        """Let the run's events say so where a number was asked for, and more than had a part."""
        workers = self.workers if self.cluster is None else self.cluster.n_workers or self.workers
        if workers != AUTO and workers > 0:
            tell_fewer_workers(run, int(workers))


class RoundAgenda:
    """See following.Agenda: the agenda of single steps, a round at a time."""

    def __init__(self, steps: Agenda, rounds: Rounds) -> None:
        self._steps, self._rounds = steps, rounds
        self.changes = steps.changes

    def settings(self, epoch: int) -> Array:
        """Of each round of an epoch."""
        return self._rounds.folded(self._steps.settings(epoch))


def n_workers(workers: Any) -> int:
    """`workers` as a number: -1 is one a core, "auto" the number that proves the quickest.

    Raises InvalidInput for what is none.
    """
    if workers is None:
        raise InvalidInput(
            "workers must be a positive integer, -1 for one a core, or 'auto'; got None."
        )
    return workers_of(workers, cores(), "workers", "1")


def callbacks_of(callbacks: Any) -> list[Any]:
    """One callback or several as a list. Raises InvalidInput for what cannot be called."""
    several = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
    several = [] if callbacks is None else several
    for callback in several:
        if not callable(callback):
            raise InvalidInput(
                "callbacks must be functions (epoch, logs) that may return True to stop; got "
                f"{callback!r} of type {type(callback).__name__}."
            )
    return several

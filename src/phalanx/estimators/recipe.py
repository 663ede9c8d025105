"""From an estimator's parameters to what the engine takes: optimiser, schedule, rule, plan, job.

Functions take the estimator as `params` and only read constructor parameters from it.
"""

from __future__ import annotations

from math import inf
from typing import Any

from phalanx.clusters.hosts.launch import cores, speaks
from phalanx.data.samples import Samples, TableSamples
from phalanx.job import Job
from phalanx.local import in_rounds
from phalanx.models.base import OutputScore
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.factored import factored
from phalanx.pure.aggregation import AGGREGATIONS
from phalanx.pure.arrays import Array
from phalanx.pure.assignment import ASSIGNMENTS
from phalanx.pure.checks import workers_of
from phalanx.pure.factors import may_leave_factors
from phalanx.pure.metrics import Metric
from phalanx.pure.optimizers import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    KeepGradient,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
)
from phalanx.pure.options import check_shards
from phalanx.pure.plan import DISTRIBUTIONS, Plan, auto_shards, sequential
from phalanx.pure.registry import choose
from phalanx.pure.schedules import Adaptive, Constant, InverseScaling, Schedule
from phalanx.pure.stopping import Rule
from phalanx.training.lbfgs import Limits
from phalanx.training.staffing import staffed
from phalanx.warning import warn_caller

AUTO_BATCH = 200  # rows, as scikit-learn's


def optimizer_of(params: Any) -> Optimizer:
    """The optimiser that `solver` names."""
    momentum, epsilon = float(params.momentum), float(params.epsilon)
    betas = float(params.beta_1), float(params.beta_2)
    with_momentum = Nesterov(momentum) if params.nesterovs_momentum else Momentum(momentum)
    made: dict[str, Optimizer] = {
        "sgd": with_momentum if momentum else SGD(),
        "momentum": Momentum(momentum),
        "nesterov": Nesterov(momentum),
        "adam": Adam(*betas, epsilon),
        "adamw": AdamW(*betas, epsilon),
        "rmsprop": RMSprop(epsilon=epsilon),
        "adagrad": Adagrad(epsilon),
    }
    return made[params.solver]


def schedule_of(params: Any) -> Schedule:
    """The learning-rate schedule; as in scikit-learn, only plain gradient descent has one."""
    initial = float(params.learning_rate_init)
    if params.solver in ("sgd", "momentum", "nesterov"):
        if params.learning_rate == "invscaling":
            return InverseScaling(initial, float(params.power_t))
        if params.learning_rate == "adaptive":
            return Adaptive(initial)
    return Constant(initial)


def rule_of(params: Any, one_epoch: bool) -> Rule:
    """When to stop."""
    return Rule(
        schedule=schedule_of(params),
        max_epochs=1 if one_epoch else int(params.max_iter),
        tol=float(params.tol),
        patience=float(params.n_iter_no_change),
        by_score=bool(params.early_stopping),
        loss_threshold=params.loss_threshold,
    )


def batch_size_of(params: Any, n_samples: int) -> int:
    """Rows of a batch; warns, as scikit-learn does, where there are fewer samples than that."""
    if params.batch_size == "auto":
        return min(AUTO_BATCH, n_samples)
    if params.batch_size > n_samples:
        warn_caller(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped."
        )
    return min(int(params.batch_size), n_samples)


def shards_of(params: Any, batch_size: int, n_parameters: int, is_a_part: bool = False) -> int:
    """S, checked against the batch; is_a_part: of a stream, whose other batches may be larger."""
    if params.shards == "auto":
        return auto_shards(batch_size, n_parameters)
    most = AUTO_BATCH if params.batch_size == "auto" else int(params.batch_size)
    check_shards(int(params.shards), most if is_a_part else batch_size)
    return int(params.shards)


def plan_of(
    params: Any,
    spec: MLPSpec,
    n_samples: int,
    seed: int,
    labels_B: Array | None,
    is_a_part: bool = False,
) -> Plan:
    """Which samples form which shard."""
    batch_size = batch_size_of(params, n_samples)
    name = params.data_distribution or ("random" if params.shuffle else "sequential")
    unlabelled = isinstance(name, str) and name != "stratified"
    return Plan(
        n_samples=n_samples,
        batch_size=batch_size,
        n_shards=shards_of(params, batch_size, spec.n_parameters, is_a_part),
        seed=seed,
        distribution=choose("data_distribution", name, DISTRIBUTIONS),
        labels_B=None if unlabelled else labels_B,  # every worker gets a copy
    )


def stochastic_job(
    params: Any,
    spec: MLPSpec,
    plan: Plan,
    training: TableSamples,
    validation: Samples | None,
    score: Metric,
    one_epoch: bool,
) -> Job:
    """A training by batches."""
    if _takes_factors(params):
        is_sparse = not training.is_dense
        spec = factored(spec, plan.batch_size, plan.n_shards, is_sparse=is_sparse)
    job = _job(
        params,
        spec,
        plan,
        optimizer=optimizer_of(params),
        rule=rule_of(params, one_epoch),
        n_validation=validation.n_samples if validation else 0,
        score=OutputScore(score) if validation else None,
    )
    return in_rounds(job, int(params.sync_every))


def _takes_factors(params: Any) -> bool:
    rule = choose("aggregation", params.aggregation, AGGREGATIONS)
    return may_leave_factors(rule, params.wire, bool(params.exact), params.sync_every)


def lbfgs_job(params: Any, spec: MLPSpec, n_samples: int) -> Job:
    """A full-batch gradient, computed anew as often as SciPy's minimiser asks for it."""
    shards = shards_of(params, n_samples, spec.n_parameters)
    plan = Plan(n_samples, n_samples, shards, seed_of_dropout(params), sequential)
    rule = Rule(Constant(0.0), max_epochs=2**62, patience=inf)
    return _job(params, spec, plan, optimizer=KeepGradient(), rule=rule)


def seed_of_dropout(params: Any) -> int:
    """L-BFGS needs one function throughout, so its dropout masks never change.

    Without dropout nothing is drawn: the RandomState may be the next model's, too.
    """
    from sklearn.utils import check_random_state

    if not params.dropout:
        return 0
    return int(check_random_state(params.random_state).randint(2**31 - 1))


def limits_of(params: Any) -> Limits:
    """When L-BFGS stops."""
    return Limits(
        max_iterations=int(params.max_iter),
        max_evaluations=int(params.max_fun),
        gradient_tolerance=float(params.tol),
        loss_threshold=params.loss_threshold,
        verbose=bool(params.verbose) and speaks(),
    )


def _job(
    params: Any,
    spec: MLPSpec,
    plan: Plan,
    optimizer: Optimizer,
    rule: Rule,
    n_validation: int = 0,
    score: OutputScore | None = None,
) -> Job:
    job = Job(
        model=spec,
        plan=plan,
        optimizer=optimizer,
        aggregation=choose("aggregation", params.aggregation, AGGREGATIONS),
        assignment=choose("task_assignment", params.task_assignment, ASSIGNMENTS),
        rule=rule,
        alpha=float(params.alpha),
        n_validation=n_validation,
        score=score,
        wire=params.wire,
        exact=bool(params.exact),
    )
    return staffed(job, workers_of(params.n_jobs, cores()))

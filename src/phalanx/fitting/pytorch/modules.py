"""Training a torch module: from the user's arguments to a job, and back into the user's objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput, UserFunctionError
from phalanx.fitting.pytorch.agenda import ModuleAgenda
from phalanx.fitting.pytorch.arguments import (
    check_hooks,
    check_judged,
    check_module,
    dtype_of,
    objective_of,
    optimizer_of,
    settings_of,
)
from phalanx.fitting.pytorch.changing import check_averaged, check_changing
from phalanx.fitting.pytorch.data import labels_of, samples_of
from phalanx.fitting.pytorch.doubts import (
    warn_if_unlike,
    warn_if_untrained,
    warn_unless_mean,
    warn_unless_settled,
)
from phalanx.fitting.pytorch.factoring import factored
from phalanx.fitting.pytorch.first_trial import first_trial
from phalanx.fitting.pytorch.follower import Follower
from phalanx.fitting.pytorch.known import example_of
from phalanx.fitting.pytorch.loaders import batch_size_of
from phalanx.fitting.pytorch.targets import telling_of_nan
from phalanx.fitting.pytorch.told import told_of
from phalanx.fitting.pytorch.trials import (
    check_one_row,
    first_rows_of,
    tried,
)
from phalanx.fitting.wishes import Wishes, callbacks_of
from phalanx.fitting.worth import counts_of, taped, times_of
from phalanx.job import Job
from phalanx.models.base import OwnScore
from phalanx.models.pytorch.describing import Described
from phalanx.models.pytorch.network import TorchSpec
from phalanx.models.pytorch.objective import Objective
from phalanx.models.pytorch.packing import packed
from phalanx.models.pytorch.vector import Vector
from phalanx.pure import checks
from phalanx.pure.plan import Plan
from phalanx.pure.stopping import Progress
from phalanx.run import Run
from phalanx.training.keeper import check_same, identity_of
from phalanx.training.train import train

NORM_EPSILON = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds


def fit_module(
    module: torch.nn.Module,
    data: Any,
    *,
    loss: Any = None,
    optimizer: Any = "adam",
    step: Callable[[Any, Any], Any] | None = None,
    metrics: Any = None,
    scheduler: Any = None,
    scheduler_every: str = "epoch",
    collate: Callable[[list[Any]], Any] | None = None,
    validation: Any = None,
    callbacks: Any = None,
    epochs: int = 1,
    batch_size: int | None = None,
    precision: str = "float32",
    device: str = "cpu",
    verbose: bool = False,
    **others: Any,
) -> Run:
    """See `phalanx.fit`."""
    wishes = Wishes(epochs, batch_size_of(data, batch_size), **others)
    calls = callbacks_of(callbacks)
    checks.switch("verbose", verbose)
    check_module(module)
    check_hooks(module)
    objective = objective_of(loss, step, metrics)
    check_judged(objective, validation)
    described = Described(module, optimizer_of(optimizer, module))
    warn_if_untrained(objective.loss, module, described.params)
    dtype = dtype_of(described.params)
    training, validating = _samples(data, validation, collate, dtype)
    spec = spec_of(module, described, objective, training, precision, device)
    plan = wishes.plan(training.n_samples, spec.n_parameters, lambda: labels_of(training))
    spec = _in_shards(module, spec, described, objective, training, plan, wishes)
    job = _job(wishes, spec, described, plan, objective, validating)
    agenda = ModuleAgenda(described, plan, scheduler, scheduler_every)
    sync_every = wishes.sync_every
    follower = Follower(module, described, spec, agenda, objective, calls, verbose, sync_every)
    following = wishes.following(agenda, plan)
    following.mirror = follower
    following.told = told_of(module, objective, described, spec.vector)
    following.on_epoch = follower.epoch_ended if follower.is_followed else None
    if following.resume is not None:
        check_same(following.resume, identity_of(job, training, validating, following.told))
        follower.catch_up(following.resume)
    start = follower.start()
    _try_validation(spec, follower, validating)
    try:
        with telling_of_nan(training, place=-1):
            trained = train(job, start, training, validating, Progress(0.0), following)
    except BaseException as error:
        follower.failed(error)
        raise
    wishes.tell_fewer_workers(trained.run)
    return follower.take(trained)


def _samples(
    data: Any, validation: Any, collate: Any, dtype: torch.dtype
) -> tuple[Samples, Samples | None]:
    """Those to train on, and those to validate on, if any; warns of what is not settled."""
    training = samples_of(data, collate, dtype)
    warn_unless_settled(training)
    if validation is None:
        return training, None
    with _of_validation():
        validating = samples_of(validation, collate, dtype)
        warn_unless_settled(validating)
    return training, validating


def _try_validation(spec: TorchSpec, follower: Follower, validating: Samples | None) -> None:
    if validating is not None:
        with _of_validation():
            tried(spec.build(follower.values()).measures, validating)


@contextmanager
def _of_validation() -> Iterator[None]:
    """Within it, what is wrong with data is said of those to validate on."""
    try:
        yield
    except (InvalidInput, UserFunctionError) as error:
        raise type(error)(
            f"validation must be data like those to train on, e.g. (X_val, y_val); here {error}"
        ) from error


def _in_shards(
    module: torch.nn.Module,
    spec: TorchSpec,
    described: Described,
    objective: Objective,
    training: Samples,
    plan: Plan,
    wishes: Wishes,
) -> TorchSpec:
    """The description as the plan's shards are to be computed, each by itself.

    Raises InvalidInput where they cannot be; warns where they need not add up to the batch.
    """
    if plan.n_shards > 1:
        check_averaged(module, spec.vector)
        warn_unless_mean(objective.loss, spec, described.params, training)
    if times_of(plan, wishes.epochs, wishes.sync_every)[1]:
        check_one_row(spec, described.params, training, plan)
    return factored(spec, described.params, plan) if wishes.may_leave_factors else spec


def _job(
    wishes: Wishes,
    spec: TorchSpec,
    described: Described,
    plan: Plan,
    objective: Objective,
    validating: Samples | None,
) -> Job:
    """The training, with a tape of the module where it is worth one."""
    counts = counts_of(plan, wishes.epochs, wishes.sync_every)
    return wishes.job(
        replace(spec, counts=taped(counts, spec.n_parameters)),
        plan,
        described.shaped(spec.vector),
        validating.n_samples if validating else 0,
        OwnScore(3 + len(objective.metrics)) if validating else None,
        NORM_EPSILON,
    )


def spec_of(
    module: torch.nn.Module,
    described: Described,
    objective: Objective,
    training: Samples,
    precision: str,
    device: str,
) -> TorchSpec:
    """The module's description, after a trial of a few samples on a copy of it.

    Raises InvalidInput where the trial fails.
    """
    settings = settings_of(precision, device)
    vector = Vector.of(described.params, {}, dtype_of(described.params))
    batch = first_rows_of(training)
    example = example_of(module, objective, settings, batch)
    spec = TorchSpec(
        packed(module, described.params, objective, example),
        vector,
        described.regions(vector),
        sum(p.numel() for p in described.params),
        settings,
        described.trained,
    )
    found = first_trial(spec, described.params, batch)
    check_changing(module, described.params, found.changing)
    warn_if_unlike(found.unlike, batch.count)
    buffers = {name: b for name, b in module.named_buffers() if name in found.changing}
    whole = Vector.of(described.params, buffers, dtype_of(described.params))
    return replace(spec, vector=whole, regions=described.regions(whole))

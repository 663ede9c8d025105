"""Training a compiled Keras model: from the arguments of `model.fit` to a job, and back."""

from __future__ import annotations

from dataclasses import fields, replace
from inspect import signature
from typing import Any

import keras
import numpy as np

from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.fitting.keras3.arguments import (
    PREDICTED,
    check_model,
    check_own,
    check_stateless,
    check_visits,
    clips_of,
)
from phalanx.fitting.keras3.data import KerasData, split_off
from phalanx.fitting.keras3.described import DescribedModel
from phalanx.fitting.keras3.doubts import warn_unless_mean
from phalanx.fitting.keras3.factoring import factored
from phalanx.fitting.keras3.follower import KerasFollower
from phalanx.fitting.keras3.told import told_of
from phalanx.fitting.pytorch.loaders import batch_size_of
from phalanx.fitting.pytorch.targets import telling_of_nan
from phalanx.fitting.wishes import Wishes, n_workers
from phalanx.fitting.worth import counts_of, taped
from phalanx.job import Job
from phalanx.models.base import OwnScore
from phalanx.models.keras3.network import KerasSpec, flat_outputs, joint_dtype
from phalanx.pure import checks
from phalanx.pure.plan import Plan
from phalanx.pure.stopping import Progress
from phalanx.training.keeper import check_same, identity_of
from phalanx.training.train import predict as pass_over
from phalanx.training.train import train

HINT = "help(phalanx.fit) and help(keras.Model.fit) name them."


def fit(
    model: Any,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: Any = "auto",
    callbacks: Any = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool = True,
    class_weight: Any = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: Any = 1,
    **others: Any,
) -> Any:
    """See `phalanx.fit`."""
    check_model(model, is_trained=True)
    wishes = _wishes(model, x, batch_size, epochs, shuffle, initial_epoch, others)
    initial_epoch = int(initial_epoch)
    data = KerasData.of(x, y, sample_weight)
    data, validation = split_off(data, validation_data, validation_split)
    if validation is not None and validation_steps is not None:
        validation = validation.first(validation_steps, validation_batch_size or wishes.batch_size)
    data = data.weighted(class_weight)
    training, validating = data.samples(), None if validation is None else validation.samples()
    described = DescribedModel(model, training, is_local=wishes.sync_every > 1)
    if validating is not None:
        described.trial.check_fits(validating)
    n_parameters = described.spec.n_parameters
    plan = wishes.plan(training.n_samples, n_parameters, data.labels, steps_per_epoch)
    check_visits(plan)
    described.spec = _in_shards(described, plan, wishes)
    job = _job(wishes, described, plan, validating)
    follower = KerasFollower(
        described, plan, callbacks, verbose, initial_epoch, epochs, validation_freq
    )
    following = wishes.following(follower, plan)
    following.mirror, following.told = follower, told_of(model, described.constants)
    following.on_epoch = follower.epoch_ended if follower.is_followed else None
    if following.resume is not None:  # before callbacks hear of it
        check_same(following.resume, identity_of(job, training, validating, following.told))
    follower.begin(following.resume)
    state = described.start()  # with what a callback has made of the model at the beginning
    state.epochs = initial_epoch
    with telling_of_nan(training, place=1):
        trained = train(job, state, training, validating, Progress(0.0), following)
    wishes.tell_fewer_workers(trained.run)
    return follower.take(trained)


def _wishes(
    model: Any,
    x: Any,
    batch_size: int | None,
    epochs: int,
    shuffle: bool,
    initial_epoch: int,
    others: dict[str, Any],
) -> Wishes:
    """Keras' arguments, and what the model was compiled with, as those that all fits have."""
    known = {*list(signature(fit).parameters)[1:-1], *(field.name for field in fields(Wishes))}
    checks.arguments("phalanx.fit", others, known, HINT)
    checks.boolean("shuffle", shuffle)
    order = {"data_distribution": "random" if shuffle else "sequential"}
    checks.number("epochs", epochs, integer=True, at_least=1)
    checks.number("initial_epoch", initial_epoch, integer=True, at_least=0, below=epochs)
    clips = clips_of(model.optimizer)
    batch_size = batch_size_of(x, batch_size)
    return Wishes(epochs - initial_epoch, batch_size, **{**order, **clips, **others})


def _in_shards(described: DescribedModel, plan: Plan, wishes: Wishes) -> KerasSpec:
    """The description as the plan's shards are to be computed, each by itself; warns where they
    need not add up to the batch."""
    if plan.n_shards > 1:
        warn_unless_mean(described.trial)
    return factored(described, plan) if wishes.may_leave_factors else described.spec


def _job(wishes: Wishes, described: DescribedModel, plan: Plan, validating: Samples | None) -> Job:
    """The training, with a tape of the model and of its optimiser where they are worth one."""
    counts = counts_of(plan, wishes.epochs, wishes.sync_every)
    spec, optimizer = described.spec, described.optimizer.described
    is_recorded = bool(counts) and not optimizer.shapes  # else every variable has its own
    score = OwnScore(2 + spec.n_measures) if validating else None
    return wishes.job(
        replace(spec, counts=taped(counts, spec.n_parameters)),
        plan,
        replace(optimizer, is_recorded=is_recorded),
        validating.n_samples if validating else 0,
        score,
        epsilon=0.0,
    )


def evaluate(
    model: Any,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    verbose: Any = "auto",
    sample_weight: Any = None,
    *,
    return_dict: bool = False,
    workers: Any = -1,
    **others: Any,
) -> Any:
    """See `phalanx.evaluate`."""
    _check_names(evaluate, others)
    check_model(model, is_trained=False)
    samples = KerasData.of(x, y, sample_weight).samples()
    described = DescribedModel(model, samples, is_trained=False)
    spec, values_N = described.spec, described.values()
    count, shape = n_workers(workers), (2 + spec.n_measures,)
    sums_VM = pass_over(spec, values_N, samples, count, shape, np.dtype(np.float64), True)
    total, weight, *measures = sums_VM.sum(axis=0).tolist()
    figures = described.trial.figures(total / weight, measures)
    if return_dict:
        return figures
    return model._flatten_metrics_in_order(figures)


def predict(
    model: Any,
    x: Any,
    batch_size: int | None = None,
    verbose: Any = "auto",
    *,
    workers: Any = -1,
    **others: Any,
) -> Any:
    """See `phalanx.predict`."""
    _check_names(predict, others)
    check_own(model, PREDICTED, "call")
    check_stateless(model)
    samples = KerasData.of(x).samples()
    described = DescribedModel(model, samples, is_trained=False, is_measured=False)
    nest = described.trial.predicted
    parts = [np.asarray(keras.ops.convert_to_numpy(part)) for part in flat_outputs(nest)]
    shapes = [part.shape[1:] for part in parts]
    sizes = [int(np.prod(shape)) for shape in shapes]
    single = len(parts) == 1
    dtypes = [np.dtype(np.float32) if p.dtype.kind == "V" else p.dtype for p in parts]  # bfloat16
    outputs = pass_over(
        described.spec,
        described.values(),
        samples,
        n_workers(workers),
        shapes[0] if single else (sum(sizes),),
        joint_dtype(dtypes),
    )
    if single:
        return outputs
    columns = np.split(outputs, np.cumsum(sizes)[:-1], axis=1)
    arrays = (
        c.reshape(-1, *shape).astype(dtype, copy=False)
        for c, shape, dtype in zip(columns, shapes, dtypes, strict=True)
    )
    return _like(nest, arrays)


def _check_names(function: Any, others: dict[str, Any]) -> None:
    """Raise InvalidInput for an argument that the function lacks; some, Keras' own has."""
    name = function.__name__
    for argument in others:
        if argument in signature(getattr(keras.Model, name)).parameters:
            raise InvalidInput(
                f"phalanx.{name} goes over all samples, on the workers, and has no argument "
                f"{argument!r}. Use model.{name} for it."
            )
    known = list(signature(function).parameters)[1:-1]
    checks.arguments(f"phalanx.{name}", others, known, f"help(phalanx.{name}) names them.")


def _like(nest: Any, arrays: Any) -> Any:
    """The arrays in the order of a nest, nested as it is."""
    if isinstance(nest, dict):
        return {key: _like(part, arrays) for key, part in nest.items()}
    if isinstance(nest, (list, tuple)):
        return type(nest)([_like(part, arrays) for part in nest])
    return next(arrays)

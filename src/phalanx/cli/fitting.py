"""From a table and settings to a trained, evaluated predictor."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import typer

from phalanx.cli.console import CTRL_C, note
from phalanx.cli.progress import Progress
from phalanx.cli.settings import Settings
from phalanx.cli.splitting import split_index
from phalanx.data.preprocessing import Preprocessing
from phalanx.data.table import Table, as_text
from phalanx.errors import InvalidInput, PhalanxError
from phalanx.models.mlp import MLPSpec
from phalanx.pure.arrays import Array
from phalanx.pure.stopping import Reason
from phalanx.run import Run
from phalanx.runs.evaluation import Evaluation
from phalanx.runs.predictor import Predictor
from phalanx.runs.record import Record

LBFGS_ADVICE = "Increase max_iter or max_fun, or scale the data."  # which has been scaled


@dataclass(frozen=True)
class Split:
    """The samples to train on, those to judge by, and the preprocessing learnt of the former.

    Without held-out samples the training samples are judged by; `judged` says which.
    """

    training: Table
    held_out: Table | None
    preprocessing: Preprocessing

    @property
    def judged(self) -> str:
        return "held-out samples" if self.held_out else "training samples"


@dataclass(frozen=True)
class Outcome:
    """What a training made."""

    predictor: Predictor
    run: Run
    evaluation: Evaluation
    judged: str

    def record(self, name: str, source: str, settings: Settings, **more: Any) -> Record:
        """The record for the run's folder."""
        target = self.predictor.preprocessing.target
        return Record(
            name=name,
            source=source,
            target=target.column,
            task=target.task,
            model=self.predictor.spec,
            settings=settings.as_texts(),
            run=self.run,
            evaluation=self.evaluation,
            judged=self.judged,
            **more,
        )


def split(table: Table, target: str, task: str | None, fraction: float, seed: int) -> Split:
    """Set a share of the samples aside, each class's alike, and learn the preprocessing.

    Raises InvalidInput where the table cannot be used, or is too small to be split. Whether it can
    be used is found by learning from all samples, so that it depends on the file alone; what is
    kept is learnt from those to train on.
    """
    whole = Preprocessing.learn(table.checked(), target, task)
    if not fraction:
        return Split(table, None, whole)
    task = whole.target.task
    labels_B = as_text(table[target]) if task == "classification" else None
    train_B, held_B = split_index(table, target, labels_B, fraction, seed)
    training = table.take(train_B)
    return Split(training, table.take(held_B), Preprocessing.learn(training, target, task))


def fit(
    parts: Split, settings: Settings, follower: Progress | None = None, **keeping: Any
) -> Outcome:
    """Train on a split; the follower, if any, is told how it goes.

    keeping: the arguments `checkpoint`, `checkpoint_every` and `resume` of an estimator's `fit`.
    Raises what breaks a rule as InvalidInput, scikit-learn's own ValueErrors among it.
    """
    preprocessing = parts.preprocessing
    estimator = settings.estimator(preprocessing.target.task)
    samples = preprocessing.samples(parts.training), preprocessing.targets(parts.training)
    if parts.held_out:
        held_out = preprocessing.samples(parts.held_out), preprocessing.targets(parts.held_out)
        if settings.solver != "lbfgs":  # SciPy's minimiser has no epochs to judge
            keeping["validation_data"] = held_out
    if follower is None:
        _fit(estimator, samples, keeping)
    elif settings.solver == "lbfgs":  # it is SciPy's, and has no epochs to tell of
        note("lbfgs says nothing before its end")
        _fit(estimator, samples, keeping)
    else:
        _fit_followed(estimator, samples, keeping, follower)
    predictor = Predictor(preprocessing, *_network(estimator))
    judged = parts.judged + (", by which the epoch was chosen" if settings.early_stopping else "")
    evaluation = predictor.evaluate(parts.held_out or parts.training, settings.processes)
    return Outcome(predictor, estimator.run_, evaluation, judged)


def fit_to_the_end(parts: Split, settings: Settings, follower: Progress | None = None) -> Outcome:
    """Train as `fit` does; exit after Ctrl-C, even one that came too late to end the training."""
    outcome = fit(parts, settings, follower)
    if any(event.what == Reason.INTERRUPTED for event in outcome.run.events):
        raise typer.Exit(CTRL_C)
    return outcome


def _fit_followed(estimator: Any, samples: Any, more: dict[str, Any], by: Progress) -> None:
    estimator._watch, estimator._tell_event, estimator._tell_epoch = by.watch, by.event, by.epoch
    try:
        with by:
            _fit(estimator, samples, more)
    finally:
        del estimator._watch, estimator._tell_event, estimator._tell_epoch


def _fit(estimator: Any, samples: Any, more: dict[str, Any]) -> None:
    """Fit; warnings become notes, less those of which the report tells anyway."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(*samples, **more)
        except PhalanxError:
            raise
        except ValueError as error:
            raise InvalidInput(
                f"the training failed: {error} Check the data, or try a smaller --learning-rate."
            ) from error
    for warning in caught:
        if "hasn't converged" not in str(warning.message):
            note(str(warning.message).replace(LBFGS_ADVICE, "Raise --epochs or --tol."))


def _network(estimator: Any) -> tuple[MLPSpec, Array]:
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    sizes = (len(coefs[0]), *(len(intercept) for intercept in intercepts))
    loss, dtype = estimator._network_loss(), coefs[0].dtype.name
    spec = MLPSpec(sizes, estimator.activation, loss, dtype)
    return spec, spec.pack(coefs, intercepts)

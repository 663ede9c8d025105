"""What an estimator has learnt, as scikit-learn's attributes: where a training begins, and what it
comes to."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from sklearn.base import BaseEstimator

from phalanx.clusters.hosts.launch import cores
from phalanx.estimators.beginning import Beginning
from phalanx.estimators.initial import initial_weights
from phalanx.estimators.saying import say_end, say_minimum
from phalanx.job import Job
from phalanx.models.mlp import MLPSpec
from phalanx.pure.arrays import Array
from phalanx.pure.checks import workers_of
from phalanx.pure.registry import name_of
from phalanx.pure.stopping import Progress
from phalanx.run import Run, tell_fewer_workers
from phalanx.training.lbfgs import Minimum
from phalanx.training.state import State
from phalanx.training.train import Trained


@dataclass
class OptimizerState:
    """What `partial_fit` carries from call to call, for the optimiser of that name alone."""

    optimizer: str
    learning_rate: float
    state_MN: Array
    updates: int = 0


class Learnt(BaseEstimator):  # type: ignore[misc]
    """See the module."""

    def _initialize(self, spec: MLPSpec) -> None:
        """The attributes of a network that has learnt nothing."""
        self.n_iter_ = self.t_ = self._epochs_done = 0
        self._seed: int | None = None
        self.n_layers_ = len(spec.sizes)
        self._forget_optimizer()
        self.coefs_, self.intercepts_ = initial_weights(spec, self._random_state)
        if self.solver != "lbfgs":
            self._begin_curves()

    def _begin_curves(self) -> None:
        """The attributes that scikit-learn has for every solver but L-BFGS."""
        self._no_improvement_count = 0
        self.loss_curve_: list[float] = []
        by_score = self.early_stopping
        self.validation_scores_: list[float] | None = [] if by_score else None
        self.best_validation_score_ = -np.inf if by_score else None
        self.best_loss_ = None if by_score else np.inf

    def _forget_optimizer(self) -> None:
        """Its state belongs to weights that are no more."""
        self.__dict__.pop("_optimizer", None)

    def _start(self, spec: MLPSpec, job: Job, incremental: bool) -> State:
        """Where training begins; only `partial_fit` goes on with the optimiser's state."""
        name = name_of(job.optimizer)
        kept: OptimizerState | None = getattr(self, "_optimizer", None) if incremental else None
        if kept is None or kept.optimizer != name:
            zeros_MN = np.zeros((len(job.optimizer.slots), spec.n_parameters), spec.dtype)
            kept = OptimizerState(name, float(self.learning_rate_init), zeros_MN)
        self._optimizer = kept
        epochs = getattr(self, "_epochs_done", 0)
        return State(spec.pack(self.coefs_, self.intercepts_), kept.state_MN, kept.updates, epochs)

    def _progress(self, rate: float) -> Progress:
        """What earlier calls of a warm start or of partial_fit left behind."""
        best_loss = getattr(self, "best_loss_", None)
        best_score = getattr(self, "best_validation_score_", None)
        return Progress(
            rate=rate,
            samples_seen=int(getattr(self, "t_", 0)),
            best_loss=inf if best_loss is None else best_loss,
            best_score=-inf if best_score is None else best_score,
            stale_epochs=int(getattr(self, "_no_improvement_count", 0)),
        )

    def _take(self, spec: MLPSpec, trained: Trained, incremental: bool) -> None:
        """Make the outcome of a training this estimator's own."""
        progress, state = trained.progress, trained.state.own()
        self._unpack(spec, state.params_N)
        name = self._optimizer.optimizer
        self._optimizer = OptimizerState(name, progress.rate, state.state_MN, state.updates)
        self._epochs_done = state.epochs
        self.n_iter_, self.t_ = progress.epochs, progress.samples_seen
        self._no_improvement_count = progress.stale_epochs
        losses = [np.float64(loss) for loss in trained.run.losses]
        self.loss_curve_ += losses
        if losses:
            self.loss_ = losses[-1]
        if self.early_stopping:
            self.best_validation_score_ = progress.best_score
        else:
            self.best_loss_ = np.float64(progress.best_loss)
        if trained.run.scores:
            self.validation_scores_ = (self.validation_scores_ or []) + trained.run.scores
        self._keep_run(trained.run)
        say_end(self, trained, incremental)

    def _keep_run(self, run: Run) -> None:
        tell_fewer_workers(run, workers_of(self.n_jobs, cores()))
        self.run_ = run

    def _take_minimum(self, spec: MLPSpec, minimum: Minimum) -> None:
        """Make the outcome of L-BFGS this estimator's own."""
        self._forget_optimizer()
        self._unpack(spec, minimum.trained.state.params_N.copy())
        self.n_iter_, self.loss_ = minimum.iterations, np.float64(minimum.loss)
        self._keep_run(minimum.trained.run)
        say_minimum(minimum)

    def _unpack(self, spec: MLPSpec, params_N: Array) -> None:
        """params_N: of which nobody else keeps a view; the weights are views of it."""
        self.coefs_, self.intercepts_ = spec.unpack(params_N)

    def _beginning(self, first: bool) -> Beginning:
        losses, scores = (
            getattr(self, f"{name}_", None) for name in ("loss_curve", "validation_scores")
        )
        return Beginning(self._random_state, first, len(losses or ()), len(scores or ()))

    def _cut_curves(self, began: Beginning) -> None:
        """Leave of the curves what there was when the fit began that is gone on with."""
        if hasattr(self, "loss_curve_"):
            self.loss_curve_ = self.loss_curve_[: began.epochs]
            scores = self.validation_scores_
            self.validation_scores_ = None if scores is None else scores[: began.scores]

    def _check_finite(self) -> None:
        if not all(np.isfinite(w).all() for w in [*self.coefs_, *self.intercepts_]):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )

"""What both estimators share: from constructor parameters and data to a job, and back.

Behaviour, attributes and random numbers of the initial weights follow scikit-learn 1.9's
`BaseMultilayerPerceptron`; the training itself is `phalanx.training`'s.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from phalanx.aggregation import AGGREGATIONS
from phalanx.arrays import Array
from phalanx.assignment import ASSIGNMENTS
from phalanx.checks import workers_of
from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.estimators.parameters import check_parameters, check_shards, hidden_sizes
from phalanx.exchange.board import processors
from phalanx.job import Job
from phalanx.layout import block_bounds
from phalanx.lbfgs import Limits, minimize
from phalanx.metrics import Metric
from phalanx.models.mlp import MLPSpec
from phalanx.optimizers import (
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
from phalanx.plan import DISTRIBUTIONS, Plan, auto_shards, sequential
from phalanx.registry import choose
from phalanx.run import EpochRecord
from phalanx.schedules import Adaptive, Constant, InverseScaling, Schedule
from phalanx.stopping import Progress, Reason, Rule
from phalanx.training import OnEpoch, State, Trained, predict, train, useful_workers


@dataclass
class OptimizerState:
    """What `partial_fit` carries from call to call."""

    solver: str
    learning_rate: float
    state_MN: Array
    updates: int = 0


@dataclass
class Target:
    """A checked target: class indices [n] or values [n, O], and labels for stratifying."""

    classes_B: Array | None
    values_BO: Array | None
    labels_B: Array | None

    def samples(self, x: Any, weight_B: Array | None) -> Samples:
        return Samples.of(x, self.classes_B, self.values_BO, weight_B)

    def take(self, index: Array) -> Target:
        arrays = (self.classes_B, self.values_BO, self.labels_B)
        return Target(*(None if a is None else a[index] for a in arrays))


class BaseMLP(BaseEstimator):  # type: ignore[misc]
    """Shared by MLPClassifier and MLPRegressor."""

    def _network_loss(self) -> str:
        """Name of the network's loss, once the target is known."""
        raise NotImplementedError

    def _score_metric(self) -> Metric:
        """How validation samples are judged after each epoch."""
        raise NotImplementedError

    def _check_data(self, X: Any, y: Any, reset: bool, incremental: bool) -> tuple[Any, Target]:
        """Checked samples and target of a fit."""
        raise NotImplementedError

    def _encode_validation(self, X: Any, y: Any) -> tuple[Any, Target]:
        """Checked samples and target of the user's validation set."""
        raise NotImplementedError

    def _sample_weight(self, y: Any, weight_B: Array | None) -> Array | None:
        """Sample weights with class weights worked in."""
        return weight_B

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        validation_data: Any = None,
        incremental: bool = False,
    ) -> Any:
        check_parameters(self)
        workers = workers_of(self.n_jobs, processors())
        if incremental and self.early_stopping:
            raise InvalidInput(
                "partial_fit does not support early_stopping=True: one call is one epoch. "
                "Use fit, or set early_stopping=False."
            )
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, target = self._check_data(X, y, reset=first, incremental=incremental)
        weight_B = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        weight_B = self._sample_weight(y, weight_B)
        validation = self._check_validation(validation_data)
        spec = self._spec(X, target)
        self._random_state = check_random_state(self.random_state)
        if first:
            self._initialize(spec)
        if self.solver == "lbfgs":
            self._fit_lbfgs(spec, target.samples(X, _in(weight_B, X)), workers)
        else:
            self._fit_stochastic(spec, X, target, weight_B, validation, workers, incremental)
        if not all(np.isfinite(w).all() for w in [*self.coefs_, *self.intercepts_]):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        return self

    def _check_validation(self, validation_data: Any) -> Samples | None:
        if validation_data is None:
            return None
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise InvalidInput(
                "validation_data must be (X, y) or (X, y, sample_weight); got "
                f"{type(validation_data).__name__}. Pass e.g. validation_data=(X_val, y_val)."
            )
        X, target = self._encode_validation(*validation_data[:2])
        weights = validation_data[2] if len(validation_data) == 3 else None
        weight_B = None if weights is None else _check_sample_weight(weights, X)
        return target.samples(X, _in(weight_B, X))

    def _spec(self, X: Any, target: Target) -> MLPSpec:
        if target.classes_B is not None:
            self.n_outputs_ = len(self.classes_)
        else:
            assert target.values_BO is not None
            self.n_outputs_ = target.values_BO.shape[1]
        sizes = (X.shape[1], *hidden_sizes(self.hidden_layer_sizes), self.n_outputs_)
        return MLPSpec(
            sizes, self.activation, self._network_loss(), X.dtype.name, float(self.dropout)
        )

    def _initialize(self, spec: MLPSpec) -> None:
        """scikit-learn's initial weights, drawn in its order (Glorot & Bengio 2010)."""
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = len(spec.sizes)
        from phalanx.models.mlp.losses import LOSSES

        self.out_activation_ = LOSSES[spec.loss].out_activation
        self.coefs_, self.intercepts_ = [], []
        factor = 2.0 if self.activation in ("logistic", "sigmoid") else 6.0
        for fan_in, fan_out in zip(spec.sizes, spec.sizes[1:], strict=False):
            bound = np.sqrt(factor / (fan_in + fan_out))
            draw = self._random_state.uniform
            self.coefs_.append(draw(-bound, bound, (fan_in, fan_out)).astype(spec.dtype))
            self.intercepts_.append(draw(-bound, bound, fan_out).astype(spec.dtype))
        self._epochs_done = 0
        self._seed = None
        if self.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            by_score = self.early_stopping
            self.validation_scores_: list[float] | None = [] if by_score else None
            self.best_validation_score_ = -np.inf if by_score else None
            self.best_loss_ = None if by_score else np.inf

    def _fit_stochastic(
        self,
        spec: MLPSpec,
        X: Any,
        target: Target,
        weight_B: Array | None,
        validation: Samples | None,
        workers: int,
        incremental: bool,
    ) -> None:
        if self.early_stopping and validation is None:
            X, target, weight_B, validation = self._split(X, target, weight_B)
        training = target.samples(X, _in(weight_B, X))
        job, start, before = self._job(spec, training, target, validation, workers, incremental)
        watch = getattr(self, "_watch", None)
        trained = train(job, start, training, validation, before, self._on_epoch(), watch)
        self._take(spec, trained, incremental)

    def _split(
        self, X: Any, target: Target, weight_B: Array | None
    ) -> tuple[Any, Target, Array | None, Samples]:
        """Part of the training samples set aside, as scikit-learn sets it aside."""
        index_train, index_val = train_test_split(
            np.arange(X.shape[0]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=self._stratify_labels(target),
        )
        if len(index_val) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        val_weight = None if weight_B is None else weight_B[index_val]
        held_out = target.take(index_val).samples(X[index_val], _in(val_weight, X))
        train_weight = None if weight_B is None else weight_B[index_train]
        return X[index_train], target.take(index_train), train_weight, held_out

    def _stratify_labels(self, target: Target) -> Array | None:
        return None

    def _job(
        self,
        spec: MLPSpec,
        training: Samples,
        target: Target,
        validation: Samples | None,
        workers: int,
        incremental: bool,
    ) -> tuple[Job, State, Progress]:
        plan = self._plan(spec, training.n_samples, target)
        rule = Rule(
            schedule=self._schedule(),
            max_epochs=1 if incremental else int(self.max_iter),
            tol=float(self.tol),
            patience=float(self.n_iter_no_change),
            by_score=bool(self.early_stopping),
            loss_threshold=self.loss_threshold,
        )
        optimizer = self._make_optimizer()
        if not (incremental and hasattr(self, "_optimizer")):
            slots = (len(optimizer.slots), spec.n_parameters)
            zeros_MN = np.zeros(slots, spec.dtype)
            self._optimizer = OptimizerState(self.solver, float(self.learning_rate_init), zeros_MN)
        kept = self._optimizer
        job = Job(
            model=spec,
            plan=plan,
            optimizer=optimizer,
            aggregation=choose("aggregation", self.aggregation, AGGREGATIONS),
            assignment=choose("task_assignment", self.task_assignment, ASSIGNMENTS),
            rule=rule,
            alpha=float(self.alpha),
            n_workers=useful_workers(workers, plan.n_shards, len(block_bounds(spec.n_parameters))),
            n_validation=validation.n_samples if validation else 0,
            score=self._score_metric() if validation else None,
        )
        start = State(
            spec.pack(self.coefs_, self.intercepts_),
            kept.state_MN,
            kept.updates,
            getattr(self, "_epochs_done", 0),
        )
        return job, start, self._progress(kept.learning_rate)

    def _plan(self, spec: MLPSpec, n_samples: int, target: Target) -> Plan:
        batch_size = min(200, n_samples) if self.batch_size == "auto" else int(self.batch_size)
        if batch_size > n_samples:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped.",
                stacklevel=5,
            )
            batch_size = n_samples
        shards = self._shards(batch_size, spec.n_parameters)
        if getattr(self, "_seed", None) is None:
            self._seed = int(self._random_state.randint(np.iinfo(np.int32).max))
        name = self.data_distribution or ("random" if self.shuffle else "sequential")
        distribution = choose("data_distribution", name, DISTRIBUTIONS)
        return Plan(n_samples, batch_size, shards, self._seed, distribution, target.labels_B)

    def _shards(self, batch_size: int, n_parameters: int) -> int:
        if self.shards == "auto":
            return auto_shards(batch_size, n_parameters)
        check_shards(int(self.shards), batch_size)
        return int(self.shards)

    def _schedule(self) -> Schedule:
        initial = float(self.learning_rate_init)
        if self.solver in ("sgd", "momentum", "nesterov"):
            if self.learning_rate == "invscaling":
                return InverseScaling(initial, float(self.power_t))
            if self.learning_rate == "adaptive":
                return Adaptive(initial)
        return Constant(initial)

    def _make_optimizer(self) -> Optimizer:
        momentum, epsilon = float(self.momentum), float(self.epsilon)
        betas = float(self.beta_1), float(self.beta_2)
        nesterov = Nesterov(momentum) if self.nesterovs_momentum else Momentum(momentum)
        made: dict[str, Optimizer] = {
            "sgd": nesterov if momentum else SGD(),
            "momentum": Momentum(momentum),
            "nesterov": Nesterov(momentum),
            "adam": Adam(*betas, epsilon),
            "adamw": AdamW(*betas, epsilon),
            "rmsprop": RMSprop(epsilon=epsilon),
            "adagrad": Adagrad(epsilon),
        }
        return made[self.solver]

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
        self._unpack(spec, trained.state.params_N)
        kept, progress = self._optimizer, trained.progress
        kept.state_MN, kept.updates = trained.state.state_MN, trained.state.updates
        kept.learning_rate = progress.rate
        self._epochs_done = trained.state.epochs
        self.n_iter_ = progress.epochs
        self.t_ = progress.samples_seen
        self._no_improvement_count = progress.stale_epochs
        losses = [record.loss for record in trained.records]
        self.loss_curve_ += losses
        if losses:
            self.loss_ = losses[-1]
        if self.early_stopping:
            self.best_validation_score_ = progress.best_score
        else:
            self.best_loss_ = progress.best_loss
        if trained.run.scores:
            self.validation_scores_ = (self.validation_scores_ or []) + trained.run.scores
        self.run_ = trained.run
        self._tell(trained, incremental)

    def _tell(self, trained: Trained, incremental: bool) -> None:
        """What scikit-learn says when a training ends."""
        if trained.reason is Reason.INTERRUPTED:
            warnings.warn("Training interrupted by user.", stacklevel=6)
        elif trained.reason is Reason.MAX_EPOCHS and not incremental:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=6,
            )
        elif trained.reason is Reason.NO_IMPROVEMENT and self.verbose:
            what = "Validation score" if self.early_stopping else "Training loss"
            print(
                f"{what} did not improve more than tol={self.tol:f} for "
                f"{self.n_iter_no_change} consecutive epochs. Stopping."
            )

    def _on_epoch(self) -> OnEpoch | None:
        """What the command line's progress asks for, or a line an epoch where verbose."""
        return getattr(self, "_epoch_callback", None) or (self._say if self.verbose else None)

    def _say(self, epoch: int, record: EpochRecord) -> None:
        print(f"Iteration {epoch}, loss = {record.loss:.8f}")
        if record.score is not None:
            print(f"Validation score: {record.score:f}")

    def _fit_lbfgs(self, spec: MLPSpec, training: Samples, workers: int) -> None:
        n = training.n_samples
        shards = self._shards(n, spec.n_parameters)
        limits = Limits(
            int(self.max_iter),
            int(self.max_fun),
            float(self.tol),
            self.loss_threshold,
            bool(self.verbose),
        )
        job = Job(
            model=spec,
            plan=Plan(n, n, shards, self._drawn_seed(), sequential),
            optimizer=KeepGradient(),
            aggregation=choose("aggregation", self.aggregation, AGGREGATIONS),
            assignment=choose("task_assignment", self.task_assignment, ASSIGNMENTS),
            rule=Rule(Constant(0.0), max_epochs=2**62, patience=inf),
            alpha=float(self.alpha),
            n_workers=useful_workers(workers, shards, len(block_bounds(spec.n_parameters))),
        )
        state_MN = np.zeros((1, spec.n_parameters), spec.dtype)
        start = State(spec.pack(self.coefs_, self.intercepts_), state_MN)
        minimum = minimize(job, start, training, limits)
        self._unpack(spec, minimum.trained.state.params_N)
        self.n_iter_, self.loss_ = minimum.iterations, minimum.loss
        self.run_ = minimum.trained.run
        if minimum.status != 0:
            warnings.warn(
                f"lbfgs failed to converge after {minimum.iterations} iteration(s) "
                f"(status={minimum.status}): {minimum.message}. Increase max_iter or max_fun, or "
                "scale the data.",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _drawn_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _unpack(self, spec: MLPSpec, params_N: Array) -> None:
        coefs, intercepts = spec.unpack(params_N)
        self.coefs_ = [np.ascontiguousarray(coef) for coef in coefs]
        self.intercepts_ = [intercept.copy() for intercept in intercepts]

    def _outputs(self, X: Any) -> Array:
        """The network's outputs [n, O] for unchecked samples, computed by `n_jobs` workers."""
        check_is_fitted(self)
        X = validate_data(
            self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False, order="C"
        )
        workers = workers_of(self.n_jobs, processors())
        sizes = (self.coefs_[0].shape[0], *(coef.shape[1] for coef in self.coefs_))
        dtype = np.result_type(X.dtype, self.coefs_[0].dtype)
        spec = MLPSpec(sizes, self.activation, self._network_loss(), dtype.name)
        params_N = spec.pack(self.coefs_, self.intercepts_)
        return predict(spec, params_N, Samples.of(X.astype(dtype, copy=False)), workers)

    def _has_partial_fit(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. lbfgs is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _in(weight_B: Array | None, X: Any) -> Array | None:
    return None if weight_B is None else weight_B.astype(X.dtype, copy=False)

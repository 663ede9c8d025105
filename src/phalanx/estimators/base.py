"""What both estimators share: check, hand the job to the engine, keep what comes back (learnt.py).

Behaviour, attributes and random numbers of the initial weights follow scikit-learn 1.9's
`BaseMultilayerPerceptron`; the training itself is `phalanx.training.train`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from phalanx.clusters.control import Control
from phalanx.clusters.hosts.launch import cores
from phalanx.data.compressing import compressed
from phalanx.data.samples import Samples, TableSamples
from phalanx.errors import InvalidInput
from phalanx.estimators.beginning import beginning_of
from phalanx.estimators.following import Mirror, Wishes
from phalanx.estimators.labelled import Labelled, Target, set_aside
from phalanx.estimators.learnt import Learnt
from phalanx.estimators.one_fit import as_it_was, one_fit
from phalanx.estimators.parameters import check_parameters, hidden_sizes
from phalanx.estimators.recipe import lbfgs_job, limits_of, plan_of, stochastic_job
from phalanx.estimators.saying import printing, shows
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.losses import LOSSES
from phalanx.pure.arrays import Array
from phalanx.pure.checks import AUTO, workers_of
from phalanx.pure.metrics import Metric
from phalanx.training.following import Following
from phalanx.training.keeping import keeping
from phalanx.training.lbfgs import Minimum, minimize
from phalanx.training.state import State
from phalanx.training.train import Trained, predict, train
from phalanx.training.tuning import tuned

LOSS_WITH = {loss.out_activation: name for name, loss in LOSSES.items()}  # one that has the link


class BaseMLP(Learnt):
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

    def _know_classes(self, y: Any, classes: Any) -> None:
        """Take note, in a first call of `partial_fit`, of all labels that there will ever be."""

    def _encode_validation(self, X: Any, y: Any) -> tuple[Any, Target]:
        """Checked samples and target of the user's validation set."""
        raise NotImplementedError

    def _class_weight(self, y: Any) -> Array | None:
        """The weight [n] that each training sample has by its class, if any."""
        return None

    def _stratify_labels(self, target: Target) -> Array | None:
        """Labels by which scikit-learn stratifies the validation split."""
        return None

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        wishes: Wishes | None = None,
        incremental: bool = False,
    ) -> Any:
        """Check everything, train, and take what was learnt; one call at a time."""
        with one_fit(self):
            with as_it_was(self):
                spec, learnt = self._learn(X, y, sample_weight, wishes or Wishes(), incremental)
            if isinstance(learnt, Minimum):
                self._take_minimum(spec, learnt)
            else:
                self._take(spec, learnt, incremental)
            self._check_finite()
        return self

    def _learn(
        self, X: Any, y: Any, sample_weight: Any, wishes: Wishes, incremental: bool
    ) -> tuple[MLPSpec, Trained | Minimum]:
        """Check everything and train."""
        check_parameters(self)
        workers_of(self.n_jobs, cores())
        if incremental and self.early_stopping:
            raise InvalidInput(
                "partial_fit does not support early_stopping=True: one call is one epoch. "
                "Use fit, or set early_stopping=False."
            )
        if incremental:
            self._know_classes(y, wishes.classes)
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, target = self._check_data(X, y, reset=first, incremental=incremental)
        X, target = self._in_dtype(X, target, first)
        weight_B = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        spec = self._spec(X, target)
        X = compressed(X, spec.sizes[1])
        labelled = Labelled(X, target, weight_B, self._class_weight(y))
        validation = self._check_validation(wishes.validation_data, X.dtype)
        self._random_state = check_random_state(self.random_state)
        following, first = self._following(wishes, spec, first)
        if first:
            self._initialize(spec)
        if self.solver == "lbfgs":
            return spec, self._learn_by_lbfgs(spec, labelled.training())
        return spec, self._learn_by_batches(spec, labelled, validation, following, incremental)

    def _in_dtype(self, X: Any, target: Target, first: bool) -> tuple[Any, Target]:
        """In the dtype of the weights: of the samples at first; as scikit-learn's, L-BFGS has
        float64 always, and who goes on keeps what there is."""
        # of pandas' sparse bools, scikit-learn's checks leave the dtype
        dtype = X.dtype if X.dtype in (np.float32, np.float64) else np.dtype(np.float64)
        if not first and self.coefs_[0].dtype in (np.float32, np.float64):  # else the user cast it
            dtype = self.coefs_[0].dtype
        if self.solver == "lbfgs":
            dtype = np.dtype(np.float64)
        return X.astype(dtype, copy=False), target.astype(dtype)

    def _check_validation(self, validation_data: Any, dtype: Any) -> Samples | None:
        if validation_data is None:
            return None
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise InvalidInput(
                "validation_data must be (X, y) or (X, y, sample_weight); got "
                f"{type(validation_data).__name__}. Pass e.g. validation_data=(X_val, y_val)."
            )
        X, target = self._encode_validation(*validation_data[:2])
        if target.values_BO is not None and target.values_BO.shape[1] != self.n_outputs_:
            raise InvalidInput(
                "validation_data must have targets as the training data have them; got "
                f"{target.values_BO.shape[1]} a sample, where those have {self.n_outputs_}. "
                "Take both from one array."
            )
        weights = validation_data[2] if len(validation_data) == 3 else None
        weight_B = None if weights is None else _check_sample_weight(weights, X)
        held_out = Labelled(X.astype(dtype, copy=False), target.astype(dtype), weight_B)
        return held_out.validation()

    def _spec(self, X: Any, target: Target) -> MLPSpec:
        self.n_outputs_ = (
            len(self.classes_) if target.values_BO is None else target.values_BO.shape[1]
        )
        sizes = (X.shape[1], *hidden_sizes(self.hidden_layer_sizes), self.n_outputs_)
        loss, dropout = self._network_loss(), float(self.dropout)
        self.out_activation_ = LOSSES[loss].out_activation
        return MLPSpec(sizes, self.activation, loss, X.dtype.name, dropout)

    def _learn_by_batches(
        self,
        spec: MLPSpec,
        labelled: Labelled,
        validation: Samples | None,
        following: Following,
        incremental: bool,
    ) -> Trained:
        if not hasattr(self, "loss_curve_"):  # the first fit was L-BFGS's
            self._begin_curves()
        if self.early_stopping and validation is None:
            strata_B, fraction = self._stratify_labels(labelled.target), self.validation_fraction
            labelled, held_out = set_aside(labelled, fraction, strata_B, self._random_state)
            validation = held_out.validation()
        training, labels_B = labelled.training(incremental), labelled.target.labels_B
        seed = self._drawn_seed()
        plan = plan_of(self, spec, training.n_samples, seed, labels_B, is_a_part=incremental)
        job = stochastic_job(
            self, spec, plan, training, validation, self._score_metric(), incremental
        )
        start = self._start(spec, job, incremental)
        progress = self._progress(self._optimizer.learning_rate)
        with self._controlled(job.n_workers, following):
            return train(job, start, training, validation, progress, following)

    def _drawn_seed(self) -> int:
        """The seed of data order and dropout, drawn once after the initial weights."""
        seed = getattr(self, "_seed", None)
        if seed is None:
            seed = self._seed = int(self._random_state.randint(np.iinfo(np.int32).max))
        return seed

    def _following(self, wishes: Wishes, spec: MLPSpec, first: bool) -> tuple[Following, bool]:
        """Who follows the fit, and whether it is a first one; resumed, it begins as it once did."""
        if self.solver == "lbfgs":
            wishes.check_none_for("lbfgs")
        extra = self._beginning(first).packed()
        kept = keeping(wishes.checkpoint, wishes.checkpoint_every, wishes.resume, extra)
        if kept.saved is not None:
            began = beginning_of(kept.saved, self.random_state)
            self._random_state, first = began.random_state, first or began.is_first
            self._cut_curves(began)
        mirror = None if wishes.callback is None else Mirror(partial(self._unpack, spec))
        on_epoch = wishes.callback or getattr(self, "_tell_epoch", None)  # who needs no mirror
        following = Following(
            on_epoch=printing(self, on_epoch) if shows(self) else on_epoch,
            watch=getattr(self, "_watch", None),
            on_event=getattr(self, "_tell_event", print if shows(self) else None),
            checkpoints=kept.checkpoints,
            resume=kept.saved,
            cluster=wishes.cluster,
            mixed=self.mixed,
            mirror=mirror,
        )
        return following, first

    @contextmanager
    def _controlled(self, n_workers: int, following: Following) -> Iterator[None]:
        """Within it, `resize` works, and so does n_jobs='auto'."""
        self._control = following.control = Control(n_workers)
        if self.n_jobs == AUTO:
            following.watch = tuned(following.control, following.watch)
        try:
            yield
        finally:
            del self._control

    def resize(self, workers: int) -> None:
        """Change the number of workers of the fit that is running, from its next step on.

        From a callback, or from another thread. The answer does not change.
        Raises InvalidInput where no fit by batches is running, or for what is no positive integer.
        """
        control: Control | None = getattr(self, "_control", None)
        if control is None:
            raise InvalidInput(
                "resize changes a fit that is running; none is. Call it from a callback or from "
                "another thread, or set n_jobs before the fit."
            )
        control.resize(workers)

    def __getstate__(self) -> Any:
        """Pickled in a callback, an estimator comes without its hold on the running fit."""
        state = dict(super().__getstate__())
        state.pop("_control", None)
        return state

    def _learn_by_lbfgs(self, spec: MLPSpec, training: Samples) -> Minimum:
        state_MN = np.zeros((1, spec.n_parameters), spec.dtype)
        start = State(spec.pack(self.coefs_, self.intercepts_), state_MN)
        job = lbfgs_job(self, spec, training.n_samples)
        return minimize(job, start, training, limits_of(self))

    def _outputs(self, X: Any) -> Array:
        """The network's outputs [n, O] for unchecked samples, computed by `n_jobs` workers."""
        check_is_fitted(self, "coefs_")
        X = self._validated(X, reset=False)
        sizes = (self.coefs_[0].shape[0], *(coef.shape[1] for coef in self.coefs_))
        dtype = np.result_type(X.dtype, self.coefs_[0].dtype)
        loss = LOSS_WITH[self.out_activation_]  # `loss` may have been set since
        spec = MLPSpec(sizes, self.activation, loss, dtype.name)
        params_N = spec.pack(self.coefs_, self.intercepts_)
        workers = workers_of(self.n_jobs, cores())
        samples = TableSamples.of(X.astype(dtype, copy=False))
        return predict(spec, params_N, samples, workers, (spec.n_outputs,), spec.dtype)

    def _validated(self, X: Any, y: Any = "no_validation", **options: Any) -> Any:
        """scikit-learn's checks; samples come back C-ordered or CSR, in float32 or float64."""
        return validate_data(
            self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32), order="C", **options
        )

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

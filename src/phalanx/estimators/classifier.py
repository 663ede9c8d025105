"""MLPClassifier: scikit-learn's, on any number of workers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target

from phalanx.estimators.base import BaseMLP
from phalanx.estimators.class_weights import check_of_part, weights_by_class
from phalanx.estimators.following import Wishes
from phalanx.estimators.labelled import Target
from phalanx.estimators.labels import (
    check_classes,
    check_kind,
    check_validation_classes,
    has_several,
    labels_of,
)
from phalanx.pure.agreement import REFUSE
from phalanx.pure.arrays import Array
from phalanx.pure.metrics import Metric
from phalanx.pure.rounding import EXACT
from phalanx.pure.scores import certain_accuracy, class_accuracy, label_accuracy
from phalanx.training.following import OnEpoch


class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]
    """A multi-layer perceptron that minimises log loss, trained by any number of workers.

    Parameters, defaults, attributes and initial weights are those of
    `sklearn.neural_network.MLPClassifier`; the last twelve parameters are Phalanx's own.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Neurons of each hidden layer.
    activation : {'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'gelu', 'silu'}
        Activation of the hidden layers, default 'relu'. 'sigmoid' is another name of 'logistic'.
    solver : {'lbfgs', 'sgd', 'momentum', 'nesterov', 'adam', 'adamw', 'rmsprop', 'adagrad'}
        Default 'adam'. 'sgd' follows `momentum` and `nesterovs_momentum` as in scikit-learn.
    alpha : float, default=1e-4
        L2 penalty on the weights, divided by the batch's number of samples.
    batch_size : int or 'auto', default='auto'
        Rows of the GLOBAL batch, whatever the number of workers; 'auto' is min(200, n_samples).
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule, for 'sgd', 'momentum' and 'nesterov'.
    learning_rate_init, power_t : float, default=0.001, 0.5
        First learning rate; exponent of 'invscaling'.
    max_iter : int, default=200
        Most epochs (iterations for 'lbfgs').
    shuffle : bool, default=True
        Whether `data_distribution=None` means 'random' or 'sequential'.
    random_state : int, RandomState or None, default=None
        Seed of initial weights (the same as scikit-learn's), data order, and dropout.
    tol, n_iter_no_change : float and int or inf, default=1e-4, 10
        Stop when more than `n_iter_no_change` epochs in a row did not improve by `tol`.
    verbose : bool or int, default=False
        Print a line an epoch.
    warm_start : bool, default=False
        Begin where the last fit ended. With early_stopping, a fit that betters no earlier score
        goes back to the weights of the best one; scikit-learn's keeps the last.
    momentum, nesterovs_momentum : float and bool, default=0.9, True
        Of 'sgd', 'momentum' and 'nesterov'; nesterovs_momentum of 'sgd' alone.
    early_stopping, validation_fraction : bool and float, default=False, 0.1
        Follow the score of a validation set, set aside from the training data unless
        `fit(..., validation_data=)` is given, and keep the best weights.
    beta_1, beta_2, epsilon : float, default=0.9, 0.999, 1e-8
        Of 'adam' and 'adamw'; `epsilon` also of 'rmsprop' and 'adagrad'.
    max_fun : int, default=15000
        Most evaluations of 'lbfgs', which has all samples in each, whatever their distribution, and
        computes in float64, as scikit-learn's does.
    n_jobs : int, None or 'auto', default=None
        Workers, with scikit-learn's meaning: None or 1 is one worker in this process, -1 one a
        core; 'auto' tries which number is the quickest. The answer does not depend on it, nor on
        workers that die, hang or are slow.
    shards : int or 'auto', default='auto'
        Slices of each batch that workers compute apart. Part of the model's definition, like the
        batch size; 'auto' depends on batch size and number of parameters alone.
    data_distribution : {'sequential', 'random', 'strided', 'stratified'}, callable or None
        Order of the samples in an epoch; see `phalanx.pure.plan`. None follows `shuffle`.
    task_assignment : {'round_robin', 'load_balanced', 'dynamic'} or callable, default='round_robin'
        Who computes which shard and updates which block; see `phalanx.pure.assignment`.
    aggregation : {'mean', 'sum', 'max', 'median', 'trimmed_mean'} or callable, default='mean'
        How the shards' gradients become one; see `phalanx.pure.aggregation`.
    loss_threshold : float or None, default=None
        Stop once an epoch's loss is at most this.
    dropout : float, default=0.0
        Probability that a hidden neuron is left out of a training step.
    class_weight : dict, 'balanced' or None, default=None
        Weight of each class in training, finite and at least 0, multiplied into the sample weights;
        validation samples count alike. 'balanced' is for `fit`, which sees all samples.
    sync_every : int, default=1
        Steps that each shard makes by itself before all of them meet; see `docs/models.md`. More
        than 1 is another algorithm (local SGD): part of the answer, and no less exact.
    wire, exact, mixed : default='exact', True, 'refuse'
        How several hosts exchange gradients, and whether they may differ; see `phalanx.fit`.

    Attributes
    ----------
    classes_ : ndarray
        Class labels.
    coefs_, intercepts_ : list of ndarray
        Weights [in, out] and biases [out] of each layer.
    loss_, loss_curve_, best_loss_ : float, list of float, float or None
        Training loss of the last epoch, of each epoch, and the lowest.
    validation_scores_, best_validation_score_ : list of float or None, float or None
        Score on the validation set after each epoch, and the best.
    n_iter_, t_, n_layers_, n_outputs_, out_activation_ : int, int, int, int, str
        As in scikit-learn.
    run_ : phalanx.run.Run
        The record: losses, steps, workers, shares, seconds, events, digest.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from phalanx import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = MLPClassifier(max_iter=5, tol=1, n_iter_no_change=3, n_jobs=1, random_state=0)
    >>> clf.fit(X / 16, y).score(X / 16, y) > 0.7
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: Any = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: Any = 0.001,
        power_t: Any = 0.5,
        max_iter: Any = 200,
        shuffle: Any = True,
        random_state: Any = None,
        tol: Any = 1e-4,
        verbose: Any = False,
        warm_start: Any = False,
        momentum: Any = 0.9,
        nesterovs_momentum: Any = True,
        early_stopping: Any = False,
        validation_fraction: Any = 0.1,
        beta_1: Any = 0.9,
        beta_2: Any = 0.999,
        epsilon: Any = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: Any = 15000,
        n_jobs: Any = None,
        shards: Any = "auto",
        data_distribution: Any = None,
        task_assignment: Any = "round_robin",
        aggregation: Any = "mean",
        loss_threshold: Any = None,
        dropout: Any = 0.0,
        class_weight: Any = None,
        sync_every: Any = 1,
        wire: Any = EXACT,
        exact: Any = True,
        mixed: Any = REFUSE,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.n_jobs = n_jobs
        self.shards = shards
        self.data_distribution = data_distribution
        self.task_assignment = task_assignment
        self.aggregation = aggregation
        self.loss_threshold = loss_threshold
        self.dropout = dropout
        self.class_weight = class_weight
        self.sync_every = sync_every
        self.wire = wire
        self.exact = exact
        self.mixed = mixed

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation_data: Any = None,
        callback: OnEpoch | None = None,
        checkpoint: Any = None,
        checkpoint_every: Any = None,
        resume: Any = None,
        cluster: Any = None,
    ) -> MLPClassifier:
        """Train on samples `X` [n, F], dense or sparse, and labels `y` [n] or indicators [n, O].

        Indicators may be sparse as well; then those of `predict` are.
        sample_weight: [n] or None. validation_data: (X, y) or (X, y, sample_weight), scored after
        each epoch, and followed where `early_stopping` is set.
        callback: called as (epochs so far, `phalanx.run.EpochRecord`) after each epoch; the fit
        ends if it returns True. It may call `resize`, and it sees the weights of the epoch, so that
        `predict` and `score` go by them; other attributes come with the end of the fit.
        checkpoint: folder to which the state of the training is written, every
        `checkpoint_every` ('500 steps', '2 epochs', '30 seconds'; by default a minute), beside
        the training, and at its end; less often where that comes sooner than the last one is
        written, or more than some ten times a second. resume: True to go on from the newest one
        there (from the start where there is none), or the path of one. The answer is that of a fit
        that was never stopped.
        cluster: a `phalanx.RayCluster`, to train on its hosts.
        Raises InvalidInput (a ValueError) or CheckpointError before any work where an argument
        breaks a rule. What is raised before the training has ended leaves the estimator as it was.
        """
        more = Wishes(validation_data, callback, checkpoint, checkpoint_every, resume, cluster)
        return self._fit(X, y, sample_weight, more)  # type: ignore[no-any-return]

    @available_if(lambda self: self._has_partial_fit())  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> MLPClassifier:
        """Train for one epoch on the given samples, going on from the last call.

        classes: all labels that will ever occur; needed in the first call.
        """
        check_of_part(self.class_weight)
        more = Wishes(classes=classes)
        return self._fit(X, y, sample_weight, more, incremental=True)  # type: ignore[no-any-return]

    def predict(self, X: Any) -> Any:
        """Labels [n] (indicators [n, O] for several labels) of samples `X` [n, F].

        Indicators are a CSR matrix where those of the fit were sparse.
        """
        output_BO = self._outputs(X)
        if self.n_outputs_ == 1:
            output_BO = output_BO.ravel()
        return self._label_binarizer.inverse_transform(output_BO)

    def predict_proba(self, X: Any) -> Array:
        """Probabilities [n, C] of the classes in the order of `classes_`."""
        output_BO = self._outputs(X)
        if self.n_outputs_ == 1:
            return np.hstack([1 - output_BO, output_BO])
        return output_BO

    def predict_log_proba(self, X: Any) -> Array:
        """Natural logarithms of `predict_proba`."""
        probability = self.predict_proba(X)
        return np.asarray(np.log(probability, out=probability))

    def _network_loss(self) -> str:
        return "log_loss" if self._label_binarizer.y_type_ == "multiclass" else "binary_log_loss"

    def _score_metric(self) -> Metric:
        if len(self.classes_) == 1:
            return certain_accuracy  # `predict` knows of no other
        return class_accuracy if self._network_loss() == "log_loss" else label_accuracy

    def _know_classes(self, y: Any, classes: Any) -> None:
        if _check_partial_fit_first_call(self, classes):
            labels = y if has_several(type_of_target(y)) else classes
            self._label_binarizer = LabelBinarizer().fit(labels)

    def _check_data(self, X: Any, y: Any, reset: bool, incremental: bool) -> tuple[Any, Target]:
        X, y = self._validated(X, y, reset=reset, multi_output=True)
        y = labels_of(y)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            check_kind(y, self._label_binarizer.y_type_)
            check_classes(y, self.classes_, self.warm_start)
        return X, self._encode(y, X.dtype)

    def _encode_validation(self, X: Any, y: Any) -> tuple[Any, Target]:
        X, y = self._validated(X, y, reset=False, multi_output=True)
        y = labels_of(y)
        check_kind(y, self._label_binarizer.y_type_)
        check_validation_classes(y, self.classes_)
        return X, self._encode(y, X.dtype)

    def _encode(self, y: Any, dtype: Any) -> Target:
        if self._network_loss() == "log_loss":
            index_B = np.searchsorted(self.classes_, y).astype(np.intp)
            return Target(index_B, None, index_B)
        values_BO = np.asarray(self._label_binarizer.transform(y)).astype(dtype)
        labels_B = values_BO[:, 0].astype(np.intp) if values_BO.shape[1] == 1 else None
        return Target(None, values_BO, labels_B)

    def _stratify_labels(self, target: Target) -> Array | None:
        """scikit-learn stratifies the split by the binarized target of two classes alone."""
        if self.n_outputs_ == 1 and target.values_BO is not None:
            return target.values_BO.astype(bool)
        return None

    def _class_weight(self, y: Any) -> Array | None:
        if self.class_weight is None:
            return None
        return weights_by_class(self.class_weight, y, self.classes_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

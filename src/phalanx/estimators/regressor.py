"""MLPRegressor: scikit-learn's, on any number of workers."""

from __future__ import annotations

from typing import Any

from sklearn.base import RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from phalanx.errors import InvalidInput
from phalanx.estimators.base import BaseMLP
from phalanx.estimators.following import Wishes
from phalanx.estimators.labelled import Target
from phalanx.models.mlp.losses import REGRESSION_LOSSES
from phalanx.pure import checks
from phalanx.pure.agreement import REFUSE
from phalanx.pure.arrays import Array
from phalanx.pure.metrics import Metric
from phalanx.pure.rounding import EXACT
from phalanx.pure.scores import finite_r2
from phalanx.training.following import OnEpoch


class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]
    """A multi-layer perceptron for one or several real targets, trained by any number of workers.

    Parameters, defaults, attributes and initial weights are those of
    `sklearn.neural_network.MLPRegressor`; the last eleven parameters are Phalanx's own.

    Parameters
    ----------
    loss : {'squared_error', 'poisson', 'absolute_error', 'huber'}, default='squared_error'
        What is minimised; the first is half the squared error, the second half the Poisson
        deviance with exp as output activation, the last has its bend at an error of 1.
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
    sync_every : int, default=1
        Steps that each shard makes by itself before all of them meet; see `docs/models.md`. More
        than 1 is another algorithm (local SGD): part of the answer, and no less exact.
    wire, exact, mixed : default='exact', True, 'refuse'
        How several hosts exchange gradients, and whether they may differ; see `phalanx.fit`.

    Attributes
    ----------
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
    >>> from sklearn.datasets import make_regression
    >>> from phalanx import MLPRegressor
    >>> X, y = make_regression(n_samples=200, n_features=5, random_state=1)
    >>> reg = MLPRegressor(solver="lbfgs", max_iter=2000, random_state=1).fit(X, y)
    >>> reg.score(X, y) > 0.99
    True
    """

    def __init__(
        self,
        loss: Any = "squared_error",
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
        sync_every: Any = 1,
        wire: Any = EXACT,
        exact: Any = True,
        mixed: Any = REFUSE,
    ) -> None:
        self.loss = loss
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
    ) -> MLPRegressor:
        """Train on samples `X` [n, F], dense or sparse, and targets `y` [n] or [n, O].

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
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train for one epoch on the given samples, going on from the last call."""
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def predict(self, X: Any) -> Array:
        """Predicted targets, [n] or [n, O], of samples `X` [n, F]."""
        output_BO = self._outputs(X)
        return output_BO.ravel() if output_BO.shape[1] == 1 else output_BO

    def _network_loss(self) -> str:
        return str(self.loss)

    def _score_metric(self) -> Metric:
        return finite_r2

    def _check_data(self, X: Any, y: Any, reset: bool, incremental: bool) -> tuple[Any, Target]:
        checks.one_of("loss", self.loss, REGRESSION_LOSSES)
        if hasattr(y, "tocsr"):
            raise InvalidInput(
                f"targets must be a dense array [n] or [n, O]; got a {type(y).__name__}. "
                "Pass y.toarray()."
            )
        X, y = self._validated(X, y, reset=reset, multi_output=True, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson" and (y < 0).any():
            raise InvalidInput(
                f"loss='poisson' needs targets of at least 0; got {y.min()}. "
                "Use another loss, or shift the target."
            )
        return X, Target(None, y.reshape(len(y), -1).astype(X.dtype, copy=False), None)

    def _encode_validation(self, X: Any, y: Any) -> tuple[Any, Target]:
        return self._check_data(X, y, reset=False, incremental=False)

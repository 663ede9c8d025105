"""The settings of a training, checked before anything is read or started."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from phalanx.cli.options import check_fraction
from phalanx.errors import InvalidInput


@dataclass(frozen=True)
class Settings:
    """What the options of `phalanx train` say; names are those of the options."""

    model: tuple[int, ...] = (100,)
    workers: int | str = 2
    shards: int | str = "auto"
    epochs: int = 50
    batch_size: int | str = "auto"
    learning_rate: float = 0.001
    solver: str = "adam"
    activation: str = "relu"
    dropout: float = 0.0
    data_distribution: str = "random"
    task_assignment: str = "round_robin"
    aggregation: str = "mean"
    alpha: float = 0.0001
    loss_threshold: float | None = None
    tol: float = 0.0001
    patience: int = 10
    early_stopping: bool = False
    validation_fraction: float = 0.2
    sync_every: int = 1
    wire: str = "exact"
    seed: int = 0

    def check(self) -> None:
        """Raise InvalidInput for the first setting that breaks its rule."""
        from phalanx.estimators.parameters import SOLVERS
        from phalanx.models.mlp.activations import ACTIVATIONS
        from phalanx.pure import checks
        from phalanx.pure.aggregation import AGGREGATIONS
        from phalanx.pure.assignment import ASSIGNMENTS
        from phalanx.pure.plan import DISTRIBUTIONS
        from phalanx.pure.rounding import ROUNDINGS

        checks.one_of("--solver", self.solver, SOLVERS)
        checks.one_of("--activation", self.activation, ACTIVATIONS)
        checks.one_of("--data-distribution", self.data_distribution, DISTRIBUTIONS)
        checks.one_of("--task-assignment", self.task_assignment, ASSIGNMENTS)
        checks.one_of("--aggregation", self.aggregation, AGGREGATIONS)
        checks.number("--epochs", self.epochs, integer=True, at_least=1)
        checks.number("--learning-rate", self.learning_rate, finite=True, above=0)
        checks.number("--dropout", self.dropout, at_least=0, below=1)
        checks.number("--alpha", self.alpha, finite=True, at_least=0)
        checks.number("--tol", self.tol, finite=True, at_least=0)
        checks.number("--patience", self.patience, integer=True, at_least=1)
        checks.number("--sync-every", self.sync_every, integer=True, at_least=1)
        checks.one_of("--wire", self.wire, ROUNDINGS)
        checks.number("--seed", self.seed, integer=True, at_least=0, at_most=2**32 - 1)
        if self.loss_threshold is not None:
            checks.number("--loss-threshold", self.loss_threshold)
        check_fraction(self.validation_fraction)
        if self.early_stopping and not self.validation_fraction:
            raise InvalidInput(
                "--early-stopping follows the score of the samples that are held out; got "
                "--validation-fraction 0. Hold some out, e.g. --validation-fraction 0.2."
            )
        if self.solver == "lbfgs":
            self._check_for_lbfgs()

    def _check_for_lbfgs(self) -> None:
        plain = Settings()
        for name in ("early_stopping", "sync_every", "wire"):
            if getattr(self, name) != getattr(plain, name):
                raise InvalidInput(
                    f"--solver lbfgs trains on exact gradients of all samples, without epochs; got "
                    f"--{name.replace('_', '-')}. Leave it out, or use e.g. --solver adam."
                )

    @property
    def processes(self) -> int:
        """The most workers that are meant; 'auto' begins with one a core."""
        from phalanx.exchange.processors import processors
        from phalanx.pure.checks import workers_of

        return workers_of(self.workers, processors())

    def estimator(self, task: str) -> Any:
        """The estimator for a task, 'classification' or 'regression'."""
        from phalanx.estimators import MLPClassifier, MLPRegressor

        kind = MLPClassifier if task == "classification" else MLPRegressor
        return kind(
            hidden_layer_sizes=self.model,
            n_jobs=self.workers,
            shards=self.shards,
            max_iter=self.epochs,
            batch_size=self.batch_size,
            learning_rate_init=self.learning_rate,
            solver=self.solver,
            activation=self.activation,
            dropout=self.dropout,
            data_distribution=self.data_distribution,
            task_assignment=self.task_assignment,
            aggregation=self.aggregation,
            alpha=self.alpha,
            loss_threshold=self.loss_threshold,
            tol=self.tol,
            n_iter_no_change=self.patience,
            early_stopping=self.early_stopping,
            sync_every=self.sync_every,
            wire=self.wire,
            random_state=self.seed,
        )

    def as_texts(self) -> dict[str, str]:
        """Each setting as a text, for the record."""
        said = {
            name: "none" if value is None else str(value) for name, value in asdict(self).items()
        }
        return said | {"model": "mlp:" + ",".join(map(str, self.model))}

"""Small random trainings for the soak: each differs in everything that the engine looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from phalanx import MLPClassifier, MLPRegressor
from phalanx.estimators.parameters import SOLVERS
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.pure.aggregation import AGGREGATIONS
from phalanx.pure.assignment import ASSIGNMENTS

STEPS = 300, 2500  # of a fit; long enough for some faults, short enough for many fits
NEVER = 10**6  # epochs without improvement until a fit stops by itself
MOST_WORKERS = 7
MOST_NARROW, WIDE = 40, (600, 1200)  # columns; shards of wide samples leave factors mostly
DISTRIBUTIONS = {"classification": ["sequential", "random", "strided", "stratified"]}
DISTRIBUTIONS["regression"] = DISTRIBUTIONS["classification"][:3]


@dataclass(frozen=True)
class Case:
    """A training. `parameters` are the estimator's, less n_jobs.

    kept: of every other column, or of all of wide samples, what is not zero. resizes: numbers of
    workers that a callback asks for, one after another. every: the cadence of checkpoints, if any.
    resumed_at: the epoch after which the fit is stopped and gone on from by another estimator, with
    one worker more.
    """

    task: str
    rows: int
    columns: int
    dtype: str
    is_sparse: bool
    kept: float
    workers: int
    parameters: dict[str, Any] = field(default_factory=dict)
    resizes: tuple[int, ...] = ()
    every: str | None = None
    resumed_at: int | None = None

    def estimator(self, n_jobs: int) -> Any:
        """A new estimator for this many workers."""
        kind = MLPClassifier if self.task == "classification" else MLPRegressor
        return kind(n_jobs=n_jobs, **self.parameters)

    def samples(self) -> tuple[Any, Any]:
        """The same samples each time; some of the columns are mostly zero, or all."""
        chance = np.random.default_rng(0)
        x_BF = chance.normal(size=(self.rows, self.columns)).astype(self.dtype)
        thinned = x_BF if self.columns > MOST_NARROW else x_BF[:, ::2]
        thinned *= chance.random(thinned.shape) < self.kept
        hidden_B = x_BF @ chance.normal(size=self.columns) + chance.normal(size=self.rows)
        y_B = np.digitize(hidden_B, (-1, 1)) if self.task == "classification" else hidden_B
        return csr_array(x_BF) if self.is_sparse else x_BF, y_B


def draw(chance: Random) -> Case:
    """A case by chance."""
    task = chance.choice(["classification", "regression"])
    rows, batch_size = chance.randint(120, 1200), chance.randint(16, 120)
    steps = -(-rows // batch_size)
    epochs = max(4, chance.randint(*STEPS) // steps)
    is_kept, is_wide = chance.random() < 0.4, chance.random() < 0.4
    return Case(
        task=task,
        rows=rows,
        columns=chance.randint(*WIDE) if is_wide else chance.randint(3, MOST_NARROW),
        dtype=chance.choice(["float64", "float32"]),
        is_sparse=chance.random() < 0.25,
        kept=chance.choice([0.3, 0.1]),
        workers=chance.randint(2, MOST_WORKERS),
        parameters=_parameters(chance, task, batch_size, epochs, is_wide),
        resizes=_resizes(chance),
        every=f"{chance.randint(20, 400)} steps" if is_kept else None,
        resumed_at=chance.randint(1, epochs - 1) if is_kept and chance.random() < 0.5 else None,
    )


def _parameters(
    chance: Random, task: str, batch_size: int, epochs: int, is_wide: bool
) -> dict[str, Any]:
    layers = tuple(chance.randint(4, 80) for _ in range(chance.randint(1, 3)))
    if is_wide:
        layers = (chance.randint(55, 80), *layers[1:])
    stops_early = chance.random() < 0.3
    return {
        "hidden_layer_sizes": layers,
        "activation": chance.choice(sorted(ACTIVATIONS)),
        "solver": chance.choice(sorted(set(SOLVERS) - {"lbfgs"})),
        "learning_rate_init": 1e-4,  # none of the strategies lets the weights explode
        "batch_size": batch_size,
        "max_iter": epochs,
        "random_state": chance.randrange(2**31),
        "tol": 0,
        "n_iter_no_change": chance.choice([NEVER, max(3, epochs // 2)]) if stops_early else NEVER,
        "early_stopping": stops_early,
        "shards": chance.randint(2, 9),
        "data_distribution": chance.choice(DISTRIBUTIONS[task]),
        "task_assignment": chance.choice(sorted(ASSIGNMENTS)),
        "aggregation": chance.choice(sorted(AGGREGATIONS)),
        "dropout": chance.choice([0.0, 0.0, 0.3]),
    }


def _resizes(chance: Random) -> tuple[int, ...]:
    if chance.random() < 0.7:
        return ()
    return tuple(chance.randint(1, MOST_WORKERS) for _ in range(chance.randint(1, 6)))

"""The contestants: each trains the same case, and says what a step took."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier as ScikitClassifier
from threadpoolctl import threadpool_limits

import names
from cases import Case
from data import Data
from phalanx import MLPClassifier
from products import ProductProcesses
from torch_peers import TorchProcesses


class Contestant(Protocol):
    """Somebody who trains a case. Between rounds it must leave the processors alone."""

    def round(self, epochs: int) -> float:
        """Train for so many epochs; seconds a step."""

    def close(self) -> None:
        """End what was started."""


class Estimator:
    """A scikit-learn style classifier, fitted anew each round."""

    def __init__(
        self,
        case: Case,
        data: Data,
        make: Callable[..., Any],
        limit: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._case, self._data, self._make, self._limit = case, data, make, limit

    def round(self, epochs: int) -> float:
        classifier = self._make(**settings(self._case, epochs))
        with self._limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            begun = perf_counter()
            classifier.fit(self._data.x, self._data.y)
            return (perf_counter() - begun) / (epochs * self._case.steps)

    def close(self) -> None:
        pass


def settings(case: Case, epochs: int) -> dict[str, Any]:
    """Adam for exactly so many epochs, with scikit-learn's defaults for the rest."""
    return {
        "hidden_layer_sizes": case.hidden,
        "batch_size": case.batch,
        "max_iter": epochs,
        "n_iter_no_change": np.inf,
        "random_state": 0,
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, BLAS and OpenMP calls of this process run on one thread."""
    with threadpool_limits(1):
        yield


def phalanx(case: Case, data: Data, n_jobs: int, shards: int | str = "auto") -> Estimator:
    def make(**parameters: Any) -> MLPClassifier:
        return MLPClassifier(n_jobs=n_jobs, shards=shards, **parameters)

    return Estimator(case, data, make)


def contestants(case: Case, data: Data) -> dict[str, Contestant]:
    """Everybody who trains a case, in the order of the table."""
    everybody: dict[str, Contestant] = {
        names.SCIKIT: Estimator(case, data, ScikitClassifier, one_thread),
        names.SCIKIT_ALL: Estimator(case, data, ScikitClassifier),
        names.PHALANX_1: phalanx(case, data, 1),
        names.PHALANX_2: phalanx(case, data, 2),
    }
    for shards in case.extra_shards:
        everybody[names.with_shards(names.PHALANX_1, shards)] = phalanx(case, data, 1, shards)
        everybody[names.with_shards(names.PHALANX_2, shards)] = phalanx(case, data, 2, shards)
    if case.is_sparse:
        return everybody
    everybody[names.TORCH] = TorchProcesses(case, 1)
    everybody[names.DDP] = TorchProcesses(case, 2)
    everybody[names.DDP_FUSED] = TorchProcesses(case, 2, fused=True)
    for name, world in ((names.PRODUCTS_1, 1), (names.PRODUCTS_2, 2)):
        everybody[name] = ProductProcesses(case, data.x.shape[1], world)
    return everybody

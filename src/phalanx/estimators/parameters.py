"""The rules for constructor parameters, checked at the start of `fit`, before any work."""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from phalanx.errors import InvalidInput
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.pure import checks
from phalanx.pure.agreement import REFUSE
from phalanx.pure.optimizers import OPTIMIZERS
from phalanx.pure.options import check_exchange, check_n_shards, check_strategies, check_sync_every
from phalanx.pure.rounding import EXACT
from phalanx.pure.schedules import SCHEDULES

SOLVERS = ("lbfgs", *OPTIMIZERS)
LBFGS_NEEDS = {"sync_every": 1, "wire": EXACT, "exact": True, "mixed": REFUSE}


def check_parameters(estimator: Any) -> None:
    """Raise InvalidInput for the first parameter of an estimator that breaks its rule."""
    hidden_sizes(estimator.hidden_layer_sizes)
    checks.one_of("activation", estimator.activation, ACTIVATIONS)
    checks.one_of("solver", estimator.solver, SOLVERS)
    checks.one_of("learning_rate", estimator.learning_rate, SCHEDULES)
    for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
        checks.boolean(name, getattr(estimator, name))
    _check_numbers(estimator)
    _check_verbose(estimator.verbose)
    _check_random_state(estimator.random_state)
    distribution = estimator.data_distribution
    check_strategies(
        "random" if distribution is None else distribution,  # by `shuffle`
        estimator.task_assignment,
        estimator.aggregation,
    )
    check_exchange(estimator.wire, estimator.exact, estimator.mixed, estimator.aggregation)
    if estimator.solver == "lbfgs":
        _check_for_lbfgs(estimator)


def _check_numbers(estimator: Any) -> None:
    number = checks.number
    number("alpha", estimator.alpha, at_least=0, finite=True)
    number("learning_rate_init", estimator.learning_rate_init, above=0, finite=True)
    number("power_t", estimator.power_t, at_least=0, finite=True)
    number("max_iter", estimator.max_iter, integer=True, at_least=1)
    number("max_fun", estimator.max_fun, integer=True, at_least=1)
    number("tol", estimator.tol, at_least=0, finite=True)
    number("momentum", estimator.momentum, at_least=0, at_most=1)
    number("validation_fraction", estimator.validation_fraction, at_least=0, below=1)
    number("beta_1", estimator.beta_1, at_least=0, below=1)
    number("beta_2", estimator.beta_2, at_least=0, below=1)
    number("epsilon", estimator.epsilon, above=0, finite=True)
    number("dropout", estimator.dropout, at_least=0, below=1)
    if estimator.n_iter_no_change != inf:
        number("n_iter_no_change", estimator.n_iter_no_change, integer=True, at_least=1)
    if estimator.batch_size != "auto":
        hint = "Or use 'auto' for min(200, samples)."
        number("batch_size", estimator.batch_size, integer=True, at_least=1, hint=hint)
    check_n_shards(estimator.shards)
    check_sync_every(estimator.sync_every)
    if estimator.loss_threshold is not None:
        number("loss_threshold", estimator.loss_threshold, hint="Or use None for no threshold.")


def _check_for_lbfgs(estimator: Any) -> None:
    for name, only in LBFGS_NEEDS.items():
        if (given := getattr(estimator, name)) != only:
            raise InvalidInput(
                f"{name} must be {only!r} with solver='lbfgs', which every host runs by itself on "
                f"exact gradients of the whole batch; got {name}={given!r}. Use e.g. "
                "solver='adam'."
            )


def _check_verbose(verbose: Any) -> None:
    if not isinstance(verbose, (bool, np.bool_)):
        checks.number("verbose", verbose, integer=True, at_least=0)


def _check_random_state(random_state: Any) -> None:
    try:
        check_random_state(random_state)
    except ValueError as error:
        raise InvalidInput(
            "random_state must be an integer from 0 to 2**32 - 1, a numpy.random.RandomState or "
            f"None; got {random_state!r:.200} of type {type(random_state).__name__}."
        ) from error


def hidden_sizes(hidden_layer_sizes: Any) -> list[int]:
    """The sizes as a list; an integer is one layer.

    Raises InvalidInput where one is not a positive integer, and for what can be iterated once only.
    """
    several = isinstance(hidden_layer_sizes, Collection) and not _is_one(hidden_layer_sizes)
    sizes = list(hidden_layer_sizes) if several else [hidden_layer_sizes]
    for size in sizes:
        checks.number(
            "hidden_layer_sizes",
            size,
            integer=True,
            at_least=1,
            hint="Give one size a hidden layer, e.g. (100,) or (256, 128).",
        )
    return [int(size) for size in sizes]


def _is_one(given: Any) -> bool:
    """Of what has several parts by its type: a text, bytes, an array without an axis."""
    return isinstance(given, (str, bytes, bytearray)) or getattr(given, "ndim", 1) == 0

"""What a fit says, in scikit-learn's words: of each epoch, and of how it ended."""

from __future__ import annotations

from typing import Any

from sklearn.exceptions import ConvergenceWarning

from phalanx.clusters.hosts.launch import speaks
from phalanx.estimators.recipe import schedule_of
from phalanx.pure.schedules import Adaptive
from phalanx.pure.stopping import Reason
from phalanx.run import EpochRecord
from phalanx.training.afterwards import warn_afterwards
from phalanx.training.following import OnEpoch
from phalanx.training.lbfgs import Minimum
from phalanx.training.train import Trained
from phalanx.warning import warn_caller, warn_interrupted


def shows(params: Any) -> bool:
    """Whether a fit prints anything: where it was asked to, on the first of several hosts."""
    return bool(params.verbose) and speaks()


def printing(params: Any, callback: OnEpoch | None) -> OnEpoch:
    """The line for an epoch, and the user's callback, if any."""
    rate = 0.0

    def print_epoch(epoch: int, record: EpochRecord) -> bool | None:
        nonlocal rate
        _say_plateau(params, rate, record.rate)
        rate = record.rate
        print(f"Iteration {epoch}, loss = {record.loss:.8f}")
        if record.score is not None:
            print(f"Validation score: {record.score:f}")
        return callback(epoch, record) if callback else None

    return print_epoch


def say_end(params: Any, trained: Trained, incremental: bool) -> None:
    """Of a training step by step; incremental: by one call of partial_fit."""
    warn_afterwards(trained.run)
    reason, rates = trained.reason, trained.run.rates
    if shows(params) and rates:
        _say_plateau(params, rates[-1], trained.progress.rate)
    if reason is Reason.INTERRUPTED:
        warn_interrupted()
    elif reason is Reason.MAX_EPOCHS and not incremental:
        warn_caller(
            f"Stochastic Optimizer: Maximum iterations ({params.max_iter}) reached and the "
            "optimization hasn't converged yet.",
            ConvergenceWarning,
        )
    elif reason is Reason.NO_IMPROVEMENT and shows(params):
        why = "Learning rate too small. " if _is_adaptive(params) else ""
        print(f"{_stale(params)} {why}Stopping.")


def say_minimum(minimum: Minimum) -> None:
    """Of a training by L-BFGS."""
    warn_afterwards(minimum.trained.run)
    if minimum.trained.reason is Reason.INTERRUPTED:
        warn_interrupted()
    elif minimum.status != 0:
        warn_caller(
            f"lbfgs failed to converge after {minimum.iterations} iteration(s) "
            f"(status={minimum.status}): {minimum.message}. Increase max_iter or max_fun, or "
            "scale the data.",
            ConvergenceWarning,
        )


def _say_plateau(params: Any, before: float, after: float) -> None:
    """Of a learning rate that a plateau has lowered."""
    if _is_adaptive(params) and after < before:
        print(f"{_stale(params)} Setting learning rate to {after:f}")


def _is_adaptive(params: Any) -> bool:
    return isinstance(schedule_of(params), Adaptive)


def _stale(params: Any) -> str:
    """Of epochs that made nothing better."""
    what = "Validation score" if params.early_stopping else "Training loss"
    return (
        f"{what} did not improve more than tol={params.tol:f} for "
        f"{params.n_iter_no_change} consecutive epochs."
    )

"""When a training ends: a pure rule over the losses and scores of its epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from phalanx.pure.schedules import Schedule


class Reason(StrEnum):
    """Why a training ended."""

    MAX_EPOCHS = "max_epochs"
    LOSS_THRESHOLD = "loss_threshold"
    NO_IMPROVEMENT = "no_improvement"
    INTERRUPTED = "interrupted"
    CALLBACK = "callback"


@dataclass(frozen=True)
class Rule:
    """The bounds of a training.

    loss_threshold: stop once an epoch's loss is at most this; None for never.
    tol, patience: an epoch that does not better the best by `tol` counts; more than `patience`
    such epochs in a row are a plateau (scikit-learn's `n_iter_no_change`; inf for never).
    by_score: whether a validation score is followed instead of the training loss.
    """

    schedule: Schedule
    max_epochs: int
    tol: float = 1e-4
    patience: float = 10
    by_score: bool = False
    loss_threshold: float | None = None


class Progress(NamedTuple):
    """What the rule remembers between epochs."""

    rate: float
    epochs: int = 0
    samples_seen: int = 0
    best_loss: float = math.inf
    best_score: float = -math.inf
    stale_epochs: int = 0
    improved: bool = False  # whether the last epoch is the best by score


def judge(
    rule: Rule, before: Progress, samples: int, loss: float, score: float | None
) -> tuple[Progress, Reason | None]:
    """The progress after one more epoch of `samples` samples, and why to stop there, if so.

    Follows scikit-learn 1.9 `_fit_stochastic` to the comparison, so that NaN behaves alike.
    """
    if rule.by_score and score is not None:
        stale = score < before.best_score + rule.tol
        improved = score > before.best_score
        best_loss, best_score = before.best_loss, score if improved else before.best_score
    else:
        stale, improved = loss > before.best_loss - rule.tol, False
        best_loss = loss if loss < before.best_loss else before.best_loss
        best_score = before.best_score
    seen, stale_epochs = before.samples_seen + samples, before.stale_epochs + 1 if stale else 0
    rate, reason = _next_rate(
        rule, rule.schedule.after_epoch(before.rate, seen), loss, stale_epochs
    )
    if reason is None and stale_epochs > rule.patience:
        stale_epochs = 0
    if reason is None and before.epochs + 1 >= rule.max_epochs:
        reason = Reason.MAX_EPOCHS
    after = Progress(rate, before.epochs + 1, seen, best_loss, best_score, stale_epochs, improved)
    return after, reason


def _next_rate(
    rule: Rule, rate: float, loss: float, stale_epochs: int
) -> tuple[float, Reason | None]:
    """The learning rate to go on with, and why not to go on, if so."""
    if rule.loss_threshold is not None and loss <= rule.loss_threshold:
        return rate, Reason.LOSS_THRESHOLD
    if stale_epochs > rule.patience:
        lower = rule.schedule.after_plateau(rate)
        return (rate, Reason.NO_IMPROVEMENT) if lower is None else (lower, None)
    return rate, None

"""When a training ends: a pure rule over the losses and scores of its epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from phalanx.schedules import Schedule


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


@dataclass(frozen=True)
class Progress:
    """What the rule remembers between epochs."""

    rate: float
    epochs: int = 0
    samples_seen: int = 0
    best_loss: float = math.inf
    best_score: float = -math.inf
    stale_epochs: int = 0
    improved: bool = field(default=False)  # whether the last epoch is the best by score


def judge(
    rule: Rule, before: Progress, samples: int, loss: float, score: float | None
) -> tuple[Progress, Reason | None]:
    """The progress after one more epoch of `samples` samples, and why to stop there, if so.

    Follows scikit-learn 1.9 `_fit_stochastic` to the comparison, so that NaN behaves alike.
    """
    after = replace(
        _compared(rule, before, loss, score),
        epochs=before.epochs + 1,
        samples_seen=before.samples_seen + samples,
    )
    after = replace(after, rate=rule.schedule.after_epoch(after.rate, after.samples_seen))
    if rule.loss_threshold is not None and loss <= rule.loss_threshold:
        return after, Reason.LOSS_THRESHOLD
    if after.stale_epochs > rule.patience:
        rate = rule.schedule.after_plateau(after.rate)
        if rate is None:
            return after, Reason.NO_IMPROVEMENT
        after = replace(after, rate=rate, stale_epochs=0)
    return after, Reason.MAX_EPOCHS if after.epochs >= rule.max_epochs else None


def _compared(rule: Rule, before: Progress, loss: float, score: float | None) -> Progress:
    if rule.by_score and score is not None:
        stale = score < before.best_score + rule.tol
        return replace(
            before,
            stale_epochs=before.stale_epochs + 1 if stale else 0,
            best_score=score if score > before.best_score else before.best_score,
            improved=score > before.best_score,
        )
    stale = loss > before.best_loss - rule.tol
    return replace(
        before,
        stale_epochs=before.stale_epochs + 1 if stale else 0,
        best_loss=loss if loss < before.best_loss else before.best_loss,
        improved=False,
    )

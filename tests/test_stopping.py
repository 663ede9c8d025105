import math

import pytest

from phalanx.pure.schedules import Adaptive, Constant, InverseScaling
from phalanx.pure.stopping import Progress, Reason, Rule, judge


def follow(rule, losses, scores=None):
    progress, reason = Progress(rate=rule.schedule.initial), None
    for i, loss in enumerate(losses):
        progress, reason = judge(rule, progress, 10, loss, scores[i] if scores else None)
        if reason:
            break
    return progress, reason


def test_goes_on_while_the_loss_falls_until_the_epochs_run_out():
    progress, reason = follow(Rule(Constant(0.1), max_epochs=5), [5, 4, 3, 2, 1])
    assert (progress.epochs, progress.samples_seen, reason) == (5, 50, Reason.MAX_EPOCHS)
    assert progress.best_loss == 1


def test_stops_after_more_than_patience_epochs_without_improvement():
    rule = Rule(Constant(0.1), max_epochs=100, tol=0.5, patience=2)
    progress, reason = follow(rule, [5, 4.9, 4.8, 4.7, 4.6])
    assert (progress.epochs, reason) == (4, Reason.NO_IMPROVEMENT)
    assert progress.stale_epochs == 3


def test_never_stops_by_plateau_with_infinite_patience():
    rule = Rule(Constant(0.1), max_epochs=50, tol=1e9, patience=math.inf)
    assert follow(rule, [1.0] * 50)[1] is Reason.MAX_EPOCHS


def test_stops_at_the_loss_threshold():
    rule = Rule(Constant(0.1), max_epochs=9, loss_threshold=2)
    progress, reason = follow(rule, [4, 3, 2, 1])
    assert (progress.epochs, reason) == (3, Reason.LOSS_THRESHOLD)


def test_follows_the_score_where_asked():
    rule = Rule(Constant(0.1), max_epochs=99, tol=0, patience=1, by_score=True)
    progress, reason = follow(rule, [9] * 5, [0.1, 0.5, 0.4, 0.3, 0.9])
    assert (progress.epochs, progress.best_score, reason) == (4, 0.5, Reason.NO_IMPROVEMENT)
    assert not progress.improved


def test_nan_never_improves():
    rule = Rule(Constant(0.1), max_epochs=3, by_score=True)
    progress, _ = follow(rule, [math.nan] * 3, [math.nan] * 3)
    assert progress.best_score == -math.inf


def test_adaptive_divides_by_five_at_each_plateau_then_stops():
    rule = Rule(Adaptive(1e-4), max_epochs=10**6, tol=1, patience=1)
    progress, reason = follow(rule, [1.0] * 1000)
    assert reason is Reason.NO_IMPROVEMENT
    assert progress.rate == pytest.approx(1e-4 / 5**3)


def test_inverse_scaling_follows_the_samples_seen():
    progress, _ = follow(Rule(InverseScaling(0.1, 0.5), max_epochs=9), [3, 2])
    assert progress.rate == 0.1 / 21**0.5

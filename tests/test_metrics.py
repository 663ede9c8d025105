import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st

from phalanx.pure import metrics
from phalanx.pure.metrics import CLASS_METRICS, VALUE_METRICS, class_metric

RNG = np.random.default_rng(0)
Y, P = RNG.integers(0, 4, 300), RNG.integers(0, 4, 300)
WEIGHT = RNG.random(300)
VALUES, GUESSES = RNG.normal(5, 2, (300, 3)), RNG.normal(5, 2, (300, 3))

THEIR_CLASS = {
    "accuracy": sk.accuracy_score,
    "precision": lambda y, p, **k: sk.precision_score(y, p, average="macro", zero_division=0, **k),
    "recall": lambda y, p, **k: sk.recall_score(y, p, average="macro", zero_division=0, **k),
    "f1": lambda y, p, **k: sk.f1_score(y, p, average="macro", zero_division=0, **k),
}
THEIR_VALUE = {"mse": sk.mean_squared_error, "mae": sk.mean_absolute_error, "r2": sk.r2_score}
cuts = st.lists(st.integers(0, 300), max_size=7).map(lambda c: sorted({0, 300, *c}))


@pytest.mark.parametrize("name", sorted(CLASS_METRICS))
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_class_metrics_are_scikit_learns(name, weight):
    expected = THEIR_CLASS[name](Y, P, sample_weight=weight)
    assert class_metric(name, 4)(Y, P, weight) == pytest.approx(expected, rel=1e-12)


def test_classes_that_never_occur_do_not_count():
    assert class_metric("recall", 9)(Y, P) == pytest.approx(THEIR_CLASS["recall"](Y, P))


@pytest.mark.parametrize("name", sorted(VALUE_METRICS))
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_value_metrics_are_scikit_learns(name, weight):
    expected = THEIR_VALUE[name](VALUES, GUESSES, sample_weight=weight)
    assert VALUE_METRICS[name](VALUES, GUESSES, weight) == pytest.approx(expected, rel=1e-9)


def test_log_loss_is_scikit_learns():
    probability = RNG.dirichlet(np.ones(4), 300)
    expected = sk.log_loss(Y, probability, sample_weight=WEIGHT)
    assert metrics.log_loss(Y, probability, WEIGHT) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("perfect", [True, False])
def test_r2_of_a_constant_target(perfect):
    y = np.ones(5)
    guess = y if perfect else y + 1
    assert VALUE_METRICS["r2"](y, guess) == sk.r2_score(y, guess)


@given(cuts)
def test_the_division_of_samples_changes_no_count(bounds):
    pieces = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
    for name in CLASS_METRICS:
        metric = class_metric(name, 4)
        whole = metric(Y, P)
        assert metric.total((Y[s], P[s], np.ones(s.stop - s.start)) for s in pieces) == whole
    for metric in VALUE_METRICS.values():
        total = metric.total((VALUES[s], GUESSES[s], WEIGHT[s]) for s in pieces)
        assert total == pytest.approx(metric(VALUES, GUESSES, WEIGHT), rel=1e-9)

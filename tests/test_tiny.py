"""The whole stack in one small test: two workers, one network, one answer."""

import numpy as np
import pytest

from phalanx import MLPClassifier

X = np.random.default_rng(0).normal(size=(64, 4))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_two_workers_train_what_one_does():
    settings = dict(hidden_layer_sizes=(8,), max_iter=5, batch_size=16, shards=2, random_state=0)
    alone = MLPClassifier(**settings).fit(X, Y)
    together = MLPClassifier(**settings, n_jobs=2).fit(X, Y)
    assert together.run_.workers == 2
    assert sum(together.run_.shares) == pytest.approx(1)
    assert together.run_.digest == alone.run_.digest
    assert together.loss_curve_ == alone.loss_curve_
    assert together.loss_curve_[-1] < together.loss_curve_[0]
    np.testing.assert_array_equal(together.predict_proba(X), alone.predict_proba(X))

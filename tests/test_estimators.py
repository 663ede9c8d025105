"""What users of scikit-learn's classes rely on besides its own tests (test_sklearn_suite.py)."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.neural_network as theirs
from scipy.sparse import csr_matrix
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning

import phalanx as ours
from phalanx import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 4))
KINDS = np.arange(N) % 3
SEVERAL = np.c_[KINDS > 0, X[:, 0] > 0, X[:, 1] > 0].astype(int)
SHORT = dict(hidden_layer_sizes=(5,), max_iter=3, random_state=0)


@pytest.mark.parametrize("first", ["fit", "partial_fit"])
@pytest.mark.parametrize("columns", [2, 3])
def test_labels_stay_of_one_kind(first, columns):
    clf = ours.MLPClassifier(**SHORT)
    getattr(clf, first)(X, KINDS, **({"classes": [0, 1, 2]} if first == "partial_fit" else {}))
    before = clf.coefs_[0].copy()
    with pytest.raises(ValueError, match=r"one label a sample.*not fitted with multilabel input"):
        clf.partial_fit(X, SEVERAL[:, :columns])
    np.testing.assert_array_equal(clf.coefs_[0], before)
    with pytest.raises(InvalidInput, match=r"indicators \[n, O\]"):
        ours.MLPClassifier(warm_start=True, **SHORT).fit(X, SEVERAL).fit(X, KINDS)


@pytest.mark.parametrize(
    ("kind", "y", "other", "message"),
    [
        (ours.MLPClassifier, KINDS, SEVERAL, "one label a sample"),
        (ours.MLPClassifier, SEVERAL, KINDS, "indicators"),
        (ours.MLPRegressor, X[:, :2], X[:, 0], "got 1 a sample, where those have 2"),
        (ours.MLPRegressor, X[:, 0], X[:, :2], "got 2 a sample, where those have 1"),
        (ours.MLPRegressor, X[:, :2], X[:, :3], "got 3 a sample, where those have 2"),
    ],
)
def test_validation_targets_are_like_those_of_the_training(kind, y, other, message):
    estimator = kind(**SHORT)
    with pytest.raises(InvalidInput, match=message):
        estimator.fit(X, y, validation_data=(X, other))
    assert not hasattr(estimator, "coefs_")


def test_lbfgs_refuses_what_it_would_not_look_at():
    with pytest.raises(InvalidInput, match="validation_data can be used where"):
        ours.MLPClassifier(solver="lbfgs").fit(X, KINDS, validation_data=(X, KINDS))


def test_one_class_is_always_right():
    for kind in (ours.MLPClassifier, theirs.MLPClassifier):
        clf = kind(early_stopping=True, max_iter=3, random_state=3).fit(X, ["a"] * N)
        assert clf.validation_scores_ == [1.0] * 3


def test_class_weights_do_not_judge():
    """Whether the validation samples are set aside or given."""
    weights = {0: 1000.0}
    clf = ours.MLPClassifier(early_stopping=True, class_weight=weights, **SHORT).fit(X, KINDS)
    held_out = round(0.1 * N)
    np.testing.assert_allclose(
        np.array(clf.validation_scores_) * held_out % 1, 0, atol=1e-12
    )  # each sample counts as one


def test_weights_that_leave_nobody():
    few = np.zeros(N)
    few[:4] = 1
    for kind in (ours.MLPClassifier, ours.MLPRegressor):
        with pytest.raises(InvalidInput, match="samples to judge by must have a weight above 0"):
            kind(early_stopping=True, random_state=3, max_iter=3).fit(X, KINDS, few)
    with pytest.raises(InvalidInput, match=r"samples to learn from must have .* all 60"):
        ours.MLPClassifier(class_weight={0: 0}).fit(X, KINDS, KINDS == 0)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_losses_are_numpys(solver):
    clf = ours.MLPClassifier(solver=solver, **SHORT).fit(X, KINDS)
    found = [clf.loss_] if solver == "lbfgs" else [clf.loss_, clf.best_loss_, *clf.loss_curve_]
    assert {type(loss) for loss in found} == {np.float64}


@pytest.mark.parametrize("more", [{}, {"early_stopping": True, "validation_fraction": 0.2}])
def test_an_adaptive_rate_is_told_as_scikit_learn_tells_it(more, capsys):
    told = []
    for kind in (theirs.MLPClassifier, ours.MLPClassifier):
        kind(
            (5,), solver="sgd", learning_rate="adaptive", learning_rate_init=1e-4, tol=0.1,
            n_iter_no_change=2, max_iter=40, shuffle=False, verbose=True, random_state=0, **more,
        ).fit(X, KINDS)  # fmt: skip
        told.append(capsys.readouterr().out.splitlines())
    assert any("Setting learning rate" in line for line in told[0])
    assert told[0][-1].endswith("Learning rate too small. Stopping.")
    assert told[0] == told[1]


def test_an_adaptive_rate_that_falls_after_the_last_epoch_is_told(capsys):
    told, settings = [], dict(solver="sgd", learning_rate="adaptive", tol=9, n_iter_no_change=1)
    for kind in (theirs.MLPClassifier, ours.MLPClassifier):
        clf = kind((5,), **settings, max_iter=3, shuffle=False, verbose=True, random_state=0)
        clf.fit(X, KINDS)
        told.append(capsys.readouterr().out.splitlines())
    assert told[0][-1].endswith("Setting learning rate to 0.000200")
    assert told[0] == told[1]


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("more", [{}, {"early_stopping": True}, {"sync_every": 2}])
def test_a_callback_sees_the_network_of_its_epoch(n_jobs, more):
    def look(epoch, record):
        weights.append([coef.copy() for coef in clf.coefs_ + clf.intercepts_])
        scores.append((record.score, clf.score(X, KINDS)))
        clf.coefs_[0][...] = 0  # of no effect on the training

    weights, scores = [], []
    settings = dict(SHORT, shards=2, batch_size=20, solver="sgd", learning_rate_init=0.5, **more)
    clf = ours.MLPClassifier(**settings, n_jobs=n_jobs)
    clf.fit(X, KINDS, callback=look, validation_data=(X, KINDS))
    assert all(told == seen for told, seen in scores)
    assert len({weight[0].tobytes() for weight in weights}) == 3
    plain = ours.MLPClassifier(**settings).fit(X, KINDS, validation_data=(X, KINDS))
    assert clf.run_.digest == plain.run_.digest
    best = int(np.argmax([score for score, _ in scores])) if "early_stopping" in more else -1
    for seen, learnt in zip(weights[best], clf.coefs_ + clf.intercepts_, strict=True):
        np.testing.assert_array_equal(seen, learnt)


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_callback_that_raises_leaves_the_network_that_there_was(warm_start):
    def fail(epoch, record):
        raise ArithmeticError("mine")

    clf = ours.MLPClassifier(**SHORT, warm_start=warm_start).fit(X, KINDS)
    before, classes = clf.coefs_, clf.classes_
    with pytest.raises(ArithmeticError, match="mine"):
        clf.fit(X, KINDS if warm_start else KINDS > 0, callback=fail)
    assert clf.coefs_ is before
    assert clf.classes_ is classes


def test_lbfgs_works_in_float64_as_scikit_learns():
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    mine, other = (
        kind((10,), solver="lbfgs", max_iter=15, random_state=0).fit(x, y)
        for kind in (ours.MLPClassifier, theirs.MLPClassifier)
    )
    assert mine.coefs_[0].dtype == other.coefs_[0].dtype == np.float64
    assert mine.predict_proba(x).dtype == other.predict_proba(x).dtype
    assert mine.loss_ == pytest.approx(other.loss_, rel=0.05)


@pytest.mark.parametrize(("first", "then"), [("f", "d"), ("d", "f")])
@pytest.mark.parametrize("way", ["partial_fit", "warm_start"])
def test_who_goes_on_keeps_the_dtype(first, then, way):
    for kind in (ours.MLPRegressor, theirs.MLPRegressor):
        estimator = kind(warm_start=way == "warm_start", **SHORT)
        fit = getattr(estimator, "partial_fit" if way == "partial_fit" else "fit")
        for dtype in (first, then):
            fit(X.astype(dtype), X[:, 0].astype(dtype))
        assert estimator.coefs_[0].dtype == np.dtype(first)


def test_who_goes_on_from_weights_that_were_cast_has_the_samples_dtype():
    for dtype in ("f4", "f8"):
        reg = ours.MLPRegressor(**SHORT).fit(X, X[:, 0])
        reg.coefs_ = [coef.astype(np.float16) for coef in reg.coefs_]
        reg.intercepts_ = [intercept.astype(np.float16) for intercept in reg.intercepts_]
        reg.partial_fit(X.astype(dtype), X[:, 0])
        assert reg.coefs_[0].dtype == np.dtype(dtype)


@pytest.mark.parametrize(("layers", "warm_start"), [((5,), False), ((7,), False), ((5,), True)])
def test_an_optimizer_forgets_what_it_knew_of_other_weights(layers, warm_start):
    """L-BFGS has been at them since."""
    once = ours.MLPClassifier(**SHORT).fit(X, KINDS)
    never = ours.MLPClassifier(**SHORT, solver="lbfgs")
    changed = dict(hidden_layer_sizes=layers, warm_start=warm_start)
    once.set_params(solver="lbfgs", **changed).fit(X, KINDS)
    never.set_params(**changed).fit(X, KINDS)
    if warm_start:
        never.coefs_, never.intercepts_ = once.coefs_, once.intercepts_
        never._seed = once._seed
        never._epochs_done, never.t_ = once._epochs_done, once.t_
    for clf in (once, never):
        clf.set_params(solver="adam").partial_fit(X, KINDS)
    for mine, others in zip(once.coefs_, never.coefs_, strict=True):
        np.testing.assert_array_equal(mine, others)


@pytest.mark.parametrize("since", ["poisson", "bogus"])
def test_predictions_are_those_of_the_loss_that_was_fitted(since):
    reg = ours.MLPRegressor(**SHORT).fit(X, X[:, 0])
    before = reg.predict(X)
    np.testing.assert_array_equal(reg.set_params(loss=since).predict(X), before)


def test_a_warm_start_with_another_loss_predicts_by_that_one():
    reg = ours.MLPRegressor(**SHORT, warm_start=True).fit(X, KINDS)
    assert reg.predict(X).min() < 0
    reg.set_params(loss="poisson").fit(X, KINDS)
    assert reg.out_activation_ == "exp"
    assert reg.predict(X).min() > 0


def test_models_of_one_random_state_begin_as_scikit_learns_after_lbfgs():
    found = []
    for kind in (ours.MLPRegressor, theirs.MLPRegressor):
        rng = np.random.RandomState(3)
        kind(**{**SHORT, "random_state": rng}, solver="lbfgs").fit(X, X[:, 0])
        found.append(rng.randint(2**31))
    assert found[0] == found[1]


def test_a_search_that_finds_nothing_better_is_no_limit():
    """Downhill is uphill, so SciPy gives up."""
    clf = ours.MLPClassifier(**SHORT, solver="lbfgs", aggregation=lambda g, w: -g.mean(axis=0))
    with pytest.warns(ConvergenceWarning, match=r"status=2\): ABNORMAL"):
        clf.fit(X, KINDS)
    assert clf.run_.reason == "no_improvement"


def test_a_small_part_of_a_stream_may_leave_shards_empty():
    digests = set()
    for n_jobs in (1, 2):
        clf = ours.MLPClassifier(shards=8, random_state=0, n_jobs=n_jobs)
        for part in (slice(0, 40), slice(40, 45)):
            clf.partial_fit(X[part], KINDS[part], classes=[0, 1, 2])
        digests.add(clf.run_.digest)
    assert len(digests) == 1
    with pytest.raises(InvalidInput, match="shards must be at most"):
        ours.MLPClassifier(shards=8, batch_size=5).partial_fit(X, KINDS, classes=[0, 1, 2])
    with pytest.raises(InvalidInput, match="shards must be at most"):
        ours.MLPClassifier(shards=8).fit(X[:5], KINDS[:5])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": np.inf}, "alpha must be a finite number at least 0"),
        ({"tol": np.inf}, "tol must be a finite number"),
        ({"random_state": "a"}, "random_state must be an integer.*got 'a' of type str"),
        ({"random_state": -1}, "random_state must be"),
        ({"random_state": np.random.default_rng(0)}, "random_state must be"),
    ],
)
def test_parameters_out_of_range(parameters, message):
    with pytest.raises(InvalidInput, match=message):
        ours.MLPClassifier(**parameters).fit(X, KINDS)


def test_arguments_out_of_range():
    with pytest.raises(InvalidInput, match=r"needs samples to judge by; got validation_fraction=0"):
        ours.MLPClassifier(early_stopping=True, validation_fraction=0).fit(X, KINDS)
    judged = ours.MLPClassifier(early_stopping=True, validation_fraction=0, **SHORT)
    assert judged.fit(X, KINDS, validation_data=(X, KINDS)).validation_scores_
    with pytest.raises(InvalidInput, match=r"callback must be a function.*got 5"):
        ours.MLPClassifier().fit(X, KINDS, callback=5)
    with pytest.raises(InvalidInput, match=r"targets must be a dense array.*y.toarray\(\)"):
        ours.MLPRegressor().fit(X, csr_matrix(X[:, :2]))


def test_each_evaluation_of_lbfgs_visits_all_samples():
    run = ours.MLPClassifier(solver="lbfgs", **SHORT).fit(X, KINDS).run_
    assert run.samples == run.steps * len(X)


def test_the_record_names_lbfgs():
    assert ours.MLPClassifier(solver="lbfgs", **SHORT).fit(X, KINDS).run_.strategies[
        "optimizer"
    ] == ("lbfgs")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sparse_bools_of_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.get_dummies(pandas.Series(list("abc") * 20), sparse=True)
    y = np.arange(60) % 3
    samples = frame, csr_matrix(frame.to_numpy(float))
    fitted = [ours.MLPClassifier((8,), max_iter=3, random_state=0).fit(x, y) for x in samples]
    assert fitted[0].loss_curve_ == fitted[1].loss_curve_
    first, second = (each.predict(x) for each, x in zip(fitted, samples, strict=True))
    np.testing.assert_array_equal(first, second)

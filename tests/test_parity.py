"""With shuffling off and the same random_state, the losses are scikit-learn's."""

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import load_digits, make_multilabel_classification
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import phalanx as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:500] / 16, Y[:500]
RNG = np.random.default_rng(0)
VALUES = np.abs(X[:, :2] @ RNG.normal(size=(2, 2)) + X[:, 20:22])
COMMON = dict(shuffle=False, random_state=3, max_iter=12, hidden_layer_sizes=(20, 15))


def both(kind, data, fit=None, **settings):
    made = [getattr(m, kind)(**{**COMMON, **settings}) for m in (ours, theirs)]
    for estimator in made:
        (fit or (lambda e: e.fit(*data)))(estimator)
    return made


def assert_follows(mine, reference, tolerance=1e-6):
    np.testing.assert_allclose(mine.loss_curve_, reference.loss_curve_, rtol=tolerance)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(mine, name) == getattr(reference, name), name
    assert mine.loss_ == pytest.approx(reference.loss_, rel=tolerance)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("shards", [1, 5])
def test_losses_of_every_shared_solver_and_activation(activation, solver, shards):
    (mine, reference) = both(
        "MLPClassifier", (X, Y), lambda e: (e.set_params(shards=shards) if "shards" in
        e.get_params() else e).fit(X, Y), activation=activation, solver=solver,
    )  # fmt: skip
    assert_follows(mine, reference)
    np.testing.assert_allclose(mine.predict_proba(X), reference.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_lbfgs_reaches_the_same_loss(activation, kind):
    data = (X, Y) if kind == "MLPClassifier" else (X, VALUES)
    mine, reference = both(kind, data, activation=activation, solver="lbfgs")
    assert mine.loss_ == pytest.approx(reference.loss_, rel=1e-6)
    assert mine.n_iter_ == reference.n_iter_


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_regression(loss, solver):
    mine, reference = both("MLPRegressor", (X, VALUES), loss=loss, solver=solver)
    assert_follows(mine, reference)
    np.testing.assert_allclose(mine.predict(X), reference.predict(X), rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        dict(solver="sgd", momentum=0),
        dict(solver="sgd", nesterovs_momentum=False),
        dict(solver="sgd", learning_rate="invscaling"),
        dict(solver="sgd", learning_rate="adaptive", tol=0.1, n_iter_no_change=1, max_iter=30),
        dict(batch_size=33, alpha=0.1),
        dict(batch_size=500, beta_1=0.5, beta_2=0.9, epsilon=1e-4),
        dict(tol=0.05, n_iter_no_change=2, max_iter=100),
        dict(early_stopping=True, max_iter=30),
        dict(early_stopping=True, validation_fraction=0.3, n_iter_no_change=1, max_iter=50),
        dict(hidden_layer_sizes=7),
        dict(hidden_layer_sizes=[5, 4, 3]),
    ],
    ids=str,
)
def test_settings(settings):
    mine, reference = both("MLPClassifier", (X, Y), **settings)
    assert_follows(mine, reference)
    assert mine.validation_scores_ == pytest.approx(reference.validation_scores_)
    assert mine.best_validation_score_ == pytest.approx(reference.best_validation_score_)
    np.testing.assert_allclose(mine.coefs_[0], reference.coefs_[0], rtol=1e-4, atol=1e-9)


def test_two_classes_strings_and_several_labels():
    words = np.array(["no", "yes"], dtype=object)[(Y > 4).astype(int)]
    mine, reference = both("MLPClassifier", (X, words))
    assert_follows(mine, reference)
    assert mine.predict(X).tolist() == reference.predict(X).tolist()
    many, labels = make_multilabel_classification(100, random_state=0)
    mine, reference = both("MLPClassifier", (many, labels), early_stopping=True)
    assert_follows(mine, reference)
    np.testing.assert_array_equal(mine.predict(many), reference.predict(many))


def test_sparse_indicators_come_back_sparse():
    from scipy.sparse import csr_matrix

    many, labels = make_multilabel_classification(100, random_state=0)
    sparse = csr_matrix(labels)

    def twice(estimator):
        estimator.set_params(learning_rate_init=0.1).fit(many, sparse).partial_fit(many, sparse)

    for settings, fit in (
        ({}, twice),
        (dict(early_stopping=True), None),
        ({}, lambda e: e.partial_fit(many, sparse, classes=range(5))),
    ):
        mine, reference = both("MLPClassifier", (many, sparse), fit, **settings)
        assert_follows(mine, reference)
        found, expected = mine.predict(many), reference.predict(many)
        assert type(found) is type(expected) is csr_matrix
        np.testing.assert_array_equal(found.toarray(), expected.toarray())
        assert mine.score(many, sparse) == reference.score(many, sparse)
        np.testing.assert_allclose(mine.predict_proba(many), reference.predict_proba(many), 1e-5)


def test_sample_weights_sparse_samples_and_partial_fit():
    weight = RNG.random(500)
    assert_follows(*both("MLPClassifier", None, lambda e: e.fit(X, Y, weight)))
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(np.where(X > 0.5, X, 0))
    assert_follows(*both("MLPClassifier", (sparse, Y)))

    def twice(estimator):
        for half in (slice(0, 250), slice(250, None)):
            estimator.partial_fit(X[half], Y[half], classes=range(10))

    assert_follows(*both("MLPClassifier", None, twice))


def test_warm_start_appends_and_goes_on():
    def twice(estimator):
        estimator.set_params(warm_start=True, max_iter=4).fit(X, Y)
        estimator.set_params(max_iter=6).fit(X, Y)

    mine, reference = both("MLPClassifier", None, twice)
    assert_follows(mine, reference)
    assert len(mine.loss_curve_) == 10


def test_the_same_initial_weights():
    settings = dict(max_iter=1, learning_rate_init=1e-300)
    mine, reference = both("MLPClassifier", (X, Y), **settings)
    for a, b in zip(mine.coefs_ + mine.intercepts_, reference.coefs_ + reference.intercepts_,
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_iris_with_only_the_import_changed(capsys):
    from sklearn.datasets import load_iris
    from sklearn.metrics import accuracy_score

    accuracies = {}
    for module in (ours, theirs):
        iris = load_iris()
        X_train, X_test, y_train, y_test = train_test_split(
            iris.data, iris.target, test_size=0.2, random_state=0
        )
        clf = module.MLPClassifier(
            hidden_layer_sizes=(10,), max_iter=1000, alpha=1e-4, solver="sgd", verbose=10,
            random_state=0,
        )  # fmt: skip
        clf.fit(X_train, y_train)
        accuracies[module] = accuracy_score(y_test, clf.predict(X_test))
    assert accuracies[ours] >= accuracies[theirs]
    printed = capsys.readouterr().out
    assert "Iteration 1, loss = " in printed


def test_digits_in_a_pipeline():
    train_x, test_x, train_y, test_y = train_test_split(
        *load_digits(return_X_y=True), test_size=0.2, random_state=0
    )
    scores = [
        make_pipeline(StandardScaler(), m.MLPClassifier(max_iter=40, random_state=0))
        .fit(train_x, train_y)
        .score(test_x, test_y)
        for m in (ours, theirs)
    ]
    assert scores[0] >= scores[1] - 0.01
    assert scores[0] > 0.95


def test_grid_search_cross_validation_and_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    labels = pandas.Series(Y)
    clf = ours.MLPClassifier(max_iter=10, random_state=0, hidden_layer_sizes=(15,))
    assert len(cross_val_score(clf, frame, labels, cv=3)) == 3
    search = GridSearchCV(clf, {"activation": ["relu", "tanh"]}, cv=2).fit(frame, labels)
    assert search.best_params_["activation"] in ("relu", "tanh")
    assert list(search.best_estimator_.feature_names_in_) == list(frame.columns)


def test_pickles_and_goes_on():
    import pickle

    clf = ours.MLPClassifier(max_iter=3, random_state=0).fit(X, Y)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.run_.digest == clf.run_.digest
    assert again.partial_fit(X, Y).run_.digest == clf.partial_fit(X, Y).run_.digest


def test_loss_threshold_stops():
    clf = ours.MLPClassifier(random_state=0, loss_threshold=1.0).fit(X, Y)
    assert clf.run_.reason == "loss_threshold"
    assert clf.loss_curve_[-1] <= 1.0 < clf.loss_curve_[-2]
    fit = ours.MLPClassifier(random_state=0, loss_threshold=1.0, solver="lbfgs").fit(X, Y)
    assert fit.loss_ <= 1.0
    assert fit.run_.reason == "loss_threshold"


def test_partial_fit_after_a_change_of_solver_starts_its_state_anew():
    for before, after in [("sgd", "adam"), ("adam", "sgd"), ("adagrad", "adam")]:
        clf = ours.MLPClassifier(solver=before, random_state=0)
        clf.partial_fit(X, Y, classes=range(10)).set_params(solver=after).partial_fit(X, Y)
        assert clf.loss_curve_[1] < clf.loss_curve_[0]


def test_adam_after_lbfgs_and_validation_in_another_dtype():
    clf = ours.MLPClassifier(solver="lbfgs", max_iter=5, random_state=0).fit(X, Y)
    clf.set_params(solver="adam", warm_start=True)
    clf.fit(X.astype("f4"), Y, validation_data=(X[:50], Y[:50]))
    assert len(clf.validation_scores_) == len(clf.loss_curve_) == 5


def test_a_warm_start_with_other_layers_is_refused():
    clf = ours.MLPClassifier((1,), max_iter=2, warm_start=True, random_state=0).fit(X, Y)
    with pytest.raises(ours.InvalidInput, match="weights must fit the layers"):
        clf.set_params(hidden_layer_sizes=(8,)).fit(X, Y)


def test_negative_weights_are_sums_like_others_however_the_batch_is_cut():
    """A shard may weigh less than nothing, and so may all."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 4))
    y = (x[:, 0] > 0).astype(int)
    mixed = np.repeat([2.0, -0.5, 2.0, 2.0], 12)
    for weight_B in (mixed, -np.ones(48)):
        whole, cut = (
            ours.MLPClassifier(
                (5,), solver="sgd", batch_size=48, shards=shards, max_iter=3, shuffle=False,
                random_state=0,
            ).fit(x, y, sample_weight=weight_B)
            for shards in (1, 4)
        )  # fmt: skip
        np.testing.assert_allclose(whole.loss_curve_, cut.loss_curve_, rtol=1e-10)
        for a, b in zip(whole.coefs_, cut.coefs_, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)

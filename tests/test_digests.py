"""G1: parameters and optimiser state are the same bits for any number of workers."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array

from phalanx import MLPClassifier, MLPRegressor
from phalanx.data import caller, placement
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.pure.aggregation import AGGREGATIONS
from phalanx.pure.assignment import ASSIGNMENTS
from phalanx.pure.optimizers import OPTIMIZERS
from phalanx.pure.plan import DISTRIBUTIONS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(203, 12))  # 203 rows in batches of 50: the last has 3, fewer than its shards
Y = np.argmax(X @ RNG.normal(size=(12, 5)), axis=1)
VALUES = np.abs(X @ RNG.normal(size=(12, 2)))
SETTINGS = dict(
    hidden_layer_sizes=(90, 70), batch_size=50, shards=7, max_iter=2, random_state=1, n_jobs=1
)
WORKERS = (2, 3, 4, 7)


def outsiders(n_tasks, speeds_W):
    """A user's assignment: everything to the last two workers."""
    last = len(speeds_W) - 1
    return [last - task % min(2, len(speeds_W)) for task in range(n_tasks)]


def backwards(epoch):
    """A user's distribution."""
    return np.arange(epoch.n_samples)[::-1] if epoch.number % 2 else np.arange(epoch.n_samples)


def signs(grads_Sn, weights_S):
    """A user's aggregation: the majority's sign."""
    return np.sign(np.sign(grads_Sn).sum(axis=0)) * np.abs(grads_Sn).mean(axis=0)


def assert_same_for_any_workers(make, fit, workers=WORKERS):
    alone = fit(make(n_jobs=1))
    assert len(alone.run_.digest) == 64
    for n in workers:
        together = fit(make(n_jobs=n))
        assert together.run_.workers == n
        assert together.run_.digest == alone.run_.digest, n
        assert getattr(together, "loss_curve_", None) == getattr(alone, "loss_curve_", None)
        for a, b in zip(together.coefs_, alone.coefs_, strict=True):
            np.testing.assert_array_equal(a, b)
    return alone


def classifier(**changes):
    return lambda n_jobs: MLPClassifier(**{**SETTINGS, **changes, "n_jobs": n_jobs})


def fit(estimator):
    return estimator.fit(X, Y)


@pytest.mark.parametrize("distribution", [*sorted(DISTRIBUTIONS), backwards])
@pytest.mark.parametrize("assignment", [*sorted(ASSIGNMENTS), outsiders])
def test_any_distribution_and_assignment(distribution, assignment):
    make = classifier(data_distribution=distribution, task_assignment=assignment)
    assert_same_for_any_workers(make, fit)


@pytest.mark.parametrize("aggregation", [*sorted(AGGREGATIONS), signs])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_aggregation_and_dtype(aggregation, dtype):
    make = classifier(aggregation=aggregation)
    alone = assert_same_for_any_workers(make, lambda e: e.fit(X.astype(dtype), Y))
    assert alone.coefs_[0].dtype == dtype


@pytest.mark.parametrize("solver", [*sorted(OPTIMIZERS), "lbfgs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_optimizer_and_dtype(solver, dtype):
    make = classifier(solver=solver)
    assert_same_for_any_workers(make, lambda e: e.fit(X.astype(dtype), Y))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_any_activation(activation):
    assert_same_for_any_workers(classifier(activation=activation), fit, workers=(2, 7))


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "poisson"])
def test_any_regression_loss(loss):
    def make(n_jobs):
        return MLPRegressor(loss, **{**SETTINGS, "n_jobs": n_jobs})

    assert_same_for_any_workers(make, lambda e: e.fit(X, VALUES), workers=(2, 7))


WIDE = dict(hidden_layer_sizes=(90, 750), max_iter=2)  # shards leave factors of gradients


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("assignment", [*sorted(ASSIGNMENTS), outsiders])
def test_wide_layers(assignment, dtype):
    def fit_as(estimator):
        return estimator.fit(X.astype(dtype), Y)

    made = assert_same_for_any_workers(
        classifier(**WIDE, task_assignment=assignment, dropout=0.2), fit_as
    )
    plain = made_without_factors(classifier(**WIDE, dropout=0.2), fit_as)
    np.testing.assert_allclose(made.loss_curve_, plain.loss_curve_, rtol=1e-5)
    assert plain.run_.digest != made.run_.digest, "they end in other last bits"


def made_without_factors(make, fit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("phalanx.models.mlp.factored.FEWEST", 10**9)
        return fit(make(n_jobs=1))


def test_dropout():
    with_dropout = assert_same_for_any_workers(classifier(dropout=0.3), fit)
    assert with_dropout.run_.digest != fit(classifier()(1)).run_.digest


@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_gradients_that_are_rounded(wire):
    alone = assert_same_for_any_workers(classifier(wire=wire), fit, workers=(2, 7))
    assert alone.run_.strategies["wire"] == wire
    assert alone.run_.digest != fit(classifier()(1)).run_.digest


@pytest.mark.parametrize("learning_rate", ["invscaling", "adaptive"])
def test_schedules(learning_rate):
    make = classifier(solver="sgd", learning_rate=learning_rate, tol=1, n_iter_no_change=1,
                      max_iter=5)  # fmt: skip
    assert_same_for_any_workers(make, fit, workers=(3,))


def test_early_stopping_keeps_the_same_best_weights():
    make = classifier(early_stopping=True, max_iter=8, validation_fraction=0.3)
    alone = assert_same_for_any_workers(make, fit, workers=(2, 3))
    assert len(alone.validation_scores_) == 8


def test_validation_data_weights_and_class_weights():
    make = classifier(class_weight="balanced")

    def weighted(estimator):
        return estimator.fit(X, Y, RNG_WEIGHT, validation_data=(X[:40], Y[:40]))

    alone = assert_same_for_any_workers(make, weighted, workers=(2, 3))
    assert len(alone.validation_scores_) == 2


RNG_WEIGHT = RNG.random(len(X))


def in_turn():
    """A user's assignment that gives everything to one worker, another every second time."""
    calls = []

    def assignment(n_tasks, speeds_W):
        calls.append(None)
        return [(len(calls) // 2) % len(speeds_W)] * n_tasks

    return assignment


@pytest.mark.parametrize("make_assignment", [lambda: "load_balanced", in_turn])
@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_come_late_to_a_changed_assignment(make_assignment, workers):
    x = np.tile(X[:, :5], (4, 1))
    settings = {**SETTINGS, "hidden_layer_sizes": (8,), "batch_size": 16, "shards": 4}

    def digest(n_jobs):
        clf = MLPClassifier(**{**settings, "n_jobs": n_jobs}, task_assignment=make_assignment())
        return clf.fit(x, np.tile(Y, 4)).run_.digest

    assert {digest(workers) for _ in range(6)} == {digest(1)}


@pytest.mark.parametrize("n_jobs", [2, 3])
def test_lbfgs_of_a_network_that_blas_would_thread(n_jobs):
    def digest(n_jobs):
        reg = MLPRegressor(hidden_layer_sizes=(130, 64), solver="lbfgs", max_iter=12, shards=3,
                           n_jobs=n_jobs, random_state=0)  # fmt: skip
        return reg.fit(np.tile(X, (1, 3)), VALUES).run_.digest

    assert digest(n_jobs) == digest(1)


def test_a_mapped_file_that_was_replaced(tmp_path):
    def digest(n_jobs):
        np.save(tmp_path / "x.npy", X)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        np.save(tmp_path / "other.npy", 100 * X)
        (tmp_path / "other.npy").replace(tmp_path / "x.npy")
        return MLPClassifier(**{**SETTINGS, "n_jobs": n_jobs}).fit(mapped, Y).run_.digest

    assert digest(2) == digest(1) == fit(classifier()(1)).run_.digest


def test_an_epoch_that_does_not_come_is_not_planned():
    orders = [RNG.permutation(len(X))]
    for n_jobs in (1, 2, 3):
        clf = MLPClassifier(
            **{**SETTINGS, "n_jobs": n_jobs, "max_iter": 50},
            loss_threshold=1e9,
            data_distribution=lambda epoch: orders[epoch.number],
        )
        assert clf.fit(X, Y).n_iter_ == 1


def test_sparse_samples():
    sparse = csr_matrix(np.where(np.abs(X) > 1, X, 0))
    assert_same_for_any_workers(classifier(), lambda e: e.fit(sparse, Y), workers=(2, 3))


@pytest.mark.parametrize(
    "changes",
    [{}, {"dropout": 0.3, "task_assignment": "dynamic"}, {"aggregation": "median"},
     {"early_stopping": True, "solver": "sgd"}, {"solver": "lbfgs"}],
    ids=["factors", "dropout", "gradients", "validation", "lbfgs"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_sparse_features(changes, dtype):
    """Their shards leave factors, but for the samples, where shards may."""
    many = random_array((203, 900), density=0.03, format="csr", dtype=dtype, rng=RNG)
    weight_B = RNG.uniform(0.5, 2, 203) if "dropout" in changes else None
    assert_same_for_any_workers(
        classifier(**changes), lambda e: e.fit(many, Y, sample_weight=weight_B)
    )


def test_sparse_matrices_of_every_form_are_the_same_samples():
    sparse = random_array((203, 900), density=0.03, format="csr", rng=RNG)
    wide = sparse.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    apart = sparse.copy()
    apart.data, apart.indices = (np.repeat(part, 2)[::2] for part in (sparse.data, sparse.indices))
    forms = [sparse, wide, apart, sparse.tocsc(), sparse.tocoo(), csr_matrix(sparse)]
    assert len({classifier()(n).fit(x, Y).run_.digest for x in forms for n in (1, 2)}) == 1


@pytest.mark.parametrize("early_stopping", [False, True])
def test_mostly_zeros_are_sparse_however_they_are_given(tmp_path, early_stopping):
    sparse = random_array((203, 900), density=0.1, format="csr", dtype=np.float32, rng=RNG)
    dense = sparse.toarray()
    np.save(tmp_path / "x.npy", dense)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    make = classifier(early_stopping=early_stopping)
    alone = assert_same_for_any_workers(make, lambda e: e.fit(dense, Y))
    assert {make(2).fit(x, Y).run_.digest for x in (mapped, sparse)} == {alone.run_.digest}


def test_a_first_part_is_an_epoch_of_the_whole_for_mostly_zeros_too():
    x = random_array((203, 900), density=0.1, format="csr", rng=RNG).toarray()
    part = classifier()(1).partial_fit(x, Y, classes=np.unique(Y))
    whole = classifier(max_iter=1)(1).fit(x, Y)
    for a, b in zip(part.coefs_, whole.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_samples_in_a_mapped_file(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    alone = assert_same_for_any_workers(classifier(), lambda e: e.fit(mapped, Y), workers=(2, 3))
    assert alone.run_.digest == fit(classifier()(1)).run_.digest


def test_partial_fit_goes_on_alike():
    def three_calls(estimator):
        for part in np.array_split(np.arange(len(X)), 3):
            estimator.partial_fit(X[part], Y[part], classes=np.unique(Y))
        return estimator

    assert_same_for_any_workers(classifier(), three_calls, workers=(2, 3))


def test_predictions_are_the_same_bits():
    many = RNG.normal(size=(20_000, 12))
    estimator = fit(MLPClassifier(**{**SETTINGS, "hidden_layer_sizes": (600,)}))
    alone = estimator.predict_proba(many)
    for n in (2, 3):
        np.testing.assert_array_equal(estimator.set_params(n_jobs=n).predict_proba(many), alone)


def test_more_workers_than_tasks_are_not_asked():
    small = MLPClassifier(hidden_layer_sizes=(3,), shards=2, max_iter=2, n_jobs=6).fit(X, Y)
    assert small.run_.workers == 2


def test_the_number_of_shards_is_part_of_the_answer():
    assert fit(classifier(shards=2)(1)).run_.digest != fit(classifier(shards=3)(1)).run_.digest


@pytest.mark.parametrize("distribution", ["random", "sequential"])
def test_samples_read_from_the_callers_memory(monkeypatch, distribution):
    monkeypatch.setattr(caller, "LARGE", 1)
    parts = []
    monkeypatch.setattr(
        placement, "caller_part", lambda array: parts.append(caller.caller_part(array)) or parts[-1]
    )
    make = classifier(data_distribution=distribution)
    alone = assert_same_for_any_workers(make, fit, workers=(2, 3))
    assert all(parts)
    assert len(parts) == 2
    many = np.tile(X, (100, 1))
    np.testing.assert_array_equal(
        alone.set_params(n_jobs=2).predict_proba(many),
        alone.set_params(n_jobs=1).predict_proba(many),
    )

"""Bad input gets a clear error before any work: the rule, what was received, what to do."""

import copy

import numpy as np
import pytest

from phalanx import CheckpointError, InvalidInput, MLPClassifier, MLPRegressor, UserFunctionError
from phalanx.clusters import pool
from phalanx.pure.checks import workers_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = np.arange(40) % 2
VALUES = RNG.normal(size=40)
NAN, INF = float("nan"), float("inf")

PARAMETERS = [
    ("n_jobs", 0, "n_jobs must not be 0.*got 0.*None or 1"),
    ("n_jobs", -999, "leaves nobody"),
    ("n_jobs", 1.5, r"n_jobs must be an integer; got 1\.5 of type float"),
    ("n_jobs", "two", "n_jobs must be an integer; got 'two' of type str"),
    ("n_jobs", True, "n_jobs must be an integer; got True"),
    ("n_jobs", [2], "n_jobs must be an integer"),
    ("shards", 0, "shards must be an integer at least 1; got 0.*'auto'"),
    ("shards", -1, "shards must be an integer at least 1"),
    ("shards", 2.0, "shards must be an integer"),
    ("shards", "many", "shards must be an integer"),
    ("shards", 41, "shards must be at most the number of rows in a batch.*shards=41.*40 rows"),
    ("shards", None, "shards must be an integer"),
    ("activation", "rellu", "Did you mean 'relu'"),
    ("activation", "sigmoyd", "Did you mean 'sigmoid'"),
    ("activation", "softmax!", "activation must be one of"),
    ("activation", None, "activation must be one of"),
    ("activation", 3, "activation must be one of"),
    ("solver", "adamm", "Did you mean 'adam'"),
    ("solver", "SGD", "Did you mean 'sgd'"),
    ("solver", "lfbgs", "Did you mean 'lbfgs'"),
    ("solver", "xyz", "solver must be one of"),
    ("learning_rate", "invscale", "Did you mean 'invscaling'"),
    ("learning_rate", 0.1, "learning_rate must be one of"),
    ("data_distribution", "randm", "Did you mean 'random'"),
    ("data_distribution", "stratify", "Did you mean 'stratified'"),
    ("data_distribution", 7, r"or a function \(epoch\) -> indices"),
    ("task_assignment", "round-robin", "Did you mean 'round_robin'"),
    ("task_assignment", "load_balance", "Did you mean 'load_balanced'"),
    ("task_assignment", None, "or a function"),
    ("aggregation", "men", "Did you mean 'mean'|Did you mean 'median'"),
    ("aggregation", "average", "aggregation must be one of"),
    ("aggregation", 1, r"or a function \(grads \[S, n\]"),
    ("hidden_layer_sizes", 0, "hidden_layer_sizes must be an integer at least 1; got 0"),
    ("hidden_layer_sizes", (10, -1), "got -1"),
    ("hidden_layer_sizes", (10, 2.5), "got 2.5"),
    ("hidden_layer_sizes", "100", "got '100' of type str.*one size a hidden layer"),
    ("hidden_layer_sizes", None, "got None"),
    ("hidden_layer_sizes", ("a",), "got 'a'"),
    ("hidden_layer_sizes", iter((10, 5)), "got <tuple_iterator .*one size a hidden layer"),
    ("hidden_layer_sizes", map(int, "95"), "got <map object"),
    ("hidden_layer_sizes", reversed([10, 5]), "got <list_reverseiterator"),
    ("hidden_layer_sizes", b"\n\5", "got b'.*' of type bytes"),
    ("hidden_layer_sizes", np.array(5), r"got array\(5\) of type ndarray"),
    ("alpha", -1, "alpha must be a number at least 0; got -1"),
    ("alpha", NAN, "alpha must be a number"),
    ("alpha", "0", "alpha must be a number"),
    ("batch_size", 0, "batch_size must be an integer at least 1.*'auto'"),
    ("batch_size", 1.5, "batch_size must be an integer"),
    ("batch_size", "big", "batch_size must be an integer"),
    ("batch_size", None, "batch_size must be an integer"),
    ("learning_rate_init", 0, "learning_rate_init must be a number above 0"),
    ("learning_rate_init", -0.1, "above 0"),
    ("learning_rate_init", NAN, "above 0"),
    ("power_t", -1, "power_t must be a number at least 0"),
    ("max_iter", 0, "max_iter must be an integer at least 1"),
    ("max_iter", 1e3, "max_iter must be an integer"),
    ("max_fun", 0, "max_fun must be an integer at least 1"),
    ("tol", -1e-3, "tol must be a number at least 0"),
    ("tol", None, "tol must be a number"),
    ("momentum", 1.1, "momentum must be a number at least 0 and at most 1"),
    ("momentum", -0.1, "momentum"),
    ("nesterovs_momentum", "yes", "nesterovs_momentum must be True or False; got 'yes'"),
    ("shuffle", 1, "shuffle must be True or False; got 1"),
    ("shuffle", None, "shuffle must be True or False"),
    ("warm_start", 0, "warm_start must be True or False"),
    ("early_stopping", "no", "early_stopping must be True or False"),
    ("validation_fraction", 1, "validation_fraction must be a number at least 0 and below 1"),
    ("validation_fraction", -0.1, "validation_fraction"),
    ("beta_1", 1, "beta_1 must be a number at least 0 and below 1"),
    ("beta_2", -0.1, "beta_2"),
    ("epsilon", 0, "epsilon must be a number above 0"),
    ("n_iter_no_change", 0, "n_iter_no_change must be an integer at least 1"),
    ("n_iter_no_change", 1.5, "n_iter_no_change must be an integer"),
    ("verbose", -1, "verbose must be an integer at least 0"),
    ("verbose", "loud", "verbose must be an integer"),
    ("dropout", 1, "dropout must be a number at least 0 and below 1"),
    ("dropout", -0.5, "dropout"),
    ("loss_threshold", "low", "loss_threshold must be a number.*None for no threshold"),
    ("loss_threshold", NAN, "loss_threshold must be a number"),
    ("wire", "bf61", "Did you mean 'bf16'"),
    ("wire", None, "wire must be one of"),
    ("exact", 0, "exact must be True or False; got 0"),
    ("mixed", "flags", "Did you mean 'flag'"),
]


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize(("name", "value", "message"), PARAMETERS)
def test_parameters(kind, name, value, message):
    estimator = kind(**{name: value})
    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        estimator.fit(X, Y if kind is MLPClassifier else VALUES)
    assert not hasattr(estimator, "run_"), "something was half-done"


def test_a_rule_is_spelt_right_before_it_is_refused():
    with pytest.raises(InvalidInput, match="Did you mean"):
        MLPClassifier(exact=False, aggregation="meen").fit(X, Y)


def test_a_hosts_mean_needs_the_rule_mean():
    estimator = MLPClassifier(exact=False, aggregation="max")
    with pytest.raises(InvalidInput, match=r"must be 'mean'; got 'max'\. Leave exact=True"):
        estimator.fit(X, Y)


@pytest.mark.parametrize(
    ("name", "value", "only"),
    [
        ("sync_every", 2, "1"),
        ("wire", "bf16", "'exact'"),
        ("exact", False, "True"),
        ("mixed", "flag", "'refuse'"),
    ],
)
def test_what_lbfgs_cannot_do(name, value, only):
    with pytest.raises(InvalidInput, match=f"{name} must be {only} with solver='lbfgs'"):
        MLPClassifier(solver="lbfgs", **{name: value}).fit(X, Y)


@pytest.mark.parametrize("name", ["squared", "mse", None, 1])
def test_regression_losses(name):
    with pytest.raises(InvalidInput, match="loss must be one of 'absolute_error', 'huber'"):
        MLPRegressor(loss=name).fit(X, VALUES)


def cell(value, x=X):
    changed = x.copy()
    changed[3, 1] = value
    return changed


DATA = [
    ((cell(NAN), Y), "NaN"),
    ((cell(INF), Y), "infinity"),
    ((cell(-INF), Y), "infinity"),
    ((X[:0], Y[:0]), "0 sample"),
    ((X[:, :0], Y), "0 feature"),
    ((X, Y[:-1]), "inconsistent numbers of samples"),
    ((X[:-2], Y), "inconsistent numbers of samples"),
    ((X[:, 0], Y), "Expected 2D array"),
    ((X[:, :, None], Y), "dim 3"),
    ((X, None), "requires y to be passed"),
    ((None, Y), "Expected 2D|None"),
    ((X + 1j, Y), "Complex data not supported"),
    ((np.array([["a"] * 3] * 40), Y), "could not convert string"),
    ((X, np.where(Y, NAN, 1.0)), "NaN"),
    ((X, VALUES), "Unknown label type|continuous"),
    ((X, np.array([{}] * 40)), "Unknown label type|unhashable|Input y"),
    (([*X.tolist()[:-1], [1]], Y), "inhomogeneous|could not"),
]


@pytest.mark.parametrize(("data", "message"), DATA)
def test_data(data, message):
    clf = MLPClassifier()
    with pytest.raises((ValueError, TypeError), match=message):
        clf.fit(*data)
    assert not hasattr(clf, "run_")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.where(Y, NAN, 1.0), "NaN"),
        (np.where(Y, INF, 1.0), "infinity"),
        (VALUES[:-1], "inconsistent"),
        (["a"] * 40, "could not convert|numeric"),
        (None, "requires y"),
    ],
)
def test_regression_targets(y, message):
    with pytest.raises(ValueError, match=message):
        MLPRegressor().fit(X, y)


def test_poisson_needs_targets_that_are_not_negative():
    with pytest.raises(InvalidInput, match=r"targets of at least 0; got -"):
        MLPRegressor("poisson").fit(X, VALUES)


@pytest.mark.parametrize(
    ("weight", "message"),
    [(np.ones(39), "inconsistent|shape"), (np.full(40, NAN), "NaN"), ("heavy", "could not|string")],
)
def test_sample_weights(weight, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier().fit(X, Y, weight)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (X, "validation_data must be .X, y."),
        ((X,), "validation_data must be"),
        ((X, Y, None, None), "validation_data must be"),
        ((X[:, :2], Y), "features"),
        ((X, Y + 5), "only have classes that the training data have"),
        ((cell(NAN), Y), "NaN"),
        ((X, Y[:-1]), "inconsistent"),
        ("none", "validation_data must be"),
    ],
)
def test_validation_data(validation, message):
    clf = MLPClassifier()
    with pytest.raises(ValueError, match=message):
        clf.fit(X, Y, validation_data=validation)
    assert not hasattr(clf, "coefs_")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("balance", "class_weight must be a dict.*got 'balance'"),
        (3, "class_weight must be a dict.*got 3"),
        (np.ones(2), "class_weight must be a dict.*got array"),
        ({0: "a", 1: 1}, r"class_weight\[0\] must be a number at least 0"),
        ({0: NAN, 1: 1}, r"class_weight\[0\] must be a number.*got nan"),
        ({0: 1, 1: INF}, r"class_weight\[1\] must be a number.*below inf; got inf"),
        ({1: -1}, r"class_weight\[1\] must be a number at least 0.*got -1"),
        ({0: 0, 1: 0}, r"weight above 0 for one class at least; got 0 for all of \[0, 1\]"),
        ([{0: 1}], "class_weight is a list.*y of one"),
        ([3], r"class_weight\[0\] must be a dict"),
        ({0: 2, 5: 1}, r"classes of y, \[0, 1\]; got one for 5"),
    ],
)
def test_class_weights(weights, message):
    clf = MLPClassifier(class_weight=weights)
    with pytest.raises(ValueError, match=message):
        clf.fit(X, Y)
    assert not hasattr(clf, "coefs_")


def test_class_weights_of_several_labels():
    labels = np.stack([Y, Y[::-1]], axis=1)
    with pytest.raises(InvalidInput, match=r"class_weight\[1\] must have a weight above 0"):
        MLPClassifier(class_weight=[{0: 1}, {0: 0, 1: 0}]).fit(X, labels)


def test_class_weights_of_sparse_labels():
    from scipy.sparse import coo_matrix

    labels = np.stack([Y, Y[::-1]], axis=1)
    weighted = MLPClassifier(max_iter=2, tol=9, n_iter_no_change=1, class_weight="balanced")
    losses = []
    for y in (labels, coo_matrix(labels)):
        with pytest.warns(UserWarning, match="Maximum iterations"):
            losses.append(weighted.set_params(random_state=0).fit(X, y).loss_)
    assert losses[0] == losses[1]


def test_parts_are_not_balanced_each_by_itself():
    clf = MLPClassifier(class_weight="balanced")
    with pytest.raises(InvalidInput, match="which no call of partial_fit sees"):
        clf.partial_fit(X, Y, classes=[0, 1])
    assert not hasattr(clf, "coefs_")


@pytest.mark.parametrize("column", [-1, 77])
def test_a_sparse_matrix_with_a_column_that_there_is_not(column):
    from scipy.sparse import csr_matrix

    broken = csr_matrix(X)
    broken.indices[3] = column
    with pytest.raises(InvalidInput, match=f"of columns 0 to .*got one of column {column}"):
        MLPClassifier().fit(broken, Y)


@pytest.mark.parametrize("weights", [{0: 1, 1: 0}, {0: 5}])
def test_a_part_that_has_no_weighted_class_is_no_error(weights):
    clf = MLPClassifier(class_weight=weights)
    first, second = X[Y == 0], X[Y == 1]
    clf.partial_fit(first, Y[Y == 0], classes=[0, 1]).partial_fit(second, Y[Y == 1])
    assert np.isfinite(clf.loss_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize("shaped", [lambda y: y[:, None], lambda y: y[:, None].tolist()])
def test_class_weights_of_a_part_whose_labels_are_a_column(shaped):
    labels, digests = Y[Y == 0], set()
    for y in (labels, shaped(labels)):
        clf = MLPClassifier(class_weight={1: 5}, random_state=0)
        digests.add(clf.partial_fit(X[Y == 0], y, classes=[0, 1]).run_.digest)
    assert len(digests) == 1


USER_FUNCTIONS = [
    (dict(aggregation=lambda g, w: g), r"returns numbers of shape \[n\]"),
    (dict(aggregation=lambda g, w: g.sum()), r"returns numbers of shape \[n\]"),
    (dict(aggregation=lambda g, w: None), r"returns numbers of shape \[n\]"),
    (dict(aggregation=lambda g: g[0]), "raised TypeError"),
    (dict(aggregation=lambda g, w: 1 / 0), "raised ZeroDivisionError"),
    (dict(task_assignment=lambda n, v: [9] * n), r"ranks, each in 0\.\."),
    (dict(task_assignment=lambda n, v: []), r"ranks, each in 0\.\."),
    (dict(task_assignment=lambda n: [0] * n), "raised TypeError"),
    (dict(data_distribution=lambda e: [0, 0]), "exactly once"),
    (dict(data_distribution=lambda e: e.labels_B.nothing), "raised AttributeError"),
]


@pytest.mark.parametrize(("functions", "message"), USER_FUNCTIONS)
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_functions_of_the_user(functions, message, n_jobs):
    clf = MLPClassifier((20,), shards=2, n_jobs=n_jobs, **functions)
    with pytest.raises(UserFunctionError, match=message):
        clf.fit(X, Y)
    assert not hasattr(clf, "run_")


def test_stratified_batches_need_classes():
    with pytest.raises(InvalidInput, match="needs one class label a sample"):
        MLPRegressor(data_distribution="stratified").fit(X, VALUES)


def test_partial_fit():
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier().partial_fit(X, Y)
    with pytest.raises(InvalidInput, match="partial_fit does not support early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(AttributeError, match="no attribute 'partial_fit'"):
        MLPRegressor(solver="lbfgs").partial_fit(X, VALUES)
    with pytest.raises(ValueError, match="classes not in"):
        MLPClassifier().partial_fit(X, Y, classes=[0, 1]).partial_fit(X, Y + 1)


def test_unfitted_and_foreign_samples():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)
    clf = MLPClassifier(max_iter=2, tol=9, n_iter_no_change=1)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        clf.fit(X, Y)
    with pytest.raises(ValueError, match="X has 2 features"):
        clf.predict(X[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        clf.predict_proba(cell(NAN))


@pytest.mark.parametrize(
    ("n_jobs", "cores", "workers"),
    [(None, 8, 1), (1, 8, 1), (3, 2, 3), (-1, 8, 8), (-2, 8, 7), (-8, 8, 1)],
)
def test_n_jobs_means_what_it_means_in_scikit_learn(n_jobs, cores, workers):
    assert workers_of(n_jobs, cores) == workers


def test_minus_nine_jobs_of_two_cores():
    with pytest.raises(InvalidInput, match=r"all 2 cores but 8, which leaves nobody.*-2"):
        workers_of(-9, 2)


def test_a_parameter_error_starts_no_process():
    pool.shutdown()
    with pytest.raises(InvalidInput):
        MLPClassifier(n_jobs=2, solver="adamm").fit(X, Y)
    assert pool._pool is None


def attributes_of(estimator):
    """All attributes; those that are changed in place as copies."""
    return {name: copy.deepcopy(value) for name, value in vars(estimator).items()}


def refused_column(epoch):
    return epoch.labels_B[:1]


KINDS_OF_Y = np.arange(40) % 3
REFUSED = [
    ({"shards": 1000}, {}),
    ({"early_stopping": True, "validation_fraction": 0.0}, {}),
    ({"data_distribution": refused_column}, {}),
    ({"class_weight": {7: 1}}, {}),
    ({"class_weight": {0: 0}}, {"sample_weight": np.where(Y, 0.0, 1.0)}),
    ({}, {"validation_data": (X[:, :2], Y)}),
    ({}, {"validation_data": (X, Y + 5)}),
    ({}, {"sample_weight": np.ones(3)}),
    ({}, {"checkpoint": "{}/taken"}),
    ({}, {"checkpoint_every": 3}),
    ({}, {"resume": "{}/taken"}),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(("parameters", "arguments"), REFUSED)
def test_a_fit_that_is_refused_leaves_the_fitted_estimator(tmp_path, parameters, arguments, n_jobs):
    MLPClassifier((4,), max_iter=1).fit(X[:9], Y[:9], checkpoint=tmp_path / "taken")
    clf = MLPClassifier((5,), max_iter=2, random_state=0).fit(X, KINDS_OF_Y)
    clf.set_params(**parameters, n_jobs=n_jobs)
    before = attributes_of(clf)
    filled = {
        name: value.format(tmp_path) if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    with pytest.raises((ValueError, UserFunctionError, CheckpointError)):
        clf.fit(X[:, :2] if not arguments else X, Y, **filled)
    assert_same(attributes_of(clf), before)


@pytest.mark.parametrize("way", ["partial_fit", "warm_start", "lbfgs"])
def test_who_goes_on_and_is_refused_is_as_before(way):
    clf = MLPClassifier((5,), random_state=0, solver="sgd").partial_fit(X, Y, classes=[0, 1])
    solver = "lbfgs" if way == "lbfgs" else "adam"
    clf.set_params(warm_start=way == "warm_start", shards=1000, solver=solver)
    before = attributes_of(clf)
    with pytest.raises(InvalidInput, match="shards must be at most"):
        (clf.partial_fit if way == "partial_fit" else clf.fit)(X, Y)
    assert_same(attributes_of(clf), before)


def test_a_first_part_that_is_refused_leaves_no_classes():
    clf = MLPClassifier((5,))
    with pytest.raises(ValueError, match="NaN"):
        clf.partial_fit(cell(NAN), Y, classes=[0, 1])
    clf.partial_fit(X, KINDS_OF_Y, classes=[0, 1, 2])
    assert clf.classes_.tolist() == [0, 1, 2]


def assert_same(after, before):
    assert after.keys() == before.keys()
    for name, value in before.items():
        if name not in ("_random_state", "_label_binarizer", "run_", "_optimizer"):
            np.testing.assert_equal(after[name], value)
    assert after["run_"] == before["run_"]
    np.testing.assert_equal(vars(after["_optimizer"]), vars(before["_optimizer"]))
    np.testing.assert_equal(vars(after["_label_binarizer"]), vars(before["_label_binarizer"]))

"""Shards that go through a network in one pass come to the bits that they come to alone."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone

from phalanx import MLPClassifier, MLPRegressor
from phalanx.data.samples import TableSamples
from phalanx.engine.making import ROWS_AT_ONCE, SideBySide
from phalanx.models.mlp import MLPSpec, side_by_side
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.models.mlp.factored import FactoredMLP, FactoredNetwork
from phalanx.models.mlp.passing import Pass
from phalanx.models.mlp.side_by_side import LARGEST, tried
from phalanx.pure.arrays import aligned_empty
from phalanx.pure.hosts import Place
from phalanx.pure.randomness import Key

COUNTS = [64, 64, 63, 60]


def factors_of(groups, sizes=(40, 300, 260, 3), **settings):
    """Losses, and the factors of a batch, of shards that are computed in these groups."""
    plain = {"activation": "relu", "loss": "log_loss", "dtype_name": "float32", **settings}
    weighted, is_sparse = plain.pop("weighted", False), plain.pop("is_sparse", False)
    spec = FactoredMLP(sizes, **plain, batch_size=256, n_shards=4, is_sparse=is_sparse)
    rng = np.random.default_rng(0)
    params_N = aligned_empty((spec.size,), spec.dtype)
    params_N[...] = rng.normal(0, 0.1, spec.size)
    x = rng.normal(size=(256, sizes[0])).astype(spec.dtype)
    x = csr_matrix(np.where(x > 0.5, x, 0)) if is_sparse else x
    weight_B = rng.uniform(0.1, 3, 256).astype(spec.dtype) if weighted else None
    samples = TableSamples.of(x, rng.integers(sizes[-1], size=256), None, weight_B)
    flat_n = np.zeros(spec.factors.size, spec.dtype)
    batch, network, outcomes = spec.factors.views(flat_n), spec.build(params_N), {}
    for group in (run for shards in groups for run in spec.factors.runs(shards)):
        index_C = np.concatenate([np.arange(64 * s, 64 * s + 64) for s in group])
        rows = samples.gatherer(0).rows_into(network.inputs(batch, group), index_C)
        counts, keys = [COUNTS[s] for s in group], [Key(7, 0, s) for s in group]
        left = network.leave_all(rows, batch, group, counts, sum(COUNTS), keys)
        outcomes |= dict(zip(group, left, strict=True))
    return outcomes, flat_n


def same(sizes=(40, 300, 260, 3), **more):
    alone, left_n = factors_of([[0], [1], [2], [3]], sizes, **more)
    assert np.isfinite(left_n).all()
    assert np.count_nonzero(left_n) > left_n.size / 4
    for groups in ([[0, 1], [2], [3]], [[0, 2], [1, 3]], [[0, 1, 2], [3]], [[0, 1, 2, 3]]):
        outcomes, others_n = factors_of(groups, sizes, **more)
        assert outcomes == alone
        np.testing.assert_array_equal(others_n, left_n)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_for_every_activation(activation, dtype_name, dropout, monkeypatch):
    monkeypatch.setattr(FactoredNetwork, "_at_once", where_it_agrees)
    same(activation=activation, dtype_name=dtype_name, dropout=dropout)


def where_it_agrees(network, n_shards):
    """What the engine does: it asks first, and takes what does not agree one by one."""
    spec = network.spec
    at_once = 1 if n_shards == 1 else tried(spec.plain, spec.factors, n_shards)
    if at_once is None:
        pytest.skip("shards do not agree on this machine, and are not joined")
    return at_once


@pytest.mark.parametrize("sizes", [(5, 9, 7, 2), (784, 700, 500, 10), (40, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_for_many_widths(sizes, weighted, monkeypatch):
    monkeypatch.setattr(FactoredNetwork, "_at_once", where_it_agrees)
    same(sizes, weighted=weighted)


@pytest.mark.parametrize("sizes", [(5, 9, 7, 2), (784, 700, 500, 10), (40, 2)])
@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
def test_of_sparse_samples(sizes, dtype_name, monkeypatch):
    monkeypatch.setattr(FactoredNetwork, "_at_once", where_it_agrees)
    same(sizes, dtype_name=dtype_name, is_sparse=True)


def layout_of(sizes, batch_size):
    return FactoredMLP(sizes, "relu", "log_loss", "float32", 0.0, batch_size, 4).factors


SPEC = MLPSpec((30, 70, 4), "relu", "log_loss", "float32")
LAYOUT = layout_of(SPEC.sizes, 64)


def test_what_is_filled_in_has_no_part_in_the_gradient():
    """The columns behind a shard's rows, whatever sample they have."""
    _, flat_n = factors_of([[0], [1], [2], [3]])
    layout = layout_of((40, 300, 260, 3), 256)
    for deltas in layout.views(flat_n)[1::2]:
        for s, count in enumerate(COUNTS):
            deltas_OC = deltas[:, layout.columns([s])]
            assert not deltas_OC[:, count:].any()
            assert deltas_OC[:, :count].any()


def disturbing(monkeypatch, disturbs):
    """Passes over several shards come to other bits, where `disturbs(number of products)`."""
    real = Pass.compute

    def compute(self, rows, counts, n_rows, keys):
        outcomes = real(self, rows, counts, n_rows, keys)
        if len(counts) > 1 and disturbs(len(self._forward[0])):
            self.batch[1][0] *= 1.5
        return outcomes

    monkeypatch.setattr(Pass, "compute", compute)
    tried.cache_clear()


@pytest.mark.parametrize(
    ("disturbs", "found"),
    [(lambda n: False, 4), (lambda n: n == 1, 1), (lambda n: True, None)],
    ids=["agree", "only products disagree", "disagree"],
)
def test_a_trial_finds_what_comes_to_other_bits(disturbs, found, monkeypatch):
    disturbing(monkeypatch, disturbs)
    if found == 4 and tried(SPEC, LAYOUT, 4) != 4:
        pytest.skip("this machine's own products depend on what lies beside")
    assert tried(SPEC, LAYOUT, 4) in {found, None}
    tried.cache_clear()


def test_no_trial_holds_a_very_wide_network_twice(monkeypatch):
    monkeypatch.setattr(side_by_side, "LARGEST", SPEC.n_parameters - 1)
    tried.cache_clear()
    assert tried(SPEC, LAYOUT, 4) is None
    tried.cache_clear()
    assert LARGEST * 4 <= 2**26


@pytest.fixture
def groups(monkeypatch):
    """How many shards the engine gave to be computed at once, on a machine where all agree."""
    seen, real = [], SideBySide.make

    def make(self, group, batch):
        seen.append(len(group))
        return real(self, group, batch)

    monkeypatch.setattr(SideBySide, "make", make)
    monkeypatch.setattr(FactoredNetwork, "may_be_joined", lambda *_: True)
    return seen


def fit_wide(batch_size, shards, **more):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(900, 500)), rng.integers(3, size=900)
    settings = {"hidden_layer_sizes": (500,), "max_iter": 1, "random_state": 0, **more}
    with pytest.warns(UserWarning, match="converge"):
        MLPClassifier(batch_size=batch_size, shards=shards, **settings).fit(x, y)


@pytest.mark.parametrize(
    ("batch_size", "shards", "expected"),
    [
        (256, 4, [4, 4, 4, 4]),  # the last batch is smaller
        (450, 5, [2, 2, 1] * 2),  # of 90 rows
        (450, 3, [1] * 6),  # of 150 rows
    ],
)
def test_shards_are_computed_at_once_as_long_as_their_rows_are_few(
    groups, batch_size, shards, expected
):
    fit_wide(batch_size, shards)
    assert groups == expected
    assert max(count * batch_size / shards for count in groups) <= ROWS_AT_ONCE


def test_where_they_do_not_agree_they_are_computed_one_by_one(groups, monkeypatch):
    monkeypatch.setattr(FactoredNetwork, "may_be_joined", lambda *_: False)
    fit_wide(256, 4)
    assert set(groups) == {1}


def test_where_others_may_take_them_they_are_computed_one_by_one(groups):
    fit_wide(256, 4, task_assignment="dynamic")
    assert set(groups) == {1}


@pytest.mark.parametrize("n_hosts", [1, 2])
def test_where_there_are_other_hosts_they_are_computed_in_the_order_in_which_they_travel(n_hosts):
    layout = layout_of((40, 2), 64)
    job = SimpleNamespace(
        model=SimpleNamespace(factors=layout),
        plan=SimpleNamespace(seed=0),
        place=Place(count=n_hosts),
    )
    arena = {"factors": np.zeros(layout.size), "factors_away": np.zeros((1, layout.size))}
    model = SimpleNamespace(may_be_joined=lambda count: True)
    samples = TableSamples.of(np.zeros((64, 40)))
    maker = SideBySide(SimpleNamespace(job=job), arena, samples, model)
    assert maker.groups(range(4)) == ([[2, 0, 1, 3]] if n_hosts == 1 else [[0], [1], [2], [3]])


def test_plain_networks_have_no_such_thing(groups):
    fit_wide(256, 4, aggregation="median")
    assert groups == []


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("width", [2001, 10001])
def test_a_loss_whose_deltas_hide_the_last_bits(width):
    """The sign of an error says nothing of its last bit, by which shards may differ in one pass."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 20)).astype(np.float32)
    y = rng.standard_normal((200, 3)).astype(np.float32)
    settings = dict(hidden_layer_sizes=(width,), activation="gelu", batch_size=200, shards=8)
    regressor = MLPRegressor(loss="absolute_error", max_iter=2, random_state=0, **settings)
    alone = clone(regressor).fit(x, y)
    assert clone(regressor).set_params(n_jobs=2).fit(x, y).loss_curve_ == alone.loss_curve_

"""Shards that are multiplied side by side come to the bits that they come to alone."""

import numpy as np
import pytest

from phalanx import MLPClassifier
from phalanx.data.samples import TableSamples
from phalanx.models.mlp import MLPSpec, stacking
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.models.mlp.factored import FactoredMLP, FactoredNetwork
from phalanx.models.mlp.stacking import LARGEST_TRIAL, ROWS_AT_ONCE, Stack, agrees
from phalanx.pure.arrays import aligned_empty
from phalanx.pure.randomness import Key

ROWS = [64, 64, 63, 60]


def gradients_of(at_once, sizes=(40, 300, 260, 3), factored=(0, 1), **settings):
    """Losses, and slots [4, N], of shards that are computed so many at once."""
    plain = {"activation": "relu", "loss": "log_loss", "dtype_name": "float32", **settings}
    weighted = plain.pop("weighted", False)
    spec = FactoredMLP(sizes, **plain, factored=factored, shard_rows=max(ROWS))
    rng = np.random.default_rng(0)
    params_N = aligned_empty((spec.size,), spec.dtype)
    params_N[...] = rng.normal(0, 0.1, spec.size)
    x = rng.normal(size=(sum(ROWS), sizes[0])).astype(spec.dtype)
    weight_B = rng.uniform(0.1, 3, len(x)).astype(spec.dtype) if weighted else None
    samples = TableSamples.of(x, rng.integers(sizes[-1], size=len(x)), None, weight_B)
    slots_SN = np.zeros((len(ROWS), spec.slot_size), spec.dtype)
    starts = np.cumsum([0, *ROWS])
    shards = [
        (samples.gatherer(64).rows(np.arange(start, start + count)), slots_SN[s], Key(7, 0, s))
        for s, (start, count) in enumerate(zip(starts, ROWS, strict=False))
    ]
    network, outcomes = spec.build(params_N), []
    for first in range(0, len(shards), at_once):
        outcomes += network.gradients(shards[first : first + at_once])
    return outcomes, slots_SN


def same(sizes=(40, 300, 260, 3), **more):
    alone, slots_SN = gradients_of(1, sizes, **more)
    assert np.isfinite(slots_SN).all()
    assert np.abs(slots_SN).max(axis=1).all()
    for at_once in (2, 3, 4):
        outcomes, others_SN = gradients_of(at_once, sizes, **more)
        assert outcomes == alone
        np.testing.assert_array_equal(others_SN, slots_SN)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_for_every_activation(activation, dtype_name, dropout):
    same(activation=activation, dtype_name=dtype_name, dropout=dropout)


@pytest.mark.parametrize("factored", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("sizes", [(40, 300, 260, 3), (5, 9, 7, 2), (784, 700, 500, 10)])
def test_whichever_layers_leave_factors(sizes, factored):
    same(sizes, factored=factored, weighted=True)


@pytest.fixture
def widths(monkeypatch):
    """How many shards lay side by side in each product."""
    seen, real = [], Stack._side_by_side

    def side_by_side(self, parts):
        seen.append(len(parts))
        return real(self, parts)

    monkeypatch.setattr(Stack, "_side_by_side", side_by_side)
    return seen


def test_where_a_trial_agrees_they_do_lie_side_by_side(monkeypatch, widths):
    monkeypatch.setattr(stacking, "agrees", lambda *_: True)  # whatever this machine's kernels do
    for at_once in (2, 3, 4):
        gradients_of(at_once)
    assert {2, 3, 4} <= set(widths)


def test_where_a_trial_comes_to_other_bits_they_are_multiplied_one_by_one(monkeypatch, widths):
    monkeypatch.setattr(stacking, "agrees", lambda *_: False)
    same()
    assert set(widths) == {1}


def test_no_trial_holds_a_very_wide_layer_twice():
    side = 4100
    assert side**2 > LARGEST_TRIAL
    assert not agrees(Stack._project, (side, side), (1, 1), False, np.dtype("float32"))


def test_a_trial_finds_a_product_whose_bits_depend_on_what_lies_beside():
    def other_order(stack, weight, sources, results):
        for source, result in zip(sources, results, strict=True):
            half = weight.shape[1] // len(sources)
            result[...] = weight[:, :half] @ source[:half] + weight[:, half:] @ source[half:]

    for dtype in ("float32", "float64"):
        assert not agrees(other_order, (30, 30), (4, 4), False, np.dtype(dtype))


@pytest.fixture
def groups(monkeypatch):
    """How many shards the engine gave to be computed at once."""
    seen, real = [], FactoredNetwork.gradients

    def gradients(self, shards):
        seen.append(len(shards))
        return real(self, shards)

    monkeypatch.setattr(FactoredNetwork, "gradients", gradients)
    monkeypatch.setattr("phalanx.pure.panels.MIN_WEIGHTS", 50_000)
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
        (256, 4, [4, 4, 4, 1, 1, 1, 1]),  # the last batch is smaller
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


def test_where_others_may_take_them_they_are_computed_one_by_one(groups):
    fit_wide(256, 4, task_assignment="dynamic")
    assert set(groups) == {1}


def test_plain_networks_have_no_such_thing(groups):
    assert not hasattr(MLPSpec((4, 3), "relu", "log_loss", "float32"), "rows_at_once")
    fit_wide(256, 4, aggregation="median")
    assert groups == []

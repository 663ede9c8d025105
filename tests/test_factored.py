"""Gradients made of factors are those of shards, and panels tile what they are made of."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.samples import TableSamples
from phalanx.models.base import FactoredModel
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.models.mlp.factored import FactoredMLP, factored
from phalanx.pure.aggregation import AGGREGATIONS, is_linear, mean, shares, sum_
from phalanx.pure.arrays import aligned_empty, blas_gemm
from phalanx.pure.assignment import load_balanced, round_robin
from phalanx.pure.layout import blocks_of, bundles_of
from phalanx.pure.panels import MAX_PANEL, factors_pay, panels_of
from phalanx.pure.randomness import Key


@pytest.fixture(autouse=True)
def small_layers(monkeypatch):
    """Small layers have factors as wide ones do."""
    monkeypatch.setattr("phalanx.pure.panels.MIN_WEIGHTS", 50_000)


SIDES = st.integers(1, 3000)


@given(SIDES, SIDES)
def test_panels_tile_a_layer_in_pairs_of_like_size(fan_in, fan_out):
    panels = panels_of(3, fan_in, fan_out)
    assert [0, *(panel.stop for panel in panels)] == [*(p.start for p in panels), fan_out]
    rows = [panel.stop - panel.start for panel in panels]
    assert len(set(rows[:-1])) <= 1
    assert 0 < rows[-1] <= rows[0]
    assert len(panels) <= fan_out
    assert rows[0] * fan_in <= MAX_PANEL + fan_in


@given(SIDES, SIDES, st.integers(1, 2000), st.integers(1, 16))
def test_factors_are_left_where_they_are_smaller_and_never_for_few_weights(
    fan_in, fan_out, batch, shards
):
    if factors_pay(fan_in, fan_out, batch, shards):
        assert batch * (fan_in + fan_out) < shards * fan_in * fan_out
        assert fan_in * fan_out >= 50_000


SIZES = [(6, 257, 300, 3), (300, 250, 8, 2), (400, 200), (10, 300, 300, 300, 1)]


def of(sizes, batch=24, shards=3, **more):
    settings = {"activation": "relu", "loss": "squared_error", "dtype_name": "float64"}
    spec = MLPSpec(sizes, **{**settings, **more})
    made = factored(spec, batch, shards)
    assert isinstance(made, FactoredMLP)
    return spec, made


@pytest.mark.parametrize("sizes", SIZES)
def test_regions_tile_the_parameters_and_factors_the_rest_of_a_slot(sizes):
    spec, made = of(sizes)
    assert [r.start for r in made.regions] == [0, *(r.stop for r in made.regions[:-1])]
    assert made.regions[-1].stop == made.size == spec.size
    laid = sorted(
        (start, fan * made.shard_rows)
        for layer in made.factored
        for start, fan in zip(made.places[layer], made.sizes[layer : layer + 2][::-1], strict=True)
    )
    assert laid[0][0] >= made.size
    assert all(start % 16 == 0 for start, _ in laid)
    for (start, size), (after, _) in pairwise(laid):
        assert start + size <= after
    assert sum(laid[-1]) <= made.slot_size


@pytest.mark.parametrize("sizes", SIZES)
def test_bundles_hold_every_block_once_and_panels_whole(sizes):
    _, made = of(sizes)
    blocks = blocks_of(made.regions)
    bundles = bundles_of(blocks, range(len(blocks)))
    assert sorted(k for bundle in bundles for k in bundle) == [*range(len(blocks))]
    for bundle in bundles:
        assert len({blocks[k].panel for k in bundle}) == 1
    panels = [blocks[bundle[0]].panel for bundle in bundles if blocks[bundle[0]].panel is not None]
    assert sorted(panels) == [*range(len(made.panels))]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("assignment", [round_robin, load_balanced])
def test_two_workers_have_half_of_the_panels_of_every_layer(sizes, assignment):
    _, made = of(sizes)
    blocks = blocks_of(made.regions)
    bundles = bundles_of(blocks, range(len(blocks)))
    owners = assignment(len(bundles), [1.0, 1.0])
    mine = [blocks[b[0]].panel for b, owner in zip(bundles, owners, strict=True) if owner == 0]
    layers = [made.panels[panel].layer for panel in mine if panel is not None]
    for layer in made.factored:
        n_panels = sum(panel.layer == layer for panel in made.panels)
        assert abs(layers.count(layer) - n_panels / 2) <= 0.5


@pytest.mark.parametrize("speeds", [[4.0, 1.0], [1.0, 4.0]])
def test_a_slow_worker_has_the_share_of_the_panels_that_its_speed_says(speeds):
    _, made = of((784, 2048, 2048, 10), batch=256, shards=4)
    blocks = blocks_of(made.regions)
    bundles = bundles_of(blocks, range(len(blocks)))
    owners = load_balanced(len(bundles), speeds)
    slow = speeds.index(1.0)
    mine = sum(
        blocks[k].stop - blocks[k].start
        for bundle, owner in zip(bundles, owners, strict=True) for k in bundle if owner == slow
    )  # fmt: skip
    assert mine / made.size == pytest.approx(0.2, abs=0.07)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rule", [mean, sum_])
@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_the_gradients_of_the_shards_aggregated(sizes, rule, weighted):
    agree(sizes, rule, weighted)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_of_every_activation(activation, dtype_name, dropout):
    agree(SIZES[0], activation=activation, dtype_name=dtype_name, dropout=dropout)


def agree(sizes, rule=mean, weighted=False, **more):
    """Plain shards, aggregated, against panels: of shards that are of 8, 8 and 7 rows."""
    spec, made = of(sizes, **more)
    rng = np.random.default_rng(0)
    params_N = aligned_empty((spec.size,), spec.dtype)
    params_N[...] = rng.normal(0, 0.1, spec.size)
    x, y = rng.normal(size=(23, sizes[0])), rng.normal(size=(23, sizes[-1]))
    weight_B = rng.uniform(0.1, 3, 23) if weighted else None
    arrays = (x.astype(spec.dtype), None, y.astype(spec.dtype), weight_B)
    gatherer = TableSamples.of(*arrays).gatherer(8)
    plain, network = spec.build(params_N), made.build(params_N)
    assert isinstance(network, FactoredModel)
    assert not isinstance(plain, FactoredModel)
    grads_SN = np.zeros((3, spec.size), spec.dtype)
    slots_SN = np.full((3, made.slot_size), np.nan, spec.dtype)
    counts, weights = [8, 8, 7], []
    for s, index_B in enumerate(np.split(np.arange(23), [8, 16])):
        rows, key = gatherer.rows(index_B), Key(7, 0, s)
        expected = plain.gradient(rows, grads_SN[s], key)
        assert network.gradient(rows, slots_SN[s], key) == pytest.approx(expected)
        weights.append(expected[1])
    weights_S = np.array(weights)
    expected_N = rule(grads_SN, weights_S)
    tolerance = {"float32": 2e-5, "float64": 1e-12}[spec.dtype.name]
    for region in made.regions:
        if region.panel is None:
            grad_n = rule(slots_SN[:, region.start : region.stop], weights_S)
        else:
            shares_S = shares(rule, weights_S, spec.dtype)
            grad_n = network.panel(region.panel, [*slots_SN], counts, shares_S)
        np.testing.assert_allclose(
            grad_n, expected_N[region.start : region.stop], rtol=0.01 * tolerance**0.5,
            atol=tolerance,
        )  # fmt: skip
        assert np.isfinite(grad_n).all()


@pytest.mark.parametrize("rule", AGGREGATIONS.values(), ids=AGGREGATIONS)
def test_linear_rules_are_those_whose_shares_come_to_the_same(rule):
    grads_Sn, weights_S = np.random.default_rng(0).normal(size=(5, 9)), np.arange(1.0, 6)
    by_shares = shares(rule, weights_S, grads_Sn.dtype) @ grads_Sn
    assert np.allclose(by_shares, rule(grads_Sn, weights_S)) == is_linear(rule)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("keep", [0.0, 1.0])
@pytest.mark.parametrize("inner", [1, 5])
def test_a_product_is_added_in_place(dtype, keep, inner):
    rng = np.random.default_rng(0)
    a_IK, b_KJ = (
        rng.normal(size=(4, inner)).astype(dtype),
        rng.normal(size=(inner, 3)).astype(dtype),
    )
    start_JI = rng.normal(size=(3, 4)).astype(dtype)
    for a in (a_IK, np.asfortranarray(a_IK)):
        for b in (b_KJ, np.asfortranarray(b_KJ)):
            c_JI = start_JI.copy()
            blas_gemm(0.5, a, b, keep, c_JI.T)
            np.testing.assert_allclose(c_JI.T, keep * start_JI.T + 0.5 * a_IK @ b_KJ, rtol=1e-5)


def test_the_factors_of_wide_layers_are_small_beside_their_gradient():
    """The figures of docs/design.md."""
    spec = factored(MLPSpec((784, 2048, 2048, 10), "relu", "log_loss", "float32"), 256, 4)
    assert 4 * spec.size == pytest.approx(23.3e6, rel=0.01)
    assert 4 * (spec.slot_size - spec.size) == pytest.approx(1.8e6, rel=0.02)


def test_nothing_is_factored_where_it_does_not_pay():
    spec = MLPSpec((64, 100, 10), "relu", "log_loss", "float32")
    assert factored(spec, 200, 2) is spec

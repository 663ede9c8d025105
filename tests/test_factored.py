"""Gradients made of factors are those of shards, and panels tile what they are made of."""

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.samples import TableSamples
from phalanx.engine.factors import Factors
from phalanx.models.base import FactoredModel
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.models.mlp.factored import FactoredMLP, factored
from phalanx.pure.aggregation import AGGREGATIONS, is_linear, mean, scales, sum_
from phalanx.pure.arrays import aligned_empty
from phalanx.pure.assignment import load_balanced, round_robin
from phalanx.pure.factors import (
    MAX_PANEL,
    SMALL,
    FactorLayout,
    factors_pay,
    pack,
    panels_of,
    runs_of,
    unpack,
)
from phalanx.pure.layout import blocks_of, bundles_of
from phalanx.pure.randomness import Key

SIZES = st.lists(st.integers(1, 3000), min_size=2, max_size=4).map(tuple)


def layout_of(sizes):
    return MLPSpec(sizes, "relu", "log_loss", "float32").layout


@given(SIZES, st.integers(1, 16))
def test_panels_tile_the_parameters_in_pairs_of_like_size(sizes, shards):
    layout = layout_of(sizes)
    panels = panels_of(layout, shards)
    assert [0, *(panel.stop for panel in panels)] == [*(p.start for p in panels), layout.size]
    widest_row = max(sizes)
    counts = [panel.stop - panel.start for panel in panels]
    assert min(counts) > 0
    assert max(counts) <= MAX_PANEL + 8 * widest_row
    if layout.size > 100 * widest_row:
        assert len(panels) % 2 == 0
        assert max(counts) - min(counts) <= 16 * widest_row


@given(SIZES, st.integers(1, 16))
def test_pieces_tile_their_panel(sizes, shards):
    layout = layout_of(sizes)
    for panel in panels_of(layout, shards):
        end = panel.start
        for array, start, stop in panel.pieces:
            first, last = layout.bounds[array]
            width = prod(layout.shapes[array][1:])
            assert first + start * width == end
            end = first + stop * width
            assert end <= last
        assert end == panel.stop


@given(SIZES, st.integers(1, 20_000), st.integers(1, 16))
def test_factors_are_left_where_they_are_smaller_and_never_by_small_networks(sizes, batch, shards):
    n_parameters = layout_of(sizes).size
    if factors_pay(sizes, n_parameters, batch, shards):
        assert n_parameters >= SMALL
        assert batch * sum(map(sum, pairwise(sizes))) <= max(shards * n_parameters, 2**22)


@given(SIZES, st.integers(1, 300), st.integers(1, 9), st.sampled_from([4, 8]))
def test_no_two_shards_share_a_cache_line_of_a_factor(sizes, batch, shards, itemsize):
    layout = FactorLayout(sizes, batch, shards, itemsize)
    assert layout.width * itemsize % 64 == 0
    assert batch <= layout.width * shards < batch + 2 * shards * 64 // itemsize
    assert layout.parcel_size * shards == layout.size
    columns = [layout.columns(s, s + 1) for s in range(shards)]
    assert [c.start for c in columns] == [0, *(c.stop for c in columns[:-1])]


@given(st.sets(st.integers(0, 12)).map(sorted))
def test_runs_are_neighbours(shards):
    runs = runs_of(shards)
    assert [s for run in runs for s in range(*run)] == shards
    assert all(before[1] < after[0] for before, after in pairwise(runs))


LAYOUT = FactorLayout((3, 5, 2), 32, 2, 4)


def test_what_is_packed_is_unpacked_elsewhere():
    here_n = np.random.default_rng(0).random(LAYOUT.size)
    there_n, parcel_n = np.zeros(LAYOUT.size), np.full(LAYOUT.parcel_size, np.nan)
    for s in range(2):
        columns = LAYOUT.columns(s, s + 1)
        pack(LAYOUT.layers(here_n), columns, parcel_n)
        assert np.isfinite(parcel_n).all()
        unpack(parcel_n, LAYOUT.layers(there_n), columns)
        assert (here_n == there_n).all() == (s == 1)


class TestWhereFactorsLie:
    def factors(self):
        fields = {
            "factors": np.zeros(LAYOUT.size, np.float32),
            "factors_away": np.zeros((2, LAYOUT.size), np.float32),
        }
        fields["factors"][:] = 1
        fields["factors_away"][:] = [[2], [3]]
        return Factors(fields, LAYOUT)

    def test_at_home_they_are_taken_as_they_lie(self):
        factors = self.factors()
        home = factors.at(1, 1)
        assert factors.whole([0, 1], [0, 1]) is home
        assert home[0].inputs_FC.min() == home[0].inputs_FC.max() == 1

    def test_what_others_have_computed_is_brought_together(self):
        factors = self.factors()
        found = factors.whole([1, 1], [0, 1])  # the first shard fell to the heir
        for layer in found:
            for factor in layer:
                assert factor[:, : LAYOUT.width].min() == factor[:, : LAYOUT.width].max() == 3
                assert factor[:, LAYOUT.width :].min() == factor[:, LAYOUT.width :].max() == 1
        assert factors.at(0, 0)[0].inputs_FC.max() == 1, "home is not touched"

    def test_all_elsewhere_is_one_place_too(self):
        factors = self.factors()
        assert factors.whole([0, 0], [1, 1]) is factors.at(0, 1)


NETWORKS = [(6, 257, 300, 3), (300, 250, 8, 2), (400, 200), (10, 300, 300, 300, 1)]


def of(sizes, batch=24, shards=3, **more):
    settings = {"activation": "relu", "loss": "squared_error", "dtype_name": "float64"}
    spec = MLPSpec(sizes, **{**settings, **more})
    made = factored(spec, batch, shards)
    assert isinstance(made, FactoredMLP)
    return spec, made


@pytest.mark.parametrize("sizes", NETWORKS)
def test_regions_tile_the_parameters(sizes):
    spec, made = of(sizes)
    assert [r.start for r in made.regions] == [0, *(r.stop for r in made.regions[:-1])]
    assert made.regions[-1].stop == made.size == spec.size
    assert [r.panel for r in made.regions] == [*range(len(made.panels))]


@pytest.mark.parametrize("sizes", NETWORKS)
def test_bundles_hold_every_block_once_and_panels_whole(sizes):
    _, made = of(sizes)
    blocks = blocks_of(made.regions)
    bundles = bundles_of(blocks, range(len(blocks)))
    assert sorted(k for bundle in bundles for k in bundle) == [*range(len(blocks))]
    panels = [{blocks[k].panel for k in bundle} for bundle in bundles]
    assert sorted(panel for (panel,) in panels) == [*range(len(made.panels))]


@pytest.mark.parametrize("sizes", [*NETWORKS, (784, 256, 128, 10), (784, 2048, 2048, 10)])
@pytest.mark.parametrize("assignment", [round_robin, load_balanced])
def test_two_workers_have_half_of_the_parameters(sizes, assignment):
    _, made = of(sizes)
    assert share(made, assignment, [1.0, 1.0], rank=0) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("speeds", [[4.0, 1.0], [1.0, 4.0]])
def test_a_slow_worker_has_the_share_of_the_panels_that_its_speed_says(speeds):
    _, made = of((784, 2048, 2048, 10), batch=256, shards=4)
    assert share(made, load_balanced, speeds, speeds.index(1.0)) == pytest.approx(0.2, abs=0.08)


def test_many_shards_have_more_panels_for_more_workers():
    layout = layout_of((784, 256, 128, 10))
    assert [len(panels_of(layout, shards)) for shards in (1, 4, 16)] == [4, 4, 8]


def share(made, assignment, speeds, rank):
    """Of the parameters, those that a worker updates."""
    blocks = blocks_of(made.regions)
    bundles = bundles_of(blocks, range(len(blocks)))
    owners = assignment(len(bundles), speeds)
    mine = [
        k for bundle, owner in zip(bundles, owners, strict=True) for k in bundle if owner == rank
    ]
    return sum(blocks[k].stop - blocks[k].start for k in mine) / made.size


@pytest.mark.parametrize("sizes", NETWORKS)
@pytest.mark.parametrize("rule", [mean, sum_])
@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_the_gradients_of_the_shards_aggregated(sizes, rule, weighted):
    agree(sizes, rule, weighted)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_of_every_activation(activation, dtype_name, dropout):
    agree(NETWORKS[0], activation=activation, dtype_name=dtype_name, dropout=dropout)


@pytest.mark.parametrize("live", [1, 2])
def test_of_a_last_batch_with_fewer_shards(live):
    agree(NETWORKS[0], live=live)


def agree(sizes, rule=mean, weighted=False, live=3, **more):
    """Plain shards, aggregated, against panels: of shards that are of 8, 8 and 7 rows."""
    spec, made = of(sizes, **more)
    rng = np.random.default_rng(0)
    params_N = aligned_empty((spec.size,), spec.dtype)
    params_N[...] = rng.normal(0, 0.1, spec.size)
    x, y = rng.normal(size=(23, sizes[0])), rng.normal(size=(23, sizes[-1]))
    weight_B = rng.uniform(0.1, 3, 23) if weighted else None
    arrays = (x.astype(spec.dtype), None, y.astype(spec.dtype), weight_B)
    gatherer = TableSamples.of(*arrays).gatherer(8)
    plain, network, layout = spec.build(params_N), made.build(params_N), made.factors
    assert isinstance(network, FactoredModel)
    assert not isinstance(plain, FactoredModel)
    grads_SN = np.zeros((live, spec.size), spec.dtype)
    flat_n = np.zeros(layout.size, spec.dtype)
    layers, counts, weights = layout.layers(flat_n), [8, 8, 7][:live], []
    for s, index_B in enumerate(np.split(np.arange(23), [8, 16])[:live]):
        key, filled_C = Key(7, 0, s), np.resize(index_B, layout.width)
        expected = plain.gradient(gatherer.rows(index_B), grads_SN[s], key)
        rows = gatherer.rows_into(network.inputs(layers, [s]), filled_C)
        (outcome,) = network.leave(rows, layers, [s], [len(index_B)], sum(counts), [key])
        assert outcome == pytest.approx(expected)
        weights.append(expected[1])
    expected_N = rule(grads_SN, np.array(weights))
    scale_S = np.array(scales(rule, weights, sum(counts)), spec.dtype)
    is_one = np.ptp(scale_S) == 0
    scale = float(scale_S[0]) if is_one else np.repeat(scale_S, layout.width)
    tolerance = {"float32": 2e-5, "float64": 1e-12}[spec.dtype.name]
    for number, region in enumerate(made.regions):
        np.testing.assert_allclose(
            network.panel(number, layers, live, scale), expected_N[region.start : region.stop],
            rtol=0.01 * tolerance**0.5, atol=tolerance,
        )  # fmt: skip


@pytest.mark.parametrize("rule", [rule for rule in AGGREGATIONS.values() if is_linear(rule)])
def test_linear_rules_are_sums_of_what_is_scaled(rule):
    grads_Sn, weights = np.random.default_rng(0).normal(size=(5, 9)), [1.0, 2, 3, 4, 5]
    parts_Sn = grads_Sn * np.array(weights)[:, np.newaxis] / 20  # of the mean over 20 rows
    np.testing.assert_allclose(
        scales(rule, weights, 20) @ parts_Sn, rule(grads_Sn, np.array(weights))
    )


def test_shards_that_weigh_nothing_count_for_nothing():
    assert scales(mean, [0.0, 0.0], 8) == [8.0, 8.0]
    assert scales(sum_, [0.0, 2.0], 8) == [8.0, 4.0]


def test_only_rules_that_are_sums_are_linear():
    assert {name for name, rule in AGGREGATIONS.items() if is_linear(rule)} == {"mean", "sum"}


def test_the_factors_of_wide_layers_are_small_beside_their_gradient():
    """The figures of docs/design.md."""
    spec = factored(MLPSpec((784, 2048, 2048, 10), "relu", "log_loss", "float32"), 256, 4)
    assert 4 * spec.size == pytest.approx(23.3e6, rel=0.01)
    assert 4 * spec.factors.parcel_size == pytest.approx(2.3e6, rel=0.02)


def test_nothing_is_factored_where_it_does_not_pay():
    spec = MLPSpec((64, 100, 10), "relu", "log_loss", "float32")
    assert factored(spec, 200, 2) is spec

"""Gradients made of factors are those of shards, and panels tile what they are made of."""

from itertools import accumulate, pairwise
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from phalanx.data.samples import TableSamples
from phalanx.engine import joining
from phalanx.engine import panels as panels_module
from phalanx.engine.factors import Factors
from phalanx.engine.joining import may_join
from phalanx.engine.panels import Panels
from phalanx.engine.recipe import Recipe
from phalanx.models.base import JoinedModel
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.models.mlp.factored import FEWEST, FactoredMLP, factored
from phalanx.pure.aggregation import AGGREGATIONS, is_linear, mean, scales, sum_
from phalanx.pure.arrays import aligned_empty
from phalanx.pure.assignment import load_balanced, round_robin
from phalanx.pure.factors import (
    LIGHT,
    MAX_PANEL,
    Factor,
    FactorLayout,
    Product,
    factors_pay,
    in_panels,
    multiply,
    outwards,
    pack,
    stretches_of,
    unpack,
)
from phalanx.pure.layout import Region, blocks_of, bundles_of
from phalanx.pure.randomness import Key

SIZES = st.lists(st.integers(1, 3000), min_size=2, max_size=4).map(tuple)


def spec_of(sizes, shards=1, batch=256, dtype_name="float32"):
    return FactoredMLP(sizes, "relu", "log_loss", dtype_name, 0.0, batch, shards)


@given(SIZES, st.integers(1, 16))
def test_panels_tile_the_parameters_in_pairs_of_like_size(sizes, shards):
    spec = spec_of(sizes, shards)
    panels = spec.regions
    assert [0, *(panel.stop for panel in panels)] == [*(p.start for p in panels), spec.size]
    widest_row = max(sizes)
    counts = [panel.stop - panel.start for panel in panels]
    assert min(counts) > 0
    assert max(counts) <= MAX_PANEL + 8 * widest_row
    if spec.size > 100 * widest_row:
        assert len(panels) % 2 == 0
        assert max(counts) - min(counts) <= 16 * widest_row


@given(SIZES, st.integers(1, 16))
def test_pieces_tile_their_panel(sizes, shards):
    spec = spec_of(sizes, shards)
    for panel in spec.regions:
        end = panel.start
        for piece in spec.factors.pieces(panel.start, panel.stop):
            width = prod(spec.factors.shape(piece.product)[1:])
            assert piece.start == end == piece.product.start + piece.first * width
            end = piece.stop
            assert end - piece.start == (piece.last - piece.first) * width
        assert end == panel.stop


PADDED = FactorLayout(
    (Factor(5, True), Factor(30, True), Factor(3, True)),
    (Product(0, 1, 0), Product(160, 1), Product(192, 2, 1), Product(288, 2)),
    8, 1, 4,
)  # fmt: skip
REGIONS = (Region(0, 192), Region(192, 304, group=1))


def test_panels_are_of_one_region_and_what_fills_a_cache_line_is_of_the_array_before_it():
    """As the parameters of a module lie, each on a cache line of its own."""
    panels = in_panels(REGIONS, PADDED)
    assert [panel[:2] for panel in panels] == [(0, 192), (192, 304)]
    assert [(panel.group, panel.panel) for panel in panels] == [(0, 0), (1, 1)]
    pieces = [[piece[1:] for piece in PADDED.pieces(*panel[:2])] for panel in panels]
    assert pieces == [
        [(0, 30, 0, 150), (0, 30, 160, 190)],
        [(0, 3, 192, 282), (0, 3, 288, 291)],
    ]


@given(SIZES, st.integers(1, 20_000), st.integers(1, 16))
def test_factors_are_left_where_they_are_smaller_and_never_by_small_networks(sizes, batch, shards):
    spec = spec_of(sizes, shards, batch)
    if factors_pay(spec.factors, spec.n_parameters, 50_000):
        assert spec.n_parameters >= 50_000
        assert batch * sum(map(sum, pairwise(sizes))) <= max(shards * spec.size, 2**22)


@pytest.mark.parametrize(
    ("sizes", "batch", "shards", "pays"),
    [
        ((784, 2048, 10), 256, 4, True),
        ((784, 2048, 10), 10_000, 4, False),
        ((64, 100, 10), 200, 2, False),
    ],
)
def test_whether_factors_pay(sizes, batch, shards, pays):
    spec = spec_of(sizes, shards, batch)
    assert factors_pay(spec.factors, spec.n_parameters, FEWEST) is pays


@given(SIZES, st.integers(1, 300), st.integers(1, 9), st.sampled_from(["float32", "float64"]))
def test_no_two_shards_share_a_cache_line_of_a_factor(sizes, batch, shards, dtype_name):
    layout = spec_of(sizes, shards, batch, dtype_name).factors
    assert layout.width * layout.itemsize % 64 == 0
    assert batch <= layout.width * shards < batch + 2 * shards * 64 // layout.itemsize
    assert layout.parcel_size * shards == layout.size
    columns = [layout.columns([s]) for s in outwards(shards)]
    assert [c.start for c in columns] == [0, *(c.stop for c in columns[:-1])]


@given(st.integers(1, 9), st.data())
def test_shards_are_neighbours_where_their_columns_are(n_shards, data):
    layout = spec_of((3, 2), n_shards, 100).factors
    shards = data.draw(st.sets(st.integers(0, n_shards - 1)))
    runs = layout.runs(shards)
    assert sorted(s for run in runs for s in run) == sorted(shards)
    columns = [layout.columns(run) for run in runs]
    assert all(before.stop < after.start for before, after in pairwise(columns))
    for run, mine in zip(runs, columns, strict=True):
        places = [layout.columns([s]) for s in run]
        assert (places[0].start, places[-1].stop) == (mine.start, mine.stop)
        assert all(before.stop == after.start for before, after in pairwise(places))


@given(st.integers(1, 12))
def test_who_has_every_other_shard_has_neighbours(n_shards):
    layout = spec_of((3, 2), n_shards, 100).factors
    for start in range(min(2, n_shards)):
        assert len(layout.runs(range(start, n_shards, 2))) == 1
    for live in range(1, n_shards + 1):
        assert layout.runs(range(live)) == [list(outwards(live))]


LAYOUT = spec_of((3, 5, 2), shards=2, batch=32).factors


def test_what_is_packed_is_unpacked_elsewhere():
    here_n = np.random.default_rng(0).random(LAYOUT.size)
    there_n, parcel_n = np.zeros(LAYOUT.size), np.full(LAYOUT.parcel_size, np.nan)
    for s in range(2):
        columns = LAYOUT.columns([s])
        pack(LAYOUT.views(here_n), columns, parcel_n)
        assert np.isfinite(parcel_n).all()
        unpack(parcel_n, LAYOUT.views(there_n), columns)
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
        assert home[0].min() == home[0].max() == 1

    def test_what_others_have_computed_is_brought_together(self):
        factors = self.factors()
        found = factors.whole([1, 1], [0, 1])  # the first shard fell to the heir
        for factor in found:
            assert factor[:, : LAYOUT.width].min() == factor[:, : LAYOUT.width].max() == 3
            assert factor[:, LAYOUT.width :].min() == factor[:, LAYOUT.width :].max() == 1
        assert factors.at(0, 0)[0].max() == 1, "home is not touched"

    def test_all_elsewhere_is_one_place_too(self):
        factors = self.factors()
        assert factors.whole([0, 0], [1, 1]) is factors.at(0, 1)


NETWORKS = [(6, 257, 300, 3), (300, 250, 8, 2), (400, 200), (10, 300, 300, 300, 1)]


def of(sizes, batch=24, shards=3, is_sparse=False, **more):
    settings = {"activation": "relu", "loss": "squared_error", "dtype_name": "float64"}
    spec = MLPSpec(sizes, **{**settings, **more})
    made = factored(spec, batch, shards, is_sparse)
    assert isinstance(made, FactoredMLP)
    return spec, made


@pytest.mark.parametrize("sizes", NETWORKS)
def test_regions_tile_the_parameters(sizes):
    spec, made = of(sizes)
    assert [r.start for r in made.regions] == [0, *(r.stop for r in made.regions[:-1])]
    assert made.regions[-1].stop == made.size == spec.size
    assert [r.panel for r in made.regions] == [*range(len(made.regions))]


@pytest.mark.parametrize("sizes", NETWORKS)
def test_bundles_hold_every_block_once_and_panels_whole(sizes):
    _, made = of(sizes)
    blocks = blocks_of(made.regions)
    bundles = bundles_of(blocks, range(len(blocks)))
    assert sorted(k for bundle in bundles for k in bundle) == [*range(len(blocks))]
    panels = [{blocks[k].panel for k in bundle} for bundle in bundles]
    assert sorted(panel for (panel,) in panels) == [*range(len(made.regions))]


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
    specs = [spec_of((784, 256, 128, 10), shards) for shards in (1, 4, 16)]
    assert [len(spec.regions) for spec in specs] == [4, 4, 8]


def share(made, assignment, speeds, rank):
    """Of the parameters, those that a worker updates."""
    blocks = blocks_of(made.regions)
    bundles = bundles_of(blocks, range(len(blocks)))
    owners = sorted(assignment(len(bundles), speeds))
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


@pytest.mark.parametrize("sizes", NETWORKS)
@pytest.mark.parametrize("rule", [mean, sum_])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("live", [2, 3])
def test_of_sparse_samples_which_are_not_left(sizes, rule, weighted, live):
    agree(sizes, rule, weighted, live, is_sparse=True, dropout=0.3)


def test_sparse_samples_take_no_room_among_the_factors():
    dense, sparse = (of((9000, 300, 2), is_sparse=is_sparse)[1] for is_sparse in (False, True))
    assert sparse.factors.parcel_size == dense.factors.parcel_size - 9000 * dense.factors.width
    assert len(sparse.regions) == len(dense.regions)


@given(SIZES, st.integers(1, 16))
def test_panels_of_sparse_samples_tile_the_parameters_too(sizes, shards):
    made = FactoredMLP(sizes, "relu", "log_loss", "float32", 0.0, 256, shards, is_sparse=True)
    assert [0, *(p.stop for p in made.regions)] == [*(p.start for p in made.regions), made.size]
    assert all(region.start < region.stop for region in made.regions)


def test_elements_made_of_sparse_samples_are_lighter():
    """So the first of two workers has more of them than the other has of others."""
    sizes = (784, 256, 128, 10)
    dense, sparse = (of(sizes, 256, 4, is_sparse)[1].regions for is_sparse in (False, True))
    assert len(dense) == len(sparse) == 4
    halves = [(r[1].stop, r[3].stop - r[1].stop) for r in (dense, sparse)]
    assert halves[0][0] == pytest.approx(halves[0][1], rel=0.05)
    first, second = halves[1]
    others = 235_146 - 784 * 256
    assert LIGHT * first == pytest.approx(LIGHT * (second - others) + others, rel=0.05)


def agree(sizes, rule=mean, weighted=False, live=3, is_sparse=False, **more):
    """Plain shards, aggregated, against panels: of shards that are of 8, 8 and 7 rows."""
    spec, made = of(sizes, is_sparse=is_sparse, **more)
    rng = np.random.default_rng(0)
    params_N = aligned_empty((spec.size,), spec.dtype)
    params_N[...] = rng.normal(0, 0.1, spec.size)
    x, y = rng.normal(size=(23, sizes[0])), rng.normal(size=(23, sizes[-1]))
    weight_B = rng.uniform(0.1, 3, 23) if weighted else None
    x = x.astype(spec.dtype)
    x = csr_matrix(np.where(x > 0.5, x, 0)) if is_sparse else x
    gatherer = TableSamples.of(x, None, y.astype(spec.dtype), weight_B).gatherer(8)
    plain, network, layout = spec.build(params_N), made.build(params_N), made.factors
    assert isinstance(network, JoinedModel)
    assert not isinstance(plain, JoinedModel)
    grads_SN = np.zeros((live, spec.size), spec.dtype)
    flat_n = np.zeros(layout.size, spec.dtype)
    batch, counts, weights, filled_SC = layout.views(flat_n), [8, 8, 7][:live], [], []
    for s, index_B in enumerate(np.split(np.arange(23), [8, 16])[:live]):
        key, filled_C = Key(7, 0, s), np.resize(index_B, layout.width)
        filled_SC.append(filled_C)
        expected = plain.gradient(gatherer.rows(index_B), grads_SN[s], key)
        rows = gatherer.rows_into(network.inputs(batch, [s]), filled_C)
        (outcome,) = network.leave_all(rows, batch, [s], [len(index_B)], sum(counts), [key])
        assert outcome == pytest.approx(expected)
        weights.append(expected[1])
    expected_N = rule(grads_SN, np.array(weights))
    panels = Panels(post_of(made, rule), {"factors": flat_n, "factors_away": np.zeros((0, 0))})
    in_order_C = np.concatenate([filled_SC[s] for s in outwards(live)])
    given = gatherer.entries.rows(in_order_C) if is_sparse else None
    panels.begin(None, counts, weights, given)
    tolerance = {"float32": 2e-5, "float64": 1e-12}[spec.dtype.name]
    for region in made.regions:
        np.testing.assert_allclose(
            panels.of(region), expected_N[region.start : region.stop],
            rtol=0.01 * tolerance**0.5, atol=tolerance,
        )  # fmt: skip


def post_of(model, rule, mine=None, is_whole=True):
    """The post of a worker who has done all shards of the first tick, and reduces these blocks."""
    blocks = blocks_of(model.regions)
    job = SimpleNamespace(model=model, aggregation=rule, blocks=blocks)
    mine = range(len(blocks)) if mine is None else mine
    share = SimpleNamespace(owners=[0] * 9, reductions=mine, is_whole=is_whole)
    return SimpleNamespace(job=job, share=share, tick=1)


def test_what_is_no_arrays_has_no_gradient():
    """Whatever the last panel has left there: an optimiser updates it like everything else."""
    model = SimpleNamespace(
        factors=PADDED,
        multiply=multiply,
        regions=in_panels(REGIONS, PADDED),
        dtype=np.dtype(np.float32),
    )
    flat_n = np.ones(PADDED.size, np.float32)
    panels = Panels(post_of(model, mean), {"factors": flat_n, "factors_away": np.zeros((0, 0))})
    panels.begin(None, [8], [8.0], None)
    for region in model.regions:
        for _ in range(2):
            grad_n = panels.of(region)
            used = np.zeros(192 + 112, bool)
            for piece in PADDED.pieces(*region[:2]):
                used[piece.start : piece.stop] = True
            used = used[region.start : region.stop]
            assert (grad_n[used] == 16).all()  # of so many columns, eight rows and eight filled
            assert not grad_n[~used].any()
            panels._bench.grad_n[...] = 7
            panels._made = None


def gradients(made, mine, is_whole=True):
    """Of the blocks that are mine; and of how many stretches they were made."""
    flat_n = np.random.default_rng(0).normal(size=made.factors.size).astype(made.dtype)
    post = post_of(made, mean, mine, is_whole)
    panels = Panels(post, {"factors": flat_n, "factors_away": np.zeros((0, 0))})
    given = given_to(made) if made.is_sparse else None
    panels.begin(None, [8, 8, 7], [8.0, 8.0, 7.0], given)
    found = {k: panels.of(post.job.blocks[k]).tobytes() for k in mine}
    return found, len(panels._recipes)


def given_to(made):
    """Some of forty random sparse samples, a column each."""
    rng = np.random.default_rng(1)
    x = random_array((40, made.sizes[0]), density=0.4, format="csr", dtype=made.dtype, rng=rng)
    index_C = rng.integers(40, size=3 * made.factors.width)
    return TableSamples.of(x).gatherer(0).entries.rows(index_C)


@pytest.mark.parametrize("sizes", NETWORKS)
@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_neighbours_are_made_together_to_the_same_bits(sizes, dtype_name, is_sparse, monkeypatch):
    _, made = of(sizes, dtype_name=dtype_name, is_sparse=is_sparse)
    all_blocks = range(len(blocks_of(made.regions)))
    with monkeypatch.context() as patch:
        patch.setattr(panels_module, "may_join", lambda *_: False)
        one_by_one, count = gradients(made, all_blocks)
    assert count == len(made.regions) > 1
    found, count = gradients(made, all_blocks, is_whole=False)
    assert (found, count) == (one_by_one, len(made.regions)), "an heir tries nothing"
    edges = (0, *(region.stop for region in made.regions))
    for mine in (all_blocks, all_blocks[len(all_blocks) // 2 :], [0, all_blocks[-1]]):
        found, count = gradients(made, mine)
        assert found == {k: one_by_one[k] for k in mine}
        kind = made.factors, made.multiply, made.dtype.name
        if len(mine) == len(all_blocks) and may_join(*kind, edges, 3):
            assert count == 1


def test_a_trial_finds_panels_that_come_to_other_bits_together(monkeypatch):
    _, made = of(NETWORKS[0])
    edges = (0, *(region.stop for region in made.regions))
    asked = made.factors, made.multiply, made.dtype.name, edges, 3
    real = Recipe.make

    def make(recipe, *args):
        grad_n = real(recipe, *args)
        if len(grad_n) > edges[1]:
            grad_n[-1] *= 1.5
        return grad_n

    monkeypatch.setattr(Recipe, "make", make)
    assert not may_join.__wrapped__(*asked)
    monkeypatch.undo()
    monkeypatch.setattr(joining, "LARGEST", made.factors.size - 1)
    assert not may_join.__wrapped__(*asked), "no trial holds that many factors twice"


def test_without_memory_for_a_trial_panels_are_made_one_by_one(monkeypatch):
    _, made = of(NETWORKS[0])
    edges = (0, *(region.stop for region in made.regions))

    def no_room(*_):
        raise MemoryError

    monkeypatch.setattr(joining, "Bench", no_room)
    kind = made.factors, made.multiply, made.dtype.name
    assert not may_join.__wrapped__(*kind, edges, 3)


@given(st.lists(st.integers(1, MAX_PANEL), min_size=1, max_size=12), st.data())
def test_stretches_are_of_neighbours_that_stay_near_a_core(sizes, data):
    ends = [*accumulate(sizes)]
    panels = [*zip([0, *ends], ends, strict=False)]
    mine = data.draw(st.sets(st.integers(0, len(panels) - 1)))
    runs = stretches_of(panels, mine)
    assert sorted(panel for run in runs for panel in run) == sorted(mine)
    assert all(panels[run[-1]][1] - panels[run[0]][0] <= MAX_PANEL for run in runs)
    for before, after in pairwise(runs):
        joined = panels[after[0]][1] - panels[before[0]][0]
        assert before.stop < after.start or joined > MAX_PANEL


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

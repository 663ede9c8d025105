"""What decides the bits beside arithmetic. Where this fails, checkpoints on users' disks no longer
come to the same end: raise RULES, and only then write down here what comes out."""

import pytest

from phalanx.job import chunk_bounds
from phalanx.models.keras3 import optimizers as keras3
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.factored import factored
from phalanx.models.pytorch import optimizers as pytorch
from phalanx.pure.layout import block_bounds
from phalanx.pure.plan import DISTRIBUTIONS, Plan
from phalanx.pure.randomness import Key
from phalanx.training.keeper import RULES


def test_the_rules_have_this_number():
    assert RULES == 13


@pytest.mark.parametrize(
    ("epoch", "order"), [(0, [1, 2, 6, 5, 0, 3, 7, 4]), (1, [3, 7, 5, 0, 2, 6, 1, 4])]
)
def test_samples_come_in_this_order(epoch, order):
    plan = Plan(8, batch_size=4, n_shards=2, seed=7, distribution=DISTRIBUTIONS["random"])
    assert plan.order(epoch).tolist() == order


def test_a_shard_draws_these_numbers():
    key = Key(seed=7, step=3, shard=1)
    assert key.number() == 8067493635542043576
    assert key.generator().integers(1000, size=4).tolist() == [747, 334, 233, 730]
    assert Key.of_chunk(1, seed=7) == Key(seed=7, step=-1, shard=1)


@pytest.mark.parametrize(
    ("n", "ends"),
    [
        (4_096, [4_096]),
        (7_510, [4_096, 7_510]),
        (49_152, [24_576, 49_152]),
        (49_153, [12_288, 24_576, 36_864, 49_153]),
        (100_000, [16_384, 32_768, 50_176, 66_560, 82_944, 100_000]),
    ],
)
def test_parameters_are_cut_into_these_blocks(n, ends):
    assert [stop for _, stop in block_bounds(n)] == ends


def test_torchs_and_keras_blocks_are_of_at_most_so_many_elements():
    assert pytorch.LARGEST_BLOCK == keras3.LARGEST_BLOCK == 65_536


def test_samples_are_scored_in_these_chunks():
    assert chunk_bounds(600) == [(0, 256), (256, 512), (512, 600)]


def test_factors_make_these_panels_and_these_blocks():
    spec = factored(MLPSpec((784, 256, 128, 10), "relu", "log_loss", "float32"), 256, 4)
    assert [panel.stop for panel in spec.regions] == [56_448, 119_168, 175_616, 235_146]
    assert [stop for _, stop in block_bounds(56_448, are_paired=False)] == [18_432, 37_888, 56_448]
    assert spec.factors.width == 64
    sparse = factored(spec.plain, 256, 4, is_sparse=True)
    assert [panel.stop for panel in sparse.regions] == [62_720, 125_440, 188_160, 235_146]
    assert [factor.is_given for factor in sparse.factors.factors] == [True] + 5 * [False]

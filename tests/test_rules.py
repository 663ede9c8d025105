"""What decides the bits beside arithmetic. Where this fails, checkpoints on users' disks no longer
come to the same end: raise RULES, and only then write down here what comes out."""

import pytest

from phalanx.keeper import RULES
from phalanx.pure.layout import block_bounds
from phalanx.pure.plan import DISTRIBUTIONS, Plan
from phalanx.pure.randomness import Key


def test_the_rules_have_this_number():
    assert RULES == 1


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


@pytest.mark.parametrize(
    ("n", "ends"),
    [(7_510, [4_096, 7_510]), (100_000, [17_408, 34_816, 52_224, 69_632, 87_040, 100_000])],
)
def test_parameters_are_cut_into_these_blocks(n, ends):
    assert [stop for _, stop in block_bounds(n)] == ends

"""Random numbers depend on what they are for, and on nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phalanx.pure.randomness import DROPOUT, ORDER, Key, hashed, keyed

numbers = st.integers(0, 2**32 - 1)


@given(seed=numbers, purpose=st.sampled_from([ORDER, DROPOUT]), key=st.lists(numbers, max_size=3))
def test_a_key_gives_the_same_numbers_whatever_kind_of_integers_it_holds(seed, purpose, key):
    plain = keyed(seed, purpose, *key).random(4)
    of_numpy = keyed(np.int64(seed), purpose, *map(np.uint64, key)).random(4)
    np.testing.assert_array_equal(plain, of_numpy)


@given(one=st.tuples(numbers, numbers), other=st.tuples(numbers, numbers))
def test_another_key_gives_other_numbers(one, other):
    equal = np.array_equal(keyed(*one).random(4), keyed(*other).random(4))
    assert equal == (one == other)


def test_numbers_do_not_run_into_each_other():
    assert len({hashed(key, 8) for key in [(1, 23), (12, 3), (1, 2, 3), (123,)]}) == 4


def test_a_seed_means_the_same_on_every_machine_and_tomorrow():
    state = keyed(2026, ORDER, 7).bit_generator.state["state"]
    assert state == {
        "state": 280285445426131587957116672230035895288,
        "inc": 233034149938652234438359490413930187745,
    }


def test_a_user_may_spawn_generators_and_others_than_ours():
    def children():
        return keyed(1, ORDER, 2).spawn(2)

    first, second = (child.random(4) for child in children())
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, children()[1].random(4))
    rng = keyed(1, ORDER, 2)
    rng.spawn(1)
    np.testing.assert_array_equal(second, rng.spawn(1)[0].random(4))
    np.random.MT19937(rng.bit_generator.seed_seq)  # which starts from 2,496 bytes


def test_the_seeds_of_a_shard_differ():
    seeds = [Key(seed=1, step=2, shard=3).number(nth) for nth in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)

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


def test_the_hash_is_the_same_on_every_machine():
    """So a seed means the same tomorrow, and a training resumes in the order it began with."""
    assert hashed((2026, ORDER, 7), 8).hex() == "f52aba8035f04431"


def test_a_shards_generator_and_its_seeds_are_unrelated():
    key = Key(seed=1, step=2, shard=3)
    seeds = [key.number(nth) for nth in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert key.generator().integers(2**63) not in seeds

"""What a leader takes for the workers' speeds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phalanx.pure.assignment import load_balanced
from phalanx.pure.speeds import estimated

speeds = st.floats(1e-2, 1e5)


@given(before_W=st.lists(speeds, min_size=1, max_size=5), shards=st.integers(1, 9), now=speeds)
def test_whoever_has_done_shards_has_the_speed_of_those(before_W, shards, now):
    done_W2 = np.array([[shards, shards / now]] * len(before_W))
    found = estimated(before_W, done_W2, range(len(before_W)))
    np.testing.assert_allclose(found, now)


def test_whoever_is_still_at_its_first_is_not_known_any_better():
    assert estimated([4.0, 1.0], np.array([[2, 0.5], [0, 0]]), owners=[0, 1]) == [4.0, 1.0]


def test_where_nothing_was_done_nothing_changes():
    assert estimated([4.0, 0.0], np.zeros((2, 2)), owners=[0]) == [4.0, 0.0]


@given(hiccup=st.floats(2.1, 1000), n_shards=st.integers(2, 16))
def test_whoever_was_slow_for_a_moment_gets_shards_again(hiccup, n_shards):
    known = [1.0, 1.0 / (hiccup * n_shards)]
    for _ in range(20):
        owners = load_balanced(n_shards, known)
        if 1 in owners:
            return
        known = estimated(known, np.array([[n_shards, n_shards], [0, 0]]), set(owners))
    raise AssertionError("it has nothing to do for ever")

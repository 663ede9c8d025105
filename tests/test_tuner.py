"""The tuner on a clock of the test's own, for trainings whose speeds are scripted."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.pure.tuner import HOLD, SETTLE, TICKS, WINDOW, Tuner

GLANCE = 0.05  # seconds between two looks


def told(tuner, speed, seconds, begun=0.0, glance=GLANCE):
    """How many workers it asked for at each look; `speed(workers)` in ticks a second."""
    asked, ticks = [], begun * 1000
    for k in range(int(seconds / glance)):
        asked.append(tuner.look(begun + k * glance, int(ticks)))
        ticks += speed(asked[-1]) * glance
    return asked


def tried(asked):
    """The numbers in the order in which they were tried."""
    return asked[:1] + [later for earlier, later in pairwise(asked) if earlier != later]


def peak(best, height=10_000.0):
    """Speeds that fall on both sides of the best number, by a tenth with each worker."""
    return lambda workers: height * 0.9 ** abs(workers - best)


@given(most=st.integers(1, 20), best=st.integers(1, 20), glance=st.sampled_from([0.04, 0.3]))
def test_it_ends_at_the_best_where_speed_rises_up_to_it_and_falls_after_it(most, best, glance):
    tuner = Tuner(most)
    asked = told(tuner, peak(min(best, most)), 20, glance=glance)
    assert set(asked[-10:]) == {min(best, most)}


@given(most=st.integers(1, 20), speeds_W=st.permutations(range(100, 2100, 100)))
def test_it_tries_no_number_twice_before_it_settles_and_none_beyond_the_most(most, speeds_W):
    order = tried(told(Tuner(most), lambda workers: speeds_W[workers - 1], 15, glance=0.1))
    assert order[0] == most
    assert max(order) == most
    assert min(order) == 1
    assert len(set(order[:-1])) == len(order[:-1])


@given(best=st.integers(1, 16), noise=st.randoms(use_true_random=False))
def test_noise_that_is_smaller_than_the_differences_does_not_mislead_it(best, noise):
    def speed(workers):
        return peak(best)(workers) * noise.uniform(0.96, 1.04)

    assert told(Tuner(16), speed, 10)[-1] == best


@pytest.mark.parametrize("shift", [-0.001, 0.001])
def test_what_it_measures_does_not_depend_on_when_it_looks(shift):
    tuner, looks = Tuner(1), [0, 0.05, SETTLE + shift, SETTLE + 0.05, SETTLE + 0.1, 0.5]
    for now in looks:
        tuner.look(now, int(now * 10_000))
    assert tuner._speeds == {1: pytest.approx(10_000, rel=1e-3)}


def test_with_equal_speeds_it_keeps_to_the_first_of_them():
    asked = told(Tuner(8), lambda workers: 1000.0, HOLD / 2)
    assert (tried(asked)[:4], asked[-1]) == ([8, 4, 2, 1], 8)


def test_one_worker_is_all_there_is_to_try():
    assert set(told(Tuner(1), peak(1), 3 * HOLD)) == {1}


def test_a_number_is_tried_for_as_long_as_it_takes_to_see_enough_steps():
    seconds_each, speed = SETTLE + TICKS / 2.0, 2.0
    asked = told(Tuner(4), lambda workers: speed, 3 * seconds_each)
    for workers in (4, 2):
        assert asked.count(workers) * GLANCE == pytest.approx(seconds_each, abs=4 * GLANCE)


def test_it_holds_for_a_while_and_then_finds_out_what_has_become_the_best():
    tuner = Tuner(8)
    assert told(tuner, peak(2), HOLD / 2)[-1] == 2
    held = told(tuner, peak(7), HOLD / 4, begun=HOLD / 2)
    assert set(held) == {2}
    assert told(tuner, peak(7), 1.5 * HOLD, begun=HOLD)[-1] == 7


def test_steps_made_before_a_change_has_settled_are_not_counted():
    tuner = Tuner(1)
    tuner.look(0.0, 0)
    tuner.look(SETTLE, 1_000_000)
    tuner.look(SETTLE + 2 * WINDOW, 1_000_100)
    assert tuner._speeds == {1: pytest.approx(50 / WINDOW)}

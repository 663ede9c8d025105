"""How long a silent worker is waited for, on a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.clusters.patience import (
    FACTOR,
    FADING,
    FIRST_BOUND,
    LEAST_BOUND,
    LONGEST_LOOK,
    Patience,
)

GLANCE = 0.05


class Watched:
    """Workers of whom each is busy or silent; a step takes a second at first."""

    def __init__(self, n_seats=2, step=1.0):
        self.patience = Patience(n_seats)
        self.now, self.opened, self.signs = 100.0, 1, [0] * n_seats
        self.patience.begin(self.now, self.opened - 1)
        for _ in range(4):
            self.make_step(step)

    def make_step(self, seconds):
        self.watch(seconds, busy=range(len(self.signs)))
        self.opened += 1
        return self.see(busy=range(len(self.signs)))

    def watch(self, seconds, busy=()):
        """Whom it names in this time, in which it looks again and again."""
        named, end = [], self.now + seconds
        while self.now < end:
            named += self.see(busy, after=min(GLANCE, end - self.now))
        return named

    def see(self, busy=(), after=0.0):
        """Whom it names, some time later, the busy having given signs of life."""
        self.now += after
        for rank in busy:
            self.signs[rank] += 1
        return self.patience.silent(self.now, self.opened, self.signs, range(len(self.signs)))

    def named_after(self, rank, busy=()):
        """Seconds of silence until it names this worker."""
        begun = self.now
        while rank not in self.see(busy, after=GLANCE):
            assert self.now < begun + 10_000
        return self.now - begun


def test_before_any_step_the_first_bound_holds():
    watched = Watched()
    watched.patience = Patience(2)
    watched.patience.begin(watched.now, watched.opened)
    assert watched.patience.bound == FIRST_BOUND
    watched.see(busy=[0, 1])
    assert watched.named_after(1, busy=[0]) == pytest.approx(FIRST_BOUND, abs=2 * GLANCE)


@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=9))
def test_the_bound_follows_the_longest_step_of_late_and_is_never_less_than_half_a_second(steps):
    watched, longest = Watched(step=0.001), 0.001
    for seconds in steps:
        watched.make_step(seconds)
        longest = max(FADING * longest, seconds)
    assert watched.patience.bound == pytest.approx(max(LEAST_BOUND, FACTOR * longest))


@given(st.lists(st.floats(0, 0.9 * LEAST_BOUND), max_size=60))
def test_whoever_gives_signs_of_life_is_never_named(pauses):
    watched = Watched(step=0.001)
    for pause in pauses:
        assert watched.watch(pause) == []
        assert watched.see(busy=[0, 1]) == []


@given(st.floats(0.001, 2))
def test_a_silent_one_is_named_once_the_bound_is_over_and_nobody_else_is(step):
    watched = Watched(step=step)
    bound = watched.patience.bound
    assert watched.watch(0.99 * bound, busy=[0]) == []
    assert watched.watch(0.02 * bound, busy=[0]) == [1]


def test_each_time_that_one_is_named_in_a_step_it_is_given_twice_as_long():
    watched = Watched(step=0.001)
    waits = [watched.named_after(1, busy=[0]) for _ in range(4)]
    assert waits == pytest.approx([0.5, 1, 2, 4], abs=2 * GLANCE)


def test_a_process_that_takes_the_place_of_a_stuck_one_is_given_twice_as_long_at_the_same_step():
    watched = Watched(step=0.001)
    watched.named_after(1)
    watched.see(busy=[1])
    assert watched.named_after(1) == pytest.approx(2 * LEAST_BOUND, abs=2 * GLANCE)


def test_with_the_next_step_all_are_given_the_simple_bound_again():
    watched = Watched(step=0.001)
    watched.named_after(1)
    watched.make_step(0.001)
    assert watched.named_after(1) == pytest.approx(LEAST_BOUND, abs=2 * GLANCE)


def test_the_time_that_a_stuck_worker_has_cost_is_no_measure_of_a_step():
    watched = Watched(step=0.01)
    for _ in range(3):
        assert watched.named_after(1, busy=[0]) == pytest.approx(LEAST_BOUND, abs=2 * GLANCE)
        watched.make_step(0.02)


def test_a_task_that_got_through_by_patience_alone_lengthens_the_bound():
    watched = Watched(step=0.01)
    assert watched.named_after(1, busy=[0]) < 0.6
    watched.make_step(0.8)
    assert watched.patience.bound == pytest.approx(FACTOR * 0.8)


def test_the_time_between_two_leases_is_no_measure_and_no_silence():
    watched = Watched(step=0.01)
    watched.named_after(1)
    watched.now += 1000
    watched.patience.begin(watched.now, watched.opened)
    watched.opened += 1
    assert watched.see() == []
    assert watched.named_after(1, busy=[0]) == pytest.approx(LEAST_BOUND, abs=2 * GLANCE)


@given(st.floats(2 * LONGEST_LOOK, 10_000))
def test_a_pause_in_which_nobody_looked_either_is_no_measure_and_little_silence(pause):
    """As that of a whole machine; who hangs since before it is found all the same."""
    watched = Watched(step=0.01)
    bound = watched.patience.bound
    assert watched.see(after=pause) == []
    assert watched.see(busy=[0]) == []
    assert watched.named_after(1, busy=[0]) == pytest.approx(bound - LONGEST_LOOK, abs=2 * GLANCE)
    watched.make_step(0.01)
    before = watched.patience.bound
    assert watched.see(after=pause) == []
    watched.make_step(0.01)
    assert watched.patience.bound == before


@given(st.floats(2 * LONGEST_LOOK, 100))
def test_steps_in_which_nobody_looked_for_long_are_no_measure(pause):
    """They would seem to be much shorter than they are."""
    watched = Watched(step=4)
    bound = watched.patience.bound
    for _ in range(40):
        watched.see(busy=[0, 1], after=pause)
        watched.opened += 1
        watched.see(busy=[0, 1])
    assert watched.patience.bound == bound

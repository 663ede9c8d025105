"""Who works, who has died, who steps up: events are played, whatever their order."""

from collections import Counter
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from phalanx.pure.membership import (
    MAX_HANGS,
    Ended,
    GiveUp,
    Joined,
    Kill,
    Seat,
    Start,
    State,
    Stuck,
    Task,
    View,
    Wanted,
    deaths_that_accuse,
    follow,
    heirs,
)

N_SEATS = 4
TASK, OTHER = Task(7, "compute", 0), Task(7, "compute", 1)
KINDS = (Joined, Joined, Ended, Stuck)

# what happens to which seat, in its present life or in one before, at which task
happenings = st.tuples(
    st.sampled_from(KINDS),
    st.integers(0, N_SEATS - 1),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from([None, TASK, OTHER]),
)
stories = st.lists(happenings | st.integers(1, N_SEATS).map(Wanted), max_size=60)


def working(n_working=N_SEATS, wanted=N_SEATS):
    rest = N_SEATS - n_working
    return View((*[Seat(State.WORKING, 1)] * n_working, *[Seat()] * rest), wanted)


def played(story, view=None):
    """(view before, event, view after, actions) for each event, until somebody gives up."""
    view = view or working(2, wanted=2)
    for line in story:
        event = line
        if not isinstance(line, Wanted):
            kind, rank, age, task = line
            life = view.seats[rank].life - age
            event = Joined(rank, life) if kind is Joined else kind(rank, life, task)
        after, actions = follow(view, event)
        yield view, event, after, actions
        if any(isinstance(action, GiveUp) for action in actions):
            return
        view = after


def tell(view, *events):
    """The view after the events, and all that was to be done."""
    done = []
    for event in events:
        view, actions = follow(view, event)
        done += actions
    return view, done


@given(stories)
def test_no_seat_is_given_to_two_processes_at_once(story):
    taken = {0, 1}
    for before, event, _, actions in played(story):
        if isinstance(event, Ended) and event.life == before.seats[event.rank].life:
            taken.discard(event.rank)
        starts = [action.rank for action in actions if isinstance(action, Start)]
        assert not taken & set(starts)
        taken |= set(starts)


@given(stories)
def test_a_seat_grows_older_by_one_life_with_each_start_and_never_else(story):
    for before, _, after, actions in played(story):
        starts = {action.rank: action.life for action in actions if isinstance(action, Start)}
        for rank, (old, new) in enumerate(zip(before.seats, after.seats, strict=True)):
            assert new.life == old.life + (rank in starts)
            assert starts.get(rank, new.life) == new.life


@given(stories)
def test_no_wanted_seat_is_left_empty_unless_all_is_given_up(story):
    for _, _, after, actions in played(story):
        if not any(isinstance(action, GiveUp) for action in actions):
            assert all(seat.state is not State.EMPTY for seat in after.seats[: after.wanted])


@given(stories)
def test_only_seats_that_are_taken_are_ended_and_only_wanted_ones_are_started(story):
    for before, _, after, actions in played(story):
        for action in actions:
            if isinstance(action, Kill):
                assert before.seats[action.rank].state is not State.EMPTY
                assert before.seats[action.rank].life == action.life
            if isinstance(action, Start):
                assert action.rank < after.wanted


@given(stories)
def test_each_process_is_ended_by_us_at_most_once(story):
    kills = [
        action for *_, actions in played(story) for action in actions if isinstance(action, Kill)
    ]
    assert len(kills) == len(set(kills))


@given(stories)
def test_events_of_former_lives_change_nothing(story):
    for before, event, after, actions in played(story):
        if not isinstance(event, Wanted) and event.life < before.seats[event.rank].life:
            assert (after, actions) == (before, [])


@given(stories)
def test_it_gives_up_when_a_task_took_more_than_all_workers_or_hung_six_times_not_before(story):
    deaths, hangs, ours = Counter(), Counter(), set()
    for before, event, _, actions in played(story):
        gives_up = [action for action in actions if isinstance(action, GiveUp)]
        expected = []
        if not isinstance(event, (Wanted, Joined)) and event.task is not None:
            process, seat = (event.rank, event.life), before.seats[event.rank]
            if event.life == seat.life and seat.state is not State.EMPTY and process not in ours:
                counts, most = (
                    (deaths, deaths_that_accuse(before.wanted))
                    if isinstance(event, Ended)
                    else (hangs, MAX_HANGS)
                )
                counts[event.task] += 1
                if counts[event.task] >= most:
                    expected = [GiveUp(event.rank, event.task, counts[event.task])]
        assert gives_up == expected
        ours |= {(action.rank, action.life) for action in actions if isinstance(action, Kill)}


@given(stories)
def test_once_everybody_who_was_started_has_joined_all_who_are_wanted_work(story):
    ends = [(after, actions) for _, _, after, actions in played(story)]
    view, actions = ends[-1] if ends else (working(2, wanted=2), [])
    assume(not any(isinstance(action, GiveUp) for action in actions))
    view, _ = tell(view, *(Ended(rank, seat.life, None) for rank, seat in enumerate(view.seats)))
    view, _ = tell(view, *(Joined(rank, seat.life) for rank, seat in enumerate(view.seats)))
    states = [seat.state for seat in view.seats]
    n_empty = N_SEATS - view.wanted
    assert states == [State.WORKING] * view.wanted + [State.EMPTY] * n_empty


def test_seats_that_are_no_longer_wanted_work_on_and_are_not_filled_again():
    view, done = tell(working(), Wanted(2))
    assert (done, view.seats) == ([], working().seats)
    view, done = tell(view, Ended(3, 1, TASK), Ended(1, 1, None))
    assert done == [Start(1, 2)]
    assert view.seats[3] == Seat(State.EMPTY, 1)


def test_wanting_more_starts_those_that_are_missing_with_the_life_that_follows():
    view, _ = tell(working(), Wanted(1), Ended(2, 1, None), Ended(3, 1, None))
    assert tell(view, Wanted(4))[1] == [Start(2, 2), Start(3, 2)]


def test_a_process_that_was_ended_for_being_stuck_counts_as_no_death_wherever_it_was_by_then():
    view, deaths = working(), deaths_that_accuse(N_SEATS)
    for life in range(1, 4):
        view, done = tell(view, Stuck(0, life, TASK), Ended(0, life, OTHER), Joined(0, life + 1))
        assert done == [Kill(0, life), Start(0, life + 1)]
    for life in range(1, deaths):
        view, done = tell(view, Ended(1, life, TASK))
        assert done == [Start(1, life + 1)]
    assert tell(view, Ended(1, deaths, TASK))[1] == [GiveUp(1, TASK, deaths)]


def test_a_process_that_is_named_twice_before_it_ends_has_hung_once():
    view, done = tell(working(), *[Stuck(0, 1, TASK)] * MAX_HANGS)
    assert done == [Kill(0, 1)]
    assert view.hangs == {TASK: 1}


@pytest.mark.parametrize("event", [Ended(0, 1, None), Stuck(0, 1, None)])
def test_nothing_is_held_against_a_task_where_there_was_none(event):
    view, done = follow(working(), event)
    assert not any(isinstance(action, GiveUp) for action in done)
    assert (view.deaths, view.hangs) == ({}, {})


ranks = st.integers(0, N_SEATS - 1)
companies = st.sets(ranks, min_size=1)


@st.composite
def divisions(draw):
    """Tasks divided among some seats."""
    active = sorted(draw(companies))
    return draw(st.lists(st.sampled_from(active), max_size=9)), active


@given(divisions(), companies)
def test_every_task_has_one_heir_that_lives_and_owners_who_live_keep_theirs(division, alive):
    owners, active = division
    found = heirs(owners, alive, active, N_SEATS)
    assert len(found) == len(owners)
    for owner, heir in zip(owners, found, strict=True):
        assert heir in alive
        assert heir == owner or owner not in alive


@given(divisions(), companies)
def test_seats_among_whom_nothing_was_divided_inherit_only_when_all_others_are_dead(
    division, alive
):
    owners, active = division
    found = set(heirs(owners, alive, active, N_SEATS))
    assert found <= set(active) or not alive & set(active)


@given(divisions(), companies, st.lists(st.sets(ranks), min_size=2, max_size=2))
def test_nobody_loses_a_task_by_news_of_a_death_and_no_two_who_live_take_the_same(
    division, alive, unheard_of
):
    owners, active = division
    views = [heirs(owners, alive | dead, active, N_SEATS) for dead in unheard_of]
    truth = heirs(owners, alive, active, N_SEATS)
    for task, view in product(range(len(owners)), views):
        assert view[task] not in alive or view[task] == truth[task]


def test_the_tasks_of_a_dead_owner_are_spread_over_the_living():
    assert heirs([0] * 6, {1, 2, 3}, [0, 1, 2, 3], 4) == [1, 1, 2, 3, 1, 1]

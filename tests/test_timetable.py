"""The timetable against a walk through the ticks, one by one."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from phalanx.pure.timetable import EVALUATION, Moment, Timetable


@st.composite
def timetables(draw):
    """Of a lease that may begin anywhere in an epoch, its evaluation included."""
    n_steps, evaluates = draw(st.integers(1, 6)), draw(st.booleans())
    place = draw(st.integers(0, n_steps if evaluates else n_steps - 1))
    epoch = draw(st.integers(0, 9))
    updates = epoch * n_steps + min(place, n_steps)
    return Timetable(n_steps, evaluates, draw(st.integers(0, 50)), epoch, place, updates)


def walk(table):
    """(tick, moment, its place in the epoch, whether it is the last one there), for ever."""
    steps = [*range(table.n_steps), *[EVALUATION] * table.evaluates]
    tick, epoch, place, updates = table.tick, table.epoch, table.place, table.updates
    while True:
        tick += 1
        moment = Moment(epoch, steps[place], updates, epoch - table.epoch)
        yield tick, moment, place, place + 1 == len(steps)
        updates += steps[place] != EVALUATION
        epoch, place = (epoch, place + 1) if place + 1 < len(steps) else (epoch + 1, 0)


def ticks(table):
    return islice(walk(table), 40)


@given(timetables())
def test_each_tick_is_what_a_walk_finds_there(table):
    for tick, moment, place, is_last in ticks(table):
        assert table.at(tick) == moment
        assert table.place_of(tick) == place
        assert table.ends_epoch(tick) == is_last


@given(timetables())
def test_the_tick_of_an_update_is_the_step_with_which_as_many_are_made(table):
    for tick, moment, _, _ in ticks(table):
        if moment.step != EVALUATION:
            assert table.tick_of_update(moment.updates + 1) == tick


@given(timetables())
def test_the_end_of_an_epoch_is_its_last_tick(table):
    ends = {moment.epoch: tick for tick, moment, _, is_last in ticks(table) if is_last}
    assert ends == {epoch: table.end_of_epoch(epoch) for epoch in ends}


@given(timetables(), st.integers(0, 30))
def test_a_lease_that_goes_on_where_another_stopped_has_the_same_ticks(table, done):
    tick = table.tick + done
    following, place = table.at(tick + 1), table.place_of(tick + 1)
    later = Timetable(
        table.n_steps, table.evaluates, tick, following.epoch, place, following.updates
    )
    for k in range(1, 20):
        assert later.at(tick + k)[:3] == table.at(tick + k)[:3]
        assert later.ends_epoch(tick + k) == table.ends_epoch(tick + k)


def test_an_evaluation_that_is_due_comes_before_the_next_epoch():
    table = Timetable(n_steps=3, evaluates=True, tick=10, epoch=4, place=3, updates=15)
    assert table.at(11) == Moment(epoch=4, step=EVALUATION, updates=15, row=0)
    assert table.at(12) == Moment(epoch=5, step=0, updates=15, row=1)
    assert (table.end_of_epoch(4), table.tick_of_update(16)) == (11, 12)

"""What workers tell each other by words of the arena: tally, seats, journal and ledger."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.arena import Arena
from phalanx.engine.journal import Journal
from phalanx.engine.ledger import ROW, Ledger
from phalanx.engine.presence import Presence
from phalanx.exchange.board import DEATHS
from phalanx.exchange.seats import Activity, Seats
from phalanx.exchange.tally import Tally
from phalanx.job import LEDGER_COLUMNS, Job
from phalanx.models.mlp import MLPSpec
from phalanx.pure.aggregation import mean
from phalanx.pure.assignment import round_robin
from phalanx.pure.faults import PHASES
from phalanx.pure.optimizers import Adam
from phalanx.pure.plan import Plan, sequential
from phalanx.pure.schedules import Constant
from phalanx.pure.stopping import Progress, Reason, Rule

N_SEATS = 3
SPEC = MLPSpec((40, 400, 2), "relu", "log_loss", "float64")
JOB = Job(
    SPEC, Plan(64, 16, 8, 0, sequential), Adam(), mean, round_robin, Rule(Constant(0.1), 10), 0.0,
    N_SEATS, N_SEATS,
)  # fmt: skip


@pytest.fixture
def arena():
    return Arena.private(JOB.fields)


# tally


def test_what_nobody_has_done_has_no_doer(arena):
    assert Tally(arena, "shards_done", 0).doer(3, 1, range(N_SEATS)) is None


def test_each_task_has_the_doers_that_published_it_and_no_others(arena):
    tallies = [Tally(arena, "shards_done", rank) for rank in range(N_SEATS)]
    tallies[1].publish(3, tick=5)
    tallies[2].publish(3, tick=5)
    tallies[2].publish(4, tick=5)
    assert [tallies[0].doer(task, 5, range(N_SEATS)) for task in (2, 3, 4)] == [None, 1, 2]
    assert tallies[0].doer(3, 5, [2, 1]) == 2
    assert tallies[0].doer(4, 5, [0, 1]) is None


def test_what_was_done_in_an_earlier_tick_is_still_to_be_done(arena):
    tally = Tally(arena, "shards_done", 1)
    tally.publish(0, tick=5)
    assert [tally.doer(0, tick, [1]) for tick in (4, 5, 6)] == [1, 1, None]


# seats


@given(
    tick=st.integers(0, 2**34),
    phase=st.sampled_from(PHASES),
    task=st.integers(0, 2**24 - 1),
)
def test_an_activity_is_read_as_it_was_told(tick, phase, task):
    seats = Seats(Arena.private(JOB.fields))
    presence = Presence(seats, 1, 1, ())
    presence.enter(tick, 0)
    presence.at(phase, task)
    assert seats.at(1) == Activity(tick, phase, task)
    assert seats.at(0) == Activity(0, PHASES[0], 0)


def test_whoever_is_born_waits_until_it_is_admitted_and_counts_from_that_tick_on(arena):
    seats = Seats(arena)
    seats.born[1] = 1
    assert (seats.newcomers(), seats.alive(10), seats.members()) == ([1], [], [])
    seats.admit(1, 8)
    assert (seats.newcomers(), seats.members()) == ([], [1])
    assert [seats.alive(tick) for tick in (7, 8, 9)] == [[], [1], [1]]


def test_a_life_that_is_over_counts_no_more_and_the_next_one_waits_like_any_other(arena):
    seats = Seats(arena)
    seats.born[2] = 1
    seats.admit(2, 1)
    seats.bury(2, life=1)
    assert (seats.alive(1), seats.members(), seats.newcomers()) == ([], [2], [])
    assert arena["door"][DEATHS] == 1
    seats.born[2] = 2
    assert (seats.alive(5), seats.newcomers()) == ([], [2])
    seats.admit(2, 5)
    assert (seats.alive(4), seats.alive(5)) == ([], [2])


def test_a_newcomer_that_dies_before_it_was_admitted_waits_no_more(arena):
    seats = Seats(arena)
    seats.born[0] = 1
    seats.bury(0, life=1)
    assert (seats.newcomers(), seats.alive(9)) == ([], [])


# journal


def block_of(arena, value):
    """A block as it is before an update, a view into an arena like those of the engine."""
    start, stop = JOB.blocks[1][:2]
    values_Xn = arena["values"][:, start:stop]
    values_Xn[...] = value
    return values_Xn


def test_a_block_that_was_begun_is_put_back_by_whoever_takes_it_over(arena):
    values_Xn = block_of(arena, 1.0)
    values_Xn[0] = np.arange(values_Xn.shape[1])
    before = values_Xn.copy()
    Journal(arena, 2).save(7, 1, values_Xn)
    values_Xn[:, ::2] = math.nan  # and it died
    Journal(arena, 0).restore(7, 1, values_Xn)
    np.testing.assert_array_equal(values_Xn, before)


@pytest.mark.parametrize(("tick", "block"), [(6, 1), (8, 1), (7, 0)])
def test_a_page_of_another_tick_or_block_is_left_where_it_is(arena, tick, block):
    values_Xn = block_of(arena, 1.0)
    Journal(arena, 2).save(7, 1, values_Xn)
    values_Xn[...] = 2.0
    Journal(arena, 0).restore(tick, block, values_Xn)
    assert (values_Xn == 2.0).all()


def test_after_two_deaths_at_one_block_it_is_still_what_it_was(arena):
    values_Xn = block_of(arena, 1.0)
    for rank in (2, 0):
        journal = Journal(arena, rank)
        journal.restore(7, 1, values_Xn)
        journal.save(7, 1, values_Xn)
        values_Xn[...] = 9.0
    Journal(arena, 1).restore(7, 1, values_Xn)
    assert (values_Xn == 1.0).all()


def test_whoever_takes_a_seat_again_knows_which_block_was_begun_there(arena):
    journal = Journal(arena, 1)
    assert journal.unfinished(tick=7) is None
    journal.save(7, 1, block_of(arena, 1.0))
    assert [Journal(arena, 1).unfinished(tick) for tick in (6, 7, 8)] == [None, 1, None]
    assert Journal(arena, 0).unfinished(7) is None


def test_a_page_without_its_mark_may_be_overwritten(arena):
    values_Xn = block_of(arena, 1.0)
    journal = Journal(arena, 1)
    journal.save(7, 1, values_Xn)
    journal.restore(7, 1, values_Xn)
    journal.clear()
    arena["journal"][1] = 5.0  # it is about to save another block, and dies
    Journal(arena, 0).restore(7, 1, values_Xn)
    assert (values_Xn == 1.0).all()
    assert journal.unfinished(7) is None


# ledger


def test_a_line_of_the_ledger_fills_its_columns():
    assert ROW.size == 8 * LEDGER_COLUMNS
    assert ROW.format.count("d") + ROW.format.count("q") + 1 == LEDGER_COLUMNS


def test_a_line_of_the_ledger_is_read_as_it_was_written(arena):
    ledger = Ledger(arena, is_scored=True)
    first = Progress(rate=0.5)
    then = Progress(0.25, 1, 64, 1.5, 0.75, 3, True)
    ledger.begin(first)
    ledger.write(1, 1.5, 0.75, 2.0, then, Reason.NO_IMPROVEMENT)
    assert (ledger.progress(0), ledger.progress(1)) == (first, then)
    [epoch] = ledger.records(0, 1)
    assert epoch == (1.5, 0.75, 0.5, 2.0, Reason.NO_IMPROVEMENT, (), ())


@pytest.mark.parametrize("reason", [None, *Reason])
def test_every_reason_can_be_written(arena, reason):
    ledger = Ledger(arena, is_scored=False)
    ledger.write(1, 1.0, None, 0.0, Progress(rate=0.1), reason)
    assert ledger.records(0, 1)[0].reason is reason
    assert ledger.records(0, 1)[0].score is None


def test_each_epoch_shows_the_rate_with_which_it_was_trained_not_the_next_ones(arena):
    ledger = Ledger(arena, is_scored=False)
    for row, rate in enumerate((0.3, 0.2, 0.1)):
        ledger.write(row, 1.0, None, 0.0, Progress(rate, epochs=row), None)
    assert [epoch.rate for epoch in ledger.records(0, 2)] == [0.3, 0.2]
    assert [ledger.rate(row) for row in range(3)] == [0.3, 0.2, 0.1]

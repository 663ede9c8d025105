"""Whom an idle worker helps, and with what."""

import pytest

from phalanx.arena import Arena
from phalanx.engine.share import Share
from phalanx.exchange.board import PLAN, Board
from phalanx.exchange.seats import Seats
from phalanx.job import Job
from phalanx.models.mlp import MLPSpec
from phalanx.pure.aggregation import mean
from phalanx.pure.assignment import dynamic, round_robin
from phalanx.pure.optimizers import Adam
from phalanx.pure.plan import Plan, sequential
from phalanx.pure.schedules import Constant
from phalanx.pure.stopping import Rule

SPEC = MLPSpec((4, 8, 2), "relu", "log_loss", "float64")
TICK = 1


def shares(owners, assignment=dynamic):
    """Those of two workers by this plan, in the first tick."""
    rule = Rule(Constant(0.1), 1)
    plan = Plan(64, 64, len(owners), 0, sequential)
    job = Job(SPEC, plan, Adam(), mean, assignment, rule, 0.0, 2, 2)
    arena = Arena.private(job.fields)
    arena["shard_owner"][:] = owners
    seats = Seats(arena)
    for rank in (0, 1):
        seats.actives[rank] = seats.born[rank] = True
        seats.admit(rank, 0)
    both = [Share(job, arena, Board(arena), seats, rank) for rank in (0, 1)]
    for share in both:
        share.muster(TICK)
    return both


def begun(share, *shards):
    for s in shards:
        share.begin(s, TICK)


def test_whoever_is_idle_takes_the_last_shard_that_nobody_has_begun():
    first, second = shares([0, 0, 0, 0, 1, 1, 1, 1])
    begun(first, 0)
    begun(second, 4, 5, 6, 7)
    assert second.to_help([0, 1, 2, 3], TICK, is_late=False) == 3


def test_whoever_is_slow_by_the_plan_leaves_it_to_its_owner():
    first, second = shares([0, 0, 0, 0, 0, 0, 1, 1])
    begun(second, 6, 7)
    begun(first, 0, 1, 2, 3)
    assert second.to_help([3, 4, 5], TICK, is_late=False) is None
    assert second.to_help([0, 1, 2, 3, 4, 5], TICK, is_late=True) is not None
    assert first.to_help([7], TICK, is_late=False) is None  # it is begun


def test_it_takes_one_while_many_are_waiting():
    first, second = shares([0, 0, 0, 0, 0, 0, 1, 1])
    begun(second, 6, 7)
    begun(first, 0, 1)
    assert second.to_help([1, 2, 3, 4, 5], TICK, is_late=False) == 5


@pytest.mark.parametrize("is_late", [False, True])
def test_without_dynamic_only_the_late_are_helped(is_late):
    _, second = shares([0, 0, 1, 1], round_robin)
    found = second.to_help([0, 1], TICK, is_late)
    assert (found is not None) == is_late


def test_what_the_dead_have_not_done_falls_to_their_heir():
    first, second = shares([0, 0, 0, 0, 1, 1, 1, 1])
    begun(first, 0, 1)
    begun(second, 4, 5, 6, 7)
    second.seats.bury(0, 1)
    assert second.hear(TICK)
    assert second.to_help([0, 1, 2, 3], TICK, is_late=False) == 0


def test_whoever_helps_the_late_begins_with_what_nobody_is_at():
    first, second = shares([0, 0, 0, 0, 0, 0, 1, 1])
    begun(first, 0, 1, 2, 3, 4)
    begun(second, 6, 7)
    assert second.to_help([4, 5], TICK, is_late=False) is None
    assert second.to_help([4, 5], TICK, is_late=True) == 5


def test_whoever_comes_late_into_a_tick_counts_those_who_were_let_in_for_the_next_one():
    """The tick may be over: the leader has let somebody in for the next one, and not opened it."""
    first, second = shares([0, 0, 0, 0, 1, 1, 1, 1])
    first.seats.bury(0, 1)
    first.seats.born[0] = 2
    first.seats.admit(0, TICK + 1)
    first.board.door[PLAN] += 2
    second.muster(TICK)
    assert not second.is_whole
    assert second.shards == list(range(8))
    assert second.is_outdated()
    second.muster(TICK + 1)
    assert second.is_whole
    assert second.shards == [4, 5, 6, 7]
    assert not second.is_outdated()


def test_whoever_looks_while_the_tasks_are_divided_looks_again():
    """The leader may have died, and its heir open a tick before it can divide them anew."""
    first, _ = shares([0, 0, 0, 0, 1, 1, 1, 1])
    first.board.door[PLAN] += 1
    first.muster(TICK)
    assert first.is_outdated()
    first.board.door[PLAN] += 1
    first.muster(TICK)
    assert not first.is_outdated()

"""What the leader decides: who does what, by speeds that are scripted, never timed."""

import numpy as np
import pytest

from phalanx.aggregation import mean
from phalanx.arena import Arena
from phalanx.assignment import load_balanced, round_robin
from phalanx.engine.leader import REPLAN_EVERY, Leader
from phalanx.exchange.board import HALT, Board
from phalanx.job import Job, Lease
from phalanx.models.mlp import MLPSpec
from phalanx.optimizers import SGD
from phalanx.plan import Plan, sequential
from phalanx.schedules import Constant
from phalanx.stopping import Progress, Reason, Rule


@pytest.fixture
def leading():
    """A leader of two workers and eight shards, by assignment; nobody else is there."""

    def make(assignment):
        spec = MLPSpec((4, 3, 2), "relu", "log_loss", "float64")
        rule = Rule(Constant(0.1), max_epochs=10)
        job = Job(spec, Plan(64, 16, 8, 0, sequential), SGD(), mean, assignment, rule, 0.0, 2)
        arena = Arena.private(job.fields)
        leader = Leader(job, arena, Board(arena, 2))
        leader.begin(Lease(0, 10, 0, 0, Progress(rate=0.1)))
        return leader, arena

    return make


def tick(leader, arena, number, speed=(1.0, 1.0)):
    """Everybody has done a shard at `speed` shards a second, and the next tick is opened."""
    arena["workers_done"][:] = number - 1
    arena["speed"][:, 0] += 1
    arena["speed"][:, 1] += 1 / np.array(speed)
    leader.open(number)


def shares(arena):
    return np.bincount(arena["shard_owner"], minlength=2).tolist()


def test_load_balanced_follows_a_worker_that_slows_down_and_recovers(leading):
    leader, arena = leading(load_balanced)
    for number in range(1, REPLAN_EVERY):
        tick(leader, arena, number)
    assert shares(arena) == [4, 4]
    for number in range(REPLAN_EVERY, 2 * REPLAN_EVERY + 1):
        tick(leader, arena, number, speed=(1.0, 0.25))
    assert shares(arena) == [7, 1]
    for number in range(2 * REPLAN_EVERY + 1, 3 * REPLAN_EVERY + 1):
        tick(leader, arena, number)
    assert shares(arena) == [4, 4]


def test_a_worker_that_had_no_shard_keeps_its_measured_speed(leading):
    leader, arena = leading(load_balanced)
    tick(leader, arena, 1, speed=(3.0, 1.0))
    arena["speed"][0] += (30, 10)
    leader._measure()
    assert leader._speeds == [3.0, 1.0]


def test_round_robin_is_never_planned_again(leading):
    leader, arena = leading(round_robin)
    for number in range(1, 2 * REPLAN_EVERY):
        tick(leader, arena, number, speed=(1.0, 0.01))
    assert shares(arena) == [4, 4]


def test_a_halt_is_obeyed_at_the_next_tick(leading):
    leader, arena = leading(round_robin)
    tick(leader, arena, 1)
    arena["door"][HALT] = 1
    arena["workers_done"][:] = 1
    leader.open(2)
    assert not leader.board.wait_opened(2)
    epochs, lease = leader.end(1, 1)
    assert (epochs, lease.tick, leader._reason) == ([], 1, Reason.INTERRUPTED)

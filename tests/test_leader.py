"""What the leader decides: who does what, by lives and speeds that are scripted, never timed."""

import numpy as np
import pytest

from phalanx.arena import Arena
from phalanx.engine.leader import Leader
from phalanx.engine.ledger import SECONDS
from phalanx.exchange.board import (
    HALT,
    INTERRUPT,
    LAST,
    NEVER,
    OPENED,
    PLAN,
    SNAPSHOT_DUE,
    SNAPSHOT_TAKEN,
    WANTED,
    Board,
)
from phalanx.exchange.seats import Seats
from phalanx.job import Job, Lease
from phalanx.models.mlp import MLPSpec
from phalanx.pure.aggregation import mean
from phalanx.pure.assignment import PLAN_EVERY, dynamic, load_balanced, round_robin
from phalanx.pure.optimizers import SGD
from phalanx.pure.plan import Plan, sequential
from phalanx.pure.schedules import Constant
from phalanx.pure.stopping import Progress, Reason, Rule

N_STEPS = 4  # in an epoch
LEASE = Lease(0, 10, 0, 0)


class Stage:
    """A leader of some workers and eight shards; nobody else is there."""

    def __init__(self, n_workers=2, assignment=round_robin, n_seats=4, max_epochs=10):
        spec = MLPSpec((4, 3, 2), "relu", "log_loss", "float64")
        rule = Rule(Constant(0.1), max_epochs)
        plan = Plan(16 * N_STEPS, 16, 8, 0, sequential)
        self.job = Job(
            spec, plan, SGD(), mean, assignment, rule, 0.0, n_workers, n_seats,
            keeps_snapshots=True,
        )  # fmt: skip
        self.arena = Arena.private(self.job.fields)
        self.board, self.seats = Board(self.arena), Seats(self.arena)
        self.door = self.board.door
        self.door[LAST], self.door[WANTED] = NEVER, n_workers
        self.arena["admitted"][:n_workers] = 1
        self.arena["weights"][...] = 1  # as steps leave it
        self.leader = self.succeed()
        self.leader.ledger.begin(Progress(rate=0.1))
        self.tick = 0

    def succeed(self):
        """Another worker leads from now on."""
        self.leader = Leader(self.job, self.arena, self.board, self.seats)
        self.leader.begin(LEASE, self.job.timetable(LEASE))
        return self.leader

    def leave(self, *ranks):
        """These have done with the present tick."""
        self.arena["left"][list(ranks)] = self.tick

    def open_next(self, *leaving):
        """The next tick is opened, after these, or else all, have left the present one."""
        self.leave(*leaving or range(self.job.n_seats))
        self.tick += 1
        is_open = self.leader.open(self.tick)
        if is_open:
            self.board.open(self.tick)
        return is_open

    def run(self, ticks, speed=()):
        """Some ticks, in which each worker does a shard, at `speed` shards a second."""
        for _ in range(ticks):
            for rank, shards_a_second in enumerate(speed):
                self.arena["speed"][rank] += (1, 1 / shards_a_second)
            self.open_next()

    def lose(self, rank, life=1):
        self.seats.bury(rank, life)

    def bear(self, rank, life=1):
        self.seats.born[rank] = life

    @property
    def shares(self):
        """Shards of each worker, and the blocks have no other owners."""
        counts = np.bincount(self.arena["shard_owner"], minlength=self.job.n_seats)
        assert {*self.arena["block_owner"].tolist()} <= {*self.seats.active()}
        return counts.tolist()


def test_at_the_first_tick_the_tasks_are_divided_among_those_who_begin():
    stage = Stage(n_workers=3)
    assert stage.open_next()
    assert stage.shares == [3, 3, 2, 0]
    assert stage.seats.active() == [0, 1, 2]


def test_load_balanced_follows_a_worker_that_slows_down_and_recovers():
    stage = Stage(assignment=load_balanced)
    stage.run(PLAN_EVERY, speed=(1, 1))
    assert stage.shares == [4, 4, 0, 0]
    stage.run(PLAN_EVERY, speed=(1, 0.25))
    assert stage.shares == [7, 1, 0, 0]
    stage.run(PLAN_EVERY, speed=(1, 1))
    assert stage.shares == [4, 4, 0, 0]


def test_load_balanced_knows_the_speeds_after_the_first_step():
    stage = Stage(assignment=load_balanced)
    stage.run(2, speed=(1, 0.25))
    assert stage.shares == [7, 1, 0, 0]


def test_a_worker_that_has_done_no_shard_keeps_its_measured_speed():
    stage = Stage(assignment=load_balanced)
    stage.run(PLAN_EVERY, speed=(1, 3))
    stage.run(PLAN_EVERY, speed=(1,))
    assert stage.shares == [2, 6, 0, 0]


def test_a_worker_that_was_slow_for_a_moment_is_tried_again():
    stage = Stage(assignment=load_balanced)
    stage.run(2, speed=(1, 0.01))
    assert stage.shares == [8, 0, 0, 0]
    stage.run(6 * PLAN_EVERY, speed=(1,))
    assert stage.shares[1] > 0


@pytest.mark.parametrize("assignment", [load_balanced, dynamic])
def test_a_worker_of_whom_nothing_is_known_gets_its_share_beside_quick_ones(assignment):
    stage = Stage(assignment=assignment)
    stage.run(PLAN_EVERY, speed=(500, 500))
    stage.door[WANTED] = 3
    stage.bear(2)
    stage.run(1)
    assert stage.shares == [3, 3, 2, 0]


def test_round_robin_is_never_planned_again():
    stage = Stage()
    stage.run(2 * PLAN_EVERY, speed=(1, 0.01))
    assert stage.shares == [4, 4, 0, 0]
    assert stage.door[PLAN] == 2  # before and after the one division


def test_the_tasks_of_a_dead_owner_are_divided_anew_at_the_next_tick():
    stage = Stage(n_workers=3)
    stage.run(2)
    stage.lose(1)
    assert stage.shares == [3, 3, 2, 0]
    stage.run(1)
    assert stage.shares == [4, 0, 4, 0]


def test_a_newcomer_is_admitted_at_the_next_tick_and_not_before():
    stage = Stage()
    stage.run(1)
    stage.lose(1)
    stage.run(1)
    stage.bear(1, life=2)
    assert (stage.seats.alive(stage.tick), stage.shares) == ([0], [8, 0, 0, 0])
    stage.run(1)
    assert stage.seats.alive(stage.tick) == [0, 1]
    assert stage.seats.alive(stage.tick - 1) == [0]
    assert stage.shares == [4, 4, 0, 0]


def test_nothing_is_divided_while_an_owner_that_lives_has_not_left_the_tick_before():
    stage = Stage(n_workers=3)
    stage.run(1)
    stage.lose(1)
    stage.open_next(0)  # 2 is late
    assert stage.shares == [3, 3, 2, 0]
    stage.open_next(0)
    assert stage.shares == [3, 3, 2, 0]
    stage.open_next(0, 2)
    assert stage.shares == [4, 0, 4, 0]


def test_whoever_takes_a_dead_ones_place_is_admitted_although_another_is_late_all_the_time():
    stage = Stage(n_workers=3)
    stage.run(1)
    stage.lose(1)
    stage.open_next(0)
    stage.bear(1, life=2)
    stage.open_next(0)
    assert stage.seats.alive(stage.tick) == [0, 1, 2]


def test_who_is_no_longer_wanted_gets_no_tasks_and_lives_on():
    stage = Stage(n_workers=3)
    stage.run(1)
    stage.door[WANTED] = 1
    stage.run(1)
    assert stage.shares == [8, 0, 0, 0]
    assert stage.seats.alive(stage.tick) == [0, 1, 2]


def test_where_none_of_the_wanted_lives_the_first_who_does_gets_all_tasks():
    stage = Stage(n_workers=3)
    stage.run(1)
    stage.door[WANTED] = 1
    stage.lose(0)
    stage.run(1)
    assert stage.shares == [0, 8, 0, 0]


@pytest.mark.parametrize("change", ["a death", "a wish"])
def test_once_all_have_their_part_nothing_is_looked_at_until_something_changes(change, monkeypatch):
    looked, stage = [], Stage()
    stage.run(2)
    monkeypatch.setattr(stage.seats, "newcomers", lambda: looked.append(stage.tick) or [])
    stage.run(3)
    assert looked == []
    if change == "a death":
        stage.lose(1)
    else:
        stage.door[WANTED] = 1
    stage.run(1)
    assert looked == [stage.tick]


@pytest.mark.parametrize("divided", ["nothing", "the shards"])
def test_a_leader_that_dies_while_it_divides_leaves_no_owner_who_does_not_count(
    divided, monkeypatch
):
    stage = Stage(n_workers=3)
    stage.run(1)
    stage.lose(0)
    stage.run(1)
    stage.bear(0, life=2)
    stage.open_next(1)  # the new 0 is admitted, but 2 is late: nothing is divided
    assert stage.seats.active() == [1, 2]
    parts = iter([[0, 1, 2, 0, 1, 2, 0, 1]] if divided == "the shards" else [])
    monkeypatch.setattr("phalanx.engine.leader.assign", lambda *_: next(parts))
    stage.succeed()
    with pytest.raises(StopIteration):
        stage.open_next()
    assert {*stage.arena["shard_owner"].tolist()} <= {*stage.seats.active()}


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_first_division_that_a_leader_did_not_live_to_finish_is_made_by_its_own_replacement(
    n_workers, monkeypatch
):
    stage = Stage(n_workers)
    with monkeypatch.context() as patched:
        patched.setattr("phalanx.engine.leader.assign", lambda *_: next(iter([])))
        with pytest.raises(StopIteration):
            stage.leader.open(1)
    stage.arena["shard_owner"][...] = 3  # as anything that is no plan
    stage.lose(0)
    stage.bear(0, life=2)
    stage.succeed()
    stage.run(1)
    assert stage.seats.active() == list(range(n_workers))
    assert stage.shares == [[8, 0, 0, 0], [4, 4, 0, 0]][n_workers - 1]
    plan = stage.door[PLAN]
    stage.run(1)
    assert stage.door[PLAN] == plan, "it is finished"


def test_a_halt_is_obeyed_at_the_next_tick():
    stage = Stage()
    stage.run(1)
    stage.door[HALT] = INTERRUPT
    assert not stage.open_next()
    assert (stage.door[LAST], stage.door[OPENED]) == (1, 2)
    assert stage.leader.ledger.progress(0).epochs == 0


def finish_epoch(stage, loss=2.0):
    """All ticks of an epoch are over but not yet judged; the batches have this loss a sample."""
    stage.run(N_STEPS)
    stage.arena["losses"][:], stage.arena["weights"][:] = 16 * loss, 16


def test_an_epoch_is_judged_once_its_last_tick_is_over():
    stage = Stage()
    finish_epoch(stage, loss=2.0)
    assert stage.leader.ledger.progress(1).epochs == 0
    assert stage.open_next()
    [epoch] = stage.leader.ledger.records(0, 1)
    assert (epoch.loss, epoch.score, epoch.rate, epoch.reason) == (2.0, None, 0.1, None)
    progress = stage.leader.ledger.progress(1)
    assert (progress.epochs, progress.samples_seen) == (1, 16 * N_STEPS)


def test_the_door_is_closed_after_the_epoch_with_which_the_rule_says_stop():
    stage = Stage(max_epochs=1)
    finish_epoch(stage)
    assert not stage.open_next()
    assert stage.leader.ledger.records(0, 1)[0].reason is Reason.MAX_EPOCHS
    assert stage.door[LAST] == N_STEPS


def test_a_leader_that_takes_over_writes_the_same_line_and_decides_the_same():
    stage = Stage()
    finish_epoch(stage, loss=1.5)
    assert stage.leader.open(stage.tick + 1)
    lines, plan = stage.arena["ledger"].copy(), stage.arena["shard_owner"].copy()
    stage.arena["ledger"][1, 3:] = -1  # as if it had died in the middle of the line
    stage.succeed()
    assert stage.leader.open(stage.tick + 1)
    lines[1, SECONDS] = stage.arena["ledger"][1, SECONDS]
    np.testing.assert_array_equal(stage.arena["ledger"], lines)
    np.testing.assert_array_equal(stage.arena["shard_owner"], plan)


def test_a_snapshot_is_taken_once_and_only_when_it_is_due():
    stage = Stage()
    stage.door[SNAPSHOT_DUE] = 3
    for tick in range(6):
        stage.arena["values"][:] = tick  # as it is when tick + 1 is opened
        stage.run(1)
        assert stage.door[SNAPSHOT_TAKEN] == (3 if tick >= 3 else 0)
    assert {*stage.arena["snapshot_values"].ravel().tolist()} == {3.0}


def test_a_snapshot_that_is_due_at_the_end_is_taken_before_the_door_is_closed():
    stage = Stage(max_epochs=1)
    stage.door[SNAPSHOT_DUE] = N_STEPS
    finish_epoch(stage)
    assert not stage.open_next()
    assert stage.door[SNAPSHOT_TAKEN] == N_STEPS


def test_a_snapshot_that_a_leader_did_not_live_to_announce_is_taken_again():
    stage = Stage()
    stage.door[SNAPSHOT_DUE] = 1
    stage.run(1)
    stage.arena["values"][:], stage.arena["snapshot_values"][:] = 1, 0.5  # half copied
    stage.succeed()
    stage.run(1)
    assert stage.door[SNAPSHOT_TAKEN] == 1
    assert {*stage.arena["snapshot_values"].ravel().tolist()} == {1.0}


def test_an_unfinished_division_is_made_anew_by_a_leader_that_had_nothing_left_to_do():
    stage = Stage()
    stage.run(2)
    stage.arena["shard_owner"][...] = 3  # as anything that is no plan
    stage.door[PLAN] += 1  # by another one, whose death is not known yet
    stage.run(1)
    assert stage.shares == [4, 4, 0, 0]
    assert stage.door[PLAN] % 2 == 0

"""Workers played one after another in one process: what the dead leave undone is done once."""

import threading

import numpy as np
import pytest

from phalanx.arena import Arena
from phalanx.clusters.pool import ORPHANED
from phalanx.clusters.supervisor import Supervisor
from phalanx.data.samples import TableSamples
from phalanx.engine import presence
from phalanx.engine.ledger import Ledger
from phalanx.engine.worker import Worker
from phalanx.exchange.board import ABORT, LAST, NEVER, OPENED, PLAN
from phalanx.job import Job, Lease
from phalanx.models.mlp import MLPSpec
from phalanx.pure.aggregation import mean
from phalanx.pure.assignment import dynamic, round_robin
from phalanx.pure.faults import Fault
from phalanx.pure.membership import GiveUp, Start, deaths_that_accuse
from phalanx.pure.optimizers import Adam
from phalanx.pure.plan import Plan, sequential
from phalanx.pure.schedules import Constant
from phalanx.pure.stopping import Progress, Rule

LEASE = Lease(0, 1, 0, 0)
RNG = np.random.default_rng(0)
SAMPLES = TableSamples.of(RNG.normal(size=(32, 4)), np.arange(32) % 2)


class Death(BaseException):
    """Of a worker, at a place of its script."""


@pytest.fixture(autouse=True)
def mortal(monkeypatch):
    met = []

    def die():
        raise Death

    def die_at_the_second_block():
        met.append(None)
        if len(met) == 2:
            die()

    monkeypatch.setitem(presence._ACTIONS, "kill", die)
    monkeypatch.setitem(presence._ACTIONS, "exit", die_at_the_second_block)


def arena_of(job):
    """Of a job that may begin."""
    arena = Arena.private(job.fields)
    arena["door"][LAST] = NEVER
    arena["values"][0] = np.linspace(-1, 1, job.model.n_parameters)
    Ledger(arena, False).begin(Progress(rate=0.1))
    return arena


class Scene:
    """Two workers of whom only the first is wanted: it does everything, unless it dies."""

    def __init__(self, *script):
        spec = MLPSpec((4, 1200, 2), "relu", "log_loss", "float64")
        plan, rule = Plan(32, 16, 2, 0, sequential), Rule(Constant(0.1), 1)
        self.job = Job(spec, plan, Adam(), mean, round_robin, rule, 0.01, 2, 2)
        self.arena, self.script = arena_of(self.job), script
        self.supervisor = Supervisor(self.job, self.arena, tell=lambda event: None)
        self.supervisor.wish(1)
        self.supervisor.glance(owing=())
        self.door = self.arena["door"]

    def play(self, rank):
        """Let the process in a seat work to the end; what is to be done if it dies before."""
        life = self.supervisor.life(rank)
        worker = Worker(self.job, self.arena, SAMPLES, None, rank, life, self.script)
        try:
            worker.run(LEASE)
        except Death:
            return self.supervisor.lost(rank)("killed")
        return None

    def bear(self, rank):
        """A process takes a seat, and the driver looks."""
        self.supervisor.seats.born[rank] = self.supervisor.life(rank)
        self.supervisor.glance(owing=())

    def alive(self):
        return self.supervisor.seats.alive(self.door[OPENED])


@pytest.fixture
def untroubled():
    scene = Scene()
    assert scene.play(0) is None
    return scene.arena["values"]


@pytest.mark.parametrize("action", ["kill", "exit"])
@pytest.mark.parametrize("phase", ["update", "commit"])
def test_a_block_that_a_dead_heir_had_begun_is_updated_once(phase, action, untroubled):
    scene = Scene(Fault(0, 0, "reduce"), Fault(1, 0, phase, action))
    assert scene.play(0) == [Start(0, 2)]
    assert scene.play(1) == []
    scene.bear(0)
    assert scene.alive() == [0]
    assert scene.play(0) is None
    np.testing.assert_array_equal(scene.arena["values"], untroubled)


@pytest.mark.parametrize("phase", ["reduce", "update", "commit"])
def test_no_gradient_is_computed_anew_from_blocks_that_are_updated_already(phase, untroubled):
    scene = Scene(Fault(1, 0, "join"), Fault(0, 0, phase, "exit"))
    assert scene.play(1) == []
    assert scene.play(0) == [Start(0, 2)]
    scene.bear(0)
    assert scene.play(0) is None
    np.testing.assert_array_equal(scene.arena["values"], untroubled)


def test_whoever_was_admitted_by_a_leader_that_then_died_is_let_in_by_the_driver(untroubled):
    scene = Scene(Fault(0, 0, "leave"), Fault(1, 0, "open"))
    assert scene.play(0) == [Start(0, 2)]
    scene.bear(0)
    assert scene.play(1) == []
    scene.bear(0)
    assert scene.alive() == [0]
    assert scene.play(0) is None
    np.testing.assert_array_equal(scene.arena["values"], untroubled)


def test_who_led_in_an_earlier_lease_and_comes_late_opens_nothing():
    scene = Scene()
    late = Worker(scene.job, scene.arena, SAMPLES, None, 1)
    late.post.share.leads = True  # it did, then came somebody who leads before it
    assert scene.play(0) is None
    opened, values = scene.door[OPENED], scene.arena["values"].copy()
    thread = threading.Thread(target=late.run, args=(LEASE,), daemon=True)
    thread.start()
    thread.join(10)
    is_waiting, scene.door[ABORT] = thread.is_alive(), 1
    assert not is_waiting
    assert scene.door[OPENED] == opened
    assert np.array_equal(scene.arena["values"], values)


def late_in_tick_1():
    """Of two workers the second, which has the first tick open before it and does not lead."""
    scene = Scene()
    late = Worker(scene.job, scene.arena, SAMPLES, None, 1)
    late.post.timetable = scene.job.timetable(LEASE)
    late.leader.begin(LEASE, late.post.timetable)
    assert late._is_admitted(0)
    scene.door[OPENED] = 1
    return scene, late


def leave_behind(scene, opened):
    """The others go on to a later tick, and the leader dies in it."""
    scene.arena["blocks_done"][...] = opened - 1
    scene.door[OPENED] = opened
    scene.supervisor.seats.bury(0, 1)


def test_who_hears_late_of_the_leaders_death_does_not_open_what_that_one_had_opened(monkeypatch):
    scene, late = late_in_tick_1()
    late.post.enter(1)
    hear = late.post.hear

    def hear_late():
        if scene.door[OPENED] == 1:  # it has just looked at that word
            leave_behind(scene, 2)
        return hear()

    monkeypatch.setattr(late.post, "hear", hear_late)
    plan = scene.door[PLAN]
    assert late._enter()
    assert late.post.share.leads
    assert (late.post.tick, scene.door[OPENED], scene.door[PLAN]) == (2, 2, plan)


def test_who_comes_to_lead_in_a_tick_that_is_long_over_opens_none_that_is_open():
    scene, late = late_in_tick_1()
    leave_behind(scene, 2)  # it has read that 1 is open
    late.post.enter(1)
    plan = scene.door[PLAN]
    assert late.post.share.leads
    assert late._enter()
    assert (late.post.tick, scene.door[OPENED], scene.door[PLAN]) == (2, 2, plan)


class Elsewhere(MLPSpec):
    """A model that cannot be computed in the caller's process."""

    runs_here = False


def trained_by_one_process(dies):
    """The values; its first life may end in the middle of an update."""
    spec = Elsewhere((4, 1200, 2), "relu", "log_loss", "float64")
    plan, rule = Plan(32, 16, 2, 0, sequential), Rule(Constant(0.1), 1)
    job = Job(spec, plan, Adam(), mean, round_robin, rule, 0.01, 1, 1)
    arena = arena_of(job)
    supervisor = Supervisor(job, arena, tell=lambda event: None)
    worker = Worker(job, arena, SAMPLES, None, 0)
    if dies:
        update = worker.blocks.blocks[0]._update

        def then_die(moment, rate):
            update(moment, rate)
            raise Death

        worker.blocks.blocks[0]._update = then_die
        with pytest.raises(Death):
            worker.run(LEASE)
        assert supervisor.lost(0)("killed") == [Start(0, 2)]
        supervisor.seats.born[0] = 2
        supervisor.glance(owing=())
        worker = Worker(job, arena, SAMPLES, None, 0, 2)
    worker.run(LEASE)
    return arena["values"]


def test_a_lone_process_that_dies_in_an_update_is_made_good():
    np.testing.assert_array_equal(trained_by_one_process(True), trained_by_one_process(False))


def test_a_leader_that_dies_again_and_again_while_it_decides_is_given_up():
    """As it does by an assignment of the user's that ends the process."""
    calls = []

    def deadly(n_tasks, speeds):
        calls.append(n_tasks)
        if len(calls) > 2:  # the first division, of shards and of blocks, is made
            raise Death
        return [0] * n_tasks

    spec = MLPSpec((4, 12, 2), "relu", "log_loss", "float64")
    plan, rule = Plan(32, 16, 2, 0, sequential), Rule(Constant(0.1), 1)
    job = Job(spec, plan, Adam(), mean, deadly, rule, 0.01, 1, 2)
    arena = arena_of(job)
    supervisor = Supervisor(job, arena, tell=lambda event: None)
    supervisor.begin(LEASE)
    actions = []
    for life in range(1, 20):
        worker = Worker(job, arena, SAMPLES, None, 0, life)
        supervisor.seats.born[0] = life
        supervisor.glance(owing=())
        with pytest.raises(Death):
            worker.run(LEASE)
        actions = supervisor.lost(0)("killed")
        if any(isinstance(action, GiveUp) for action in actions):
            break
    (given_up,) = (action for action in actions if isinstance(action, GiveUp))
    assert given_up.task.phase == "open"


def test_workers_whose_fork_servers_are_ended_again_and_again_are_given_up():
    """As by a function of the user's that ends its parent."""
    scene, ends = Scene(), deaths_that_accuse(1)
    found = [scene.supervisor.lost(0)(ORPHANED) for _ in range(ends)]
    assert found[:-1] == [[Start(0, life)] for life in range(2, ends + 1)]
    ((given_up,),) = found[-1:]
    error = scene.supervisor.give_up(given_up, 1, ORPHANED)
    assert "losing one fork server after another in step 0: its fork server was ended" in str(error)


class Players:
    """Workers of one job, each of which makes a step when it is told to."""

    def __init__(self, count):
        spec = MLPSpec((4, 1200, 2), "relu", "log_loss", "float64")
        plan, rule = Plan(32, 8, 7, 0, sequential), Rule(Constant(0.1), 1)
        job = Job(spec, plan, Adam(), mean, dynamic, rule, 0.01, count, count)
        self.arena = arena_of(job)
        self.supervisor = Supervisor(job, self.arena, tell=lambda event: None)
        self.door = self.arena["door"]
        self.workers = [Worker(job, self.arena, SAMPLES, None, rank) for rank in range(count)]
        for worker in self.workers:
            worker.post.timetable = job.timetable(LEASE)
            worker.leader.begin(LEASE, worker.post.timetable)
            assert worker._is_admitted(0)

    def step(self, workers, tick):
        for worker in workers:
            assert worker._enter()
            assert worker.post.tick == tick
        for worker in workers:
            worker._step(0.0)


def test_a_leader_that_dies_while_its_heir_is_away_leaves_one_plan_for_a_tick(monkeypatch):
    """The heir has read that the tick is not open; it is opened, the leader dies, and those who own
    no block do all shards, before the heir hears of it."""
    alone = Players(1)
    for tick in (1, 2, 3, 4):
        alone.step(alone.workers, tick)
    scene = Players(4)
    leader, heir, *others = scene.workers
    scene.step(scene.workers, 1)
    hear = heir.post.hear

    def hear_late():
        if scene.door[OPENED] == 1:
            assert leader._enter()
            scene.supervisor.seats.bury(0, 1)
            scene.step(others, 2)
        return hear()

    with monkeypatch.context() as patched:
        patched.setattr(heir.post, "hear", hear_late)
        scene.step([heir], 2)
    assert scene.arena["blocks_done"].tolist() == [2] * len(scene.arena["blocks_done"])
    for tick in (3, 4):
        scene.step([heir, *others], tick)
    np.testing.assert_array_equal(scene.arena["values"], alone.arena["values"])

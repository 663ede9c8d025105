"""Workers played one after another in one process: what the dead leave undone is done once."""

import threading

import numpy as np
import pytest

from phalanx.arena import Arena
from phalanx.clusters.supervisor import Supervisor
from phalanx.data.samples import TableSamples
from phalanx.engine import presence
from phalanx.engine.ledger import Ledger
from phalanx.engine.worker import Worker
from phalanx.exchange.board import ABORT, LAST, NEVER, OPENED
from phalanx.job import Job, Lease
from phalanx.models.mlp import MLPSpec
from phalanx.pure.aggregation import mean
from phalanx.pure.assignment import round_robin
from phalanx.pure.faults import Fault
from phalanx.pure.membership import Start
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


class Scene:
    """Two workers of whom only the first is wanted: it does everything, unless it dies."""

    def __init__(self, *script):
        spec = MLPSpec((4, 1200, 2), "relu", "log_loss", "float64")
        plan, rule = Plan(32, 16, 2, 0, sequential), Rule(Constant(0.1), 1)
        self.job = Job(spec, plan, Adam(), mean, round_robin, rule, 0.01, 2, 2)
        self.arena, self.script = Arena.private(self.job.fields), script
        self.supervisor = Supervisor(self.job, self.arena, tell=lambda event: None)
        self.supervisor.wish(1)
        self.supervisor.glance(owing=())
        self.door = self.arena["door"]
        self.door[LAST] = NEVER
        self.arena["values"][0] = np.linspace(-1, 1, spec.n_parameters)
        Ledger(self.arena, False).begin(Progress(rate=0.1))

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

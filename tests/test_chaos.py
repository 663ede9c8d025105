"""Chaos, scripted: whatever happens to the workers, the answer is that of one undisturbed worker.

Each scenario is a training of 25 steps, in the first fifteen of which workers die, stop or hang at
named phases; in the others their replacements find time to join. The last test counts how many did.
After every test, conftest.py looks for processes, descriptors and mappings that were left.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from phalanx import MLPClassifier
from phalanx.testing import PHASES as ALL_PHASES
from phalanx.testing import Fault, scripted

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(7)
X = RNG.normal(size=(140, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 1).astype(int)
SETTINGS = dict(
    hidden_layer_sizes=(40, 900), batch_size=28, shards=7, max_iter=5, random_state=0, tol=0,
    n_iter_no_change=100,
)  # fmt: skip
STEPS = 15  # with faults
ASSIGNMENTS = ("round_robin", "load_balanced", "dynamic")
VARIANTS = (
    {"solver": "adam"},
    {"solver": "adam", "hidden_layer_sizes": (80, 900)},  # shards leave factors of gradients
    {"solver": "adagrad", "hidden_layer_sizes": (80, 900), "are_sparse": True},  # and are given
    {"solver": "sgd", "data_distribution": "strided", "dropout": 0.25},
    {"solver": "rmsprop", "aggregation": "median", "data_distribution": "stratified"},
    {"solver": "adamw", "aggregation": "max", "data_distribution": "sequential"},
    {"solver": "nesterov", "aggregation": "trimmed_mean", "early_stopping": True},
)
EARLY = VARIANTS.index(VARIANTS[-1])
DEADLY = ("kill", "segfault", "exit")
PHASES = [
    phase for phase in ALL_PHASES if phase != "norm"
]  # of a clipped gradient: test_torch_digests
IN_A_STEP = [phase for phase in PHASES if phase not in ("join", "open", "evaluate")]


@pytest.fixture(autouse=True)
def factors_of_small_layers(monkeypatch):
    monkeypatch.setattr("phalanx.models.mlp.factored.FEWEST", 50_000)


happened = {"worker lost": 0, "worker stuck": 0, "worker joined": 0}


def fit(variant, **more):
    settings = {**SETTINGS, **VARIANTS[variant], **more}
    x = csr_matrix(X * (X > 0)) if settings.pop("are_sparse", False) else X
    return MLPClassifier(**settings).fit(x, Y).run_


@cache
def undisturbed(variant):
    return fit(variant)


def survives(variant, assignment, n_workers, faults):
    """Train under the faults, and compare; returns what was lost."""
    with scripted(*faults):
        run = fit(variant, task_assignment=assignment, n_jobs=n_workers)
    for what in happened:
        happened[what] += sum(event.what == what for event in run.events)
    assert run.digest == undisturbed(variant).digest, (run.losses, run.events)
    assert run.losses == undisturbed(variant).losses
    assert run.scores == undisturbed(variant).scores
    return [event for event in run.events if event.what == "worker lost"]


def step_for(phase, rng):
    """A step at which the phase occurs: evaluations come after whole epochs."""
    return rng.choice([5, 10]) if phase == "evaluate" else rng.randrange(1, STEPS - 3)


def one_fault():
    """Every phase, deadly action, assignment, in the leader and in another one."""
    for i, (phase, action, assignment, other) in enumerate(
        product(PHASES, DEADLY, ASSIGNMENTS, (False, True))
    ):
        rng, n_workers = random.Random(i), 2 + i % 6
        worker = rng.randrange(1, n_workers) if other else 0
        variant = EARLY if phase == "evaluate" else i % EARLY
        fault = Fault(worker, step_for(phase, rng), phase, action)
        yield pytest.param(variant, assignment, n_workers, fault, id=f"{phase}-{action}-{i}")


@pytest.mark.parametrize(("variant", "assignment", "n_workers", "fault"), list(one_fault()))
def test_one_worker_dies(variant, assignment, n_workers, fault):
    lost = survives(variant, assignment, n_workers, [fault])
    may_never_come = (
        # another one may lead, or be quicker at every task of this worker
        fault.phase in ("open", "evaluate")
        or fault.phase in ("read", "compute", "publish")
        or n_workers > 2
    )
    assert len(lost) == 1 or may_never_come
    for event in lost:
        assert event.worker == fault.worker
        assert event.cost is not None


def many(seed, n_workers, n_faults, same_step):
    """Faults in different workers; in one step, or anywhere."""
    rng = random.Random(seed)
    step = rng.randrange(1, STEPS - 4)
    return [
        Fault(
            worker,
            step if same_step else rng.randrange(1, STEPS - 4),
            rng.choice(IN_A_STEP),
            rng.choice(DEADLY),
        )
        for worker in rng.sample(range(n_workers), n_faults)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_several_die_in_the_same_step(seed):
    n_workers = 3 + seed % 5
    faults = many(seed, n_workers, random.Random(seed).randrange(2, n_workers), same_step=True)
    survives(seed % EARLY, ASSIGNMENTS[seed % 3], n_workers, faults)


@pytest.mark.parametrize("seed", range(30))
def test_all_but_one_die_in_the_same_step(seed):
    n_workers = 2 + seed % 6
    faults = many(1000 + seed, n_workers, n_workers - 1, same_step=True)
    survives(seed % EARLY, ASSIGNMENTS[seed % 3], n_workers, faults)


@pytest.mark.parametrize("seed", range(15))
def test_all_die_in_the_same_step(seed):
    n_workers = 2 + seed % 4
    faults = many(2000 + seed, n_workers, n_workers, same_step=True)
    survives(seed % EARLY, ASSIGNMENTS[seed % 3], n_workers, faults)


@pytest.mark.parametrize("seed", range(30))
def test_workers_die_one_after_another(seed):
    n_workers = 2 + seed % 6
    faults = many(3000 + seed, n_workers, n_workers, same_step=False)
    survives(seed % EARLY, ASSIGNMENTS[seed % 3], n_workers, faults)


@pytest.mark.parametrize("seed", range(30))
def test_the_replacement_dies_as_it_joins_or_later(seed):
    rng, n_workers = random.Random(4000 + seed), 2 + seed % 3
    worker, phase = rng.randrange(n_workers), rng.choice(["join", *IN_A_STEP])
    faults = [Fault(worker, 1, "enter", rng.choice(DEADLY))]
    faults += [
        Fault(worker, step, phase, rng.choice(DEADLY), life=2)
        for step in (range(2, STEPS) if phase != "join" else [0])  # whenever it has come
    ]
    faults += [Fault(worker, 0, "join", rng.choice(DEADLY), life=3)] * (seed % 2)
    survives(seed % EARLY, ASSIGNMENTS[seed % 3], n_workers, faults)


@pytest.mark.parametrize("action", ["stop", "hang"])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "join"])
def test_a_worker_stops_or_hangs(phase, action):
    variant = EARLY if phase == "evaluate" else 0
    fault = Fault(0, 5, phase, action)
    lost = survives(variant, "round_robin", 2, [fault])
    assert len(lost) == 1
    assert "stuck" in lost[0].detail


def test_a_worker_stops_as_it_joins():
    survives(0, "round_robin", 2, [Fault(1, 3, "enter"), Fault(1, 0, "join", "stop", life=2)])


@pytest.mark.parametrize("phase", ["enter", "compute", "update"])
@pytest.mark.parametrize("step", range(1, 9))
def test_a_worker_dies_around_a_batch_that_is_smaller_than_the_shards_are_many(step, phase):
    settings = {**SETTINGS, "batch_size": 23, "shards": 7}  # 140 = 6 * 23 + 2
    calm = MLPClassifier(**settings).fit(X, Y).run_
    with scripted(Fault(step % 3, step, phase), Fault((step + 1) % 3, 6, phase)):
        shaken = MLPClassifier(**settings, n_jobs=3).fit(X, Y).run_
    assert shaken.digest == calm.digest
    assert shaken.losses == calm.losses


def test_what_a_worker_raises_ends_the_fit_even_among_deaths():
    clf = MLPClassifier(**SETTINGS, n_jobs=3)
    faults = Fault(0, 4, "reduce"), Fault(1, 6, "compute", "raise"), Fault(2, 4, "wait")
    with scripted(*faults), pytest.raises(Exception, match="a fault of the script"):
        clf.fit(X, Y)


def test_the_pool_survives_its_fork_server(monkeypatch):
    from phalanx.clusters import pool

    def end_the_server(epoch, record):
        if epoch == 1:
            pool._pool._process.kill()

    clf = MLPClassifier(**SETTINGS, n_jobs=3).fit(X, Y, callback=end_the_server)
    assert clf.run_.digest == undisturbed(0).digest
    assert {event.what for event in clf.run_.events} >= {"worker lost", "worker joined"}


def test_at_least_five_hundred_faults_happened(request):
    if request.config.getoption("keyword") or happened["worker lost"] == 0:
        pytest.skip("the whole module must run")
    assert happened["worker lost"] >= 500
    assert happened["worker joined"] >= 400
    assert happened["worker stuck"] >= 20

"""A training that was stopped goes on as if it had not been: from any step, on any workers."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import warnings
from functools import cache

import numpy as np
import pytest

import phalanx
from phalanx import CheckpointError, InvalidInput, MLPClassifier, MLPRegressor
from phalanx.clusters import pool
from phalanx.engine.leader import Leader
from phalanx.exchange.board import SNAPSHOT_TAKEN
from phalanx.run import Event
from phalanx.training import checkpoint
from phalanx.training.afterwards import warnings_of
from phalanx.training.keeper import RULES, Keeper
from processes import still_running

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(3)
X = RNG.normal(size=(130, 5))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
SETTINGS = dict(
    hidden_layer_sizes=(30, 700), batch_size=20, shards=4, max_iter=6, random_state=5, tol=0,
    n_iter_no_change=100,
)  # fmt: skip
KINDS = {
    "adam": {},
    "sgd, adaptive": {"solver": "sgd", "learning_rate": "adaptive", "momentum": 0.5},
    "early stopping": {"early_stopping": True},
    "dropout, weights": {"dropout": 0.3, "class_weight": "balanced"},
    "float32, max": {"aggregation": "max", "solver": "rmsprop"},
}


def estimator(kind, n_jobs=None, **more):
    return MLPClassifier(**{**SETTINGS, **KINDS[kind], **more}, n_jobs=n_jobs)


@cache
def undisturbed(kind):
    return estimator(kind).fit(*data(kind))


def data(kind):
    return (X.astype(np.float32), Y) if "float32" in kind else (X, Y)


def killed_fit(kind, folder, n_jobs, every, resume=None, **more):
    """A fit in a process of its own, killed right after its first checkpoint; its workers."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _kill_after_a_checkpoint(writer)
            estimator(kind, n_jobs, **more).fit(
                *data(kind), checkpoint=folder, checkpoint_every=every, resume=resume
            )
        finally:
            os._exit(1)
    os.close(writer)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(reader) as pipe:
        workers = [int(worker) for worker in pipe.read().split()]
    assert code == -signal.SIGKILL
    return workers


def _kill_after_a_checkpoint(writer):
    """Have this process kill itself after a checkpoint, and tell of its workers before."""
    save = checkpoint.save

    def save_then_die(*args, **more):
        save(*args, **more)
        warm = pool._pool
        pids = [warm._process.pid, *(m.pid for m in warm.members)] if warm else []
        os.write(writer, " ".join(map(str, pids)).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save = save_then_die


def same(clf, kind):
    base = undisturbed(kind)
    assert clf.run_.digest == base.run_.digest
    assert clf.loss_curve_ == base.loss_curve_
    assert clf.validation_scores_ == base.validation_scores_
    assert (clf.n_iter_, clf.t_, clf.best_loss_) == (base.n_iter_, base.t_, base.best_loss_)
    assert clf.run_.steps == base.run_.steps
    for coef, expected in zip(clf.coefs_, base.coefs_, strict=True):
        assert np.array_equal(coef, expected)
    return True


@pytest.mark.parametrize("seed", range(50))
def test_killed_at_any_step_and_resumed_on_other_workers(tmp_path, seed):
    rng, kind = random.Random(seed), list(KINDS)[seed % len(KINDS)]
    steps = undisturbed(kind).run_.steps
    stop, before, after = rng.randrange(1, steps), *rng.sample([1, 2, 3, 4], 2)
    workers = killed_fit(kind, tmp_path, before, f"{stop} steps")
    assert len(workers) == (before + 1 if before > 1 else 0)
    assert not still_running(workers, within=1)
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{stop:09}.safetensors"]
    resumed = estimator(kind, after).fit(*data(kind), checkpoint=tmp_path, resume=True)
    assert resumed.run_.events[0].what == "resumed"
    assert resumed.run_.events[0].step == stop
    assert same(resumed, kind)


@pytest.mark.parametrize("n_jobs", [[1, 2, 3], [2, 1, 1], [3, 2, 2]])
def test_killed_again_and_again(tmp_path, n_jobs):
    long = {"max_iter": 600, "hidden_layer_sizes": (30,)}  # there is always more to do
    reached = 0
    for i, n in enumerate(n_jobs):
        killed_fit("adam", tmp_path, n, "1 step", resume=bool(i), **long)
        assert checkpoint.load(tmp_path).step > reached
        reached = checkpoint.load(tmp_path).step
    resumed = estimator("adam", 2, **long).fit(X, Y, checkpoint=tmp_path, resume=True)
    assert resumed.run_.digest == estimator("adam", **long).fit(X, Y).run_.digest


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_that_had_ended_is_not_done_again(tmp_path, kind):
    first = estimator(kind).fit(*data(kind), checkpoint=tmp_path)
    again = estimator(kind, 2).fit(*data(kind), checkpoint=tmp_path, resume=True)
    assert [event.what for event in again.run_.events] == ["resumed"]
    assert not again.run_.spans
    assert same(first, kind)
    assert same(again, kind)


def test_more_epochs_than_before_go_on_where_they_ended(tmp_path):
    estimator("adam", max_iter=2).fit(X, Y, checkpoint=tmp_path)
    longer = estimator("adam", 2).fit(X, Y, checkpoint=tmp_path, resume=True)
    assert same(longer, "adam")


@pytest.mark.parametrize("kind", ["adam", "early stopping"])
def test_a_fitted_estimator_goes_on_as_a_new_one_does(tmp_path, kind):
    """A cell of a notebook that is run again, with more epochs."""
    clf = estimator(kind, max_iter=3, warm_start=True).fit(X, Y, checkpoint=tmp_path)
    assert same(clf.set_params(max_iter=6).fit(X, Y, checkpoint=tmp_path, resume=True), kind)


@pytest.mark.parametrize("kind", ["adam", "early stopping"])
def test_a_warm_start_is_gone_on_with_as_one(tmp_path, kind):
    """What came before it is not told again, and what it told itself once only."""
    begun, undisturbed = (estimator(kind, max_iter=2, warm_start=True).fit(X, Y) for _ in range(2))
    begun.set_params(max_iter=3).fit(X, Y, checkpoint=tmp_path)
    begun.set_params(max_iter=6).fit(X, Y, checkpoint=tmp_path, resume=True)
    undisturbed.set_params(max_iter=6).fit(X, Y)
    assert begun.run_.digest == undisturbed.run_.digest
    assert begun.loss_curve_ == undisturbed.loss_curve_
    assert len(begun.loss_curve_) == 8
    assert begun.validation_scores_ == undisturbed.validation_scores_


def test_a_fit_without_a_seed_is_gone_on_with_again_and_again(tmp_path):
    settings = {**SETTINGS, "random_state": None}
    for epochs in (2, 4, 6):
        clf = MLPClassifier(**{**settings, "max_iter": epochs})
        clf.fit(X, Y, checkpoint=tmp_path, resume=True)
        assert clf.n_iter_ == len(clf.loss_curve_) == epochs


def test_resume_without_anything_there_begins_at_the_start(tmp_path):
    assert same(estimator("adam").fit(X, Y, checkpoint=tmp_path / "new", resume=True), "adam")


@pytest.mark.parametrize("random_state", [None, 7])
def test_the_random_state_is_the_checkpoints(tmp_path, random_state):
    settings = {**SETTINGS, "random_state": random_state, "early_stopping": True}
    first = MLPClassifier(**settings).fit(X, Y, checkpoint=tmp_path, checkpoint_every="9 steps")
    files = sorted(tmp_path.iterdir())
    resumed = MLPClassifier(**settings).fit(X, Y, resume=files[0])
    assert resumed.run_.digest == first.run_.digest


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.Philox])
def test_the_random_state_may_be_of_any_kind(tmp_path, kind):
    def estimator():
        random_state = np.random.RandomState(kind(3))
        return MLPClassifier(**{**SETTINGS, "random_state": random_state, "early_stopping": True})

    first = estimator().fit(X, Y, checkpoint=tmp_path, checkpoint_every="9 steps")
    resumed = MLPClassifier(**{**SETTINGS, "random_state": None, "early_stopping": True})
    resumed.fit(X, Y, resume=sorted(tmp_path.iterdir())[0])
    assert resumed.run_.digest == first.run_.digest == estimator().fit(X, Y).run_.digest


def test_a_regressor_and_its_validation_data(tmp_path):
    target = X[:, 0] * 2 + X[:, 1]
    settings = {**SETTINGS, "early_stopping": True}
    more = {"validation_data": (X[:20], target[:20])}
    first = MLPRegressor(**settings, n_jobs=2).fit(
        X, target, **more, checkpoint=tmp_path, checkpoint_every=1
    )
    resumed = MLPRegressor(**settings).fit(X, target, **more, resume=sorted(tmp_path.iterdir())[0])
    assert resumed.run_.digest == first.run_.digest
    assert resumed.validation_scores_ == first.validation_scores_


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_layer_sizes": (30, 701)}, "model"),
        ({"batch_size": 21}, "batch_size"),
        ({"shards": 5}, "shards"),
        ({"solver": "sgd"}, "optimizer"),
        ({"alpha": 0.5}, "alpha"),
        ({"aggregation": "max"}, "aggregation"),
        ({"data_distribution": "strided"}, "data_distribution"),
        ({"dropout": 0.1}, "model"),
        ({"n_iter_no_change": 3}, "n_iter_no_change"),
        ({"early_stopping": True}, "early_stopping"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, change, named):
    estimator("adam").fit(X, Y, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=rf"differs in.*{named}"):
        estimator("adam", **change).fit(X, Y, checkpoint=tmp_path, resume=True)


def test_a_checkpoint_that_is_not_exact_is_refused(tmp_path):
    """It says so only where it is not."""
    estimator("adam", exact=False).fit(X, Y, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=r"differs in exact \(False there, None here\)"):
        estimator("adam").fit(X, Y, resume=tmp_path)


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("phalanx.training.keeper.RULES", f"rules \\({RULES} there, {RULES + 1} here\\)"),
        ("phalanx.pure.layout.MIN_BLOCK", "blocks \\(2 there, 1 here\\)"),
    ],
)
def test_a_checkpoint_of_other_rules_is_refused(tmp_path, rule, named, monkeypatch):
    estimator("adam").fit(X, Y, checkpoint=tmp_path)
    monkeypatch.setattr(rule, RULES + 1 if rule.endswith("RULES") else 10**9)
    with pytest.raises(CheckpointError, match=f"differs in {named}"):
        estimator("adam").fit(X, Y, resume=tmp_path)


def test_a_checkpoint_of_other_blocks_of_the_replicas_is_refused(tmp_path, monkeypatch):
    settings = dict(sync_every=2, hidden_layer_sizes=(30, 700))
    estimator("adam", **settings).fit(X, Y, checkpoint=tmp_path)
    monkeypatch.setattr("phalanx.pure.optimizers.Adam.largest_block", 2048)
    with pytest.raises(CheckpointError, match=r"differs in blocks of a replica \(2 there, 12 here"):
        estimator("adam", **settings).fit(X, Y, resume=tmp_path)


def test_other_data_are_refused(tmp_path):
    estimator("adam").fit(X, Y, checkpoint=tmp_path)
    other = X.copy()
    other[17, 3] += 1e-9
    with pytest.raises(CheckpointError, match="differs in data"):
        estimator("adam").fit(other, Y, resume=tmp_path)
    with pytest.raises(CheckpointError, match="differs in data"):
        estimator("adam").fit(X, 1 - Y, resume=tmp_path)


def test_a_file_of_something_else_is_refused(tmp_path):
    checkpoint.save(tmp_path, 3, {"parameters": X}, {"extra": {}})
    with pytest.raises(CheckpointError, match="random state"):
        estimator("adam").fit(X, Y, resume=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint_every": "2 epochs"}, "needs a folder"),
        ({"checkpoint": 7}, "path of a folder"),
        ({"checkpoint": "{}", "checkpoint_every": "now and then"}, "positive number of steps"),
        ({"checkpoint": "{}", "checkpoint_every": 0}, "positive number of steps"),
        ({"checkpoint": "{}", "checkpoint_every": True}, "positive number of steps"),
        ({"resume": True}, "checkpoint= names"),
        ({"resume": 3.5}, "True, or the path"),
        ({"resume": ""}, "not empty"),
        ({"checkpoint": ""}, "not empty"),
        ({"checkpoint": "a\0b"}, "no null character"),
        ({"checkpoint": b"bytes"}, "path of a folder"),
        ({"resume": "{}/nothing-there"}, "nothing-there"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(tmp_path, arguments, message):
    filled = {
        name: value.format(tmp_path) if isinstance(value, str) and "{}" in value else value
        for name, value in arguments.items()
    }
    clf = estimator("adam")
    with pytest.raises((InvalidInput, CheckpointError), match=message):
        clf.fit(X, Y, **filled)
    assert not hasattr(clf, "coefs_")


@pytest.mark.parametrize("argument", ["checkpoint", "callback", "resume"])
def test_lbfgs_says_what_it_cannot_do(tmp_path, argument):
    given = print if argument == "callback" else tmp_path
    with pytest.raises(InvalidInput, match=f"{argument} can be used where.*lbfgs"):
        estimator("adam", solver="lbfgs").fit(X, Y, **{argument: given})


def test_a_folder_that_holds_another_training_is_not_overwritten(tmp_path):
    estimator("adam").fit(X, Y, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InvalidInput, match="already holds"):
        estimator("adam").fit(X, Y, checkpoint=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_checkpoints_of_another_training_are_not_deleted(tmp_path):
    """As steps are made, older checkpoints go."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    estimator("adam").fit(X, Y, checkpoint=mine)
    estimator("adam", max_iter=2).fit(X, Y, checkpoint=other, checkpoint_every=1)
    before = sorted(other.iterdir())
    for resume in (mine, checkpoint.newest(mine)):
        with pytest.raises(InvalidInput, match=f"other already holds.*goes on from {mine}"):
            estimator("adam").fit(X, Y, checkpoint=other, resume=resume)
    assert sorted(other.iterdir()) == before
    (tmp_path / "link").symlink_to(mine)
    estimator("adam").fit(X, Y, checkpoint=tmp_path / "link", resume=mine)
    estimator("adam").fit(X, Y, checkpoint=tmp_path / "new", resume=mine)


def test_another_random_state_is_refused(tmp_path):
    estimator("adam", random_state=2**32 - 1).fit(X, Y, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="began with random_state=4294967295, not 6"):
        estimator("adam", random_state=6).fit(X, Y, resume=tmp_path)


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.Philox])
def test_a_random_state_that_is_no_number_is_said_to_be_none(tmp_path, kind):
    random_state = np.random.RandomState(kind(3))
    estimator("adam", random_state=random_state).fit(X, Y, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="began with a state that no number makes, not 3"):
        estimator("adam", random_state=3).fit(X, Y, resume=tmp_path)


@pytest.mark.parametrize("change", [{"hidden_layer_sizes": (9,)}, {"early_stopping": True}])
def test_a_seed_that_the_network_or_the_data_change_is_not_named(tmp_path, change):
    """It is drawn after the weights, and after the samples that are set aside."""
    estimator("adam").fit(X, Y, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="differs in") as error:
        estimator("adam", **change).fit(X, Y, resume=tmp_path)
    assert "seed (" not in str(error.value)


def test_a_callback_changes_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def leave(epoch, record):
        os.chdir(tmp_path / "elsewhere")

    more = {"checkpoint": "kept", "checkpoint_every": 1}
    clf = estimator("adam").fit(X, Y, callback=leave, **more)
    assert checkpoint.load(tmp_path / "kept").step == clf.run_.steps
    assert "checkpoint failed" not in [event.what for event in clf.run_.events]


def test_a_last_checkpoint_that_fails_is_said(tmp_path):
    folder = tmp_path / "gone"
    with pytest.warns(UserWarning, match="last checkpoint.*could not be written.*No earlier one"):
        clf = estimator("adam").fit(
            X, Y, checkpoint=folder, callback=lambda *_: folder.exists() and folder.rmdir()
        )
    assert clf.run_.events[-1].what == "checkpoint failed"


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_where_warnings_are_errors_what_was_learnt_is_kept(tmp_path, n_jobs):
    clf, folder = estimator("adam", n_jobs), tmp_path / "gone"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="could not be written"):
            clf.fit(X, Y, checkpoint=folder, callback=lambda *_: folder.exists() and folder.rmdir())
    assert same(clf, "adam")


def test_where_warnings_are_errors_a_module_keeps_what_was_learnt(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")

    def failing(*args):
        raise CheckpointError("no space left on the disk")

    monkeypatch.setattr(checkpoint, "save", failing)
    module, rows = torch.nn.Linear(5, 2), (X.astype(np.float32), Y)
    before = module.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="could not be written") as raised:
            phalanx.fit(module, rows, loss="cross_entropy", workers=1, checkpoint=tmp_path)
    assert not torch.equal(module.weight, before)
    assert raised.value.returned.events[-1].what == "checkpoint failed"
    assert "what fit would have returned" in raised.value.__notes__[0]


def test_a_checkpoint_that_failed_before_the_last_one_is_in_no_doubt():
    failed, written = Event("checkpoint failed", 3, "full"), Event("checkpoint", 9)
    assert warnings_of([failed, written]) == []
    assert len(warnings_of([written, failed])) == 1


def test_nothing_is_written_any_more_when_a_fit_has_raised(tmp_path, monkeypatch):
    begun, raised, save = threading.Event(), threading.Event(), checkpoint.save

    def slow(*args, **more):
        begun.set()
        raised.wait(1)
        return save(*args, **more)

    def fail(epoch, record):
        if begun.is_set():
            raised.set()
            raise ArithmeticError("mine")

    monkeypatch.setattr(checkpoint, "save", slow)
    with pytest.raises(ArithmeticError, match="mine"):
        estimator("adam", max_iter=9999).fit(
            X, Y, checkpoint=tmp_path, checkpoint_every="1 step", callback=fail
        )
    assert "phalanx-keeper" not in [thread.name for thread in threading.enumerate()]


def test_a_folder_belongs_to_one_training_at_a_time(tmp_path):
    """To the next one, too, when the first has raised."""
    errors = []

    def another(epoch, record):
        with pytest.raises(CheckpointError, match="belongs to one training at a time") as raised:
            estimator("adam").fit(X, Y, checkpoint=tmp_path)
        errors.append(raised.value)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        estimator("adam").fit(X, Y, checkpoint=tmp_path, callback=another)
    assert len(errors) == 1
    assert not list(tmp_path.iterdir())
    estimator("adam").fit(X, Y, checkpoint=tmp_path)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_disk_that_fails_becomes_an_event_and_the_training_goes_on(tmp_path, monkeypatch, n_jobs):
    save, calls = checkpoint.save, []

    def failing(folder, step, *args, **more):
        calls.append(step)
        if len(calls) == 2:
            raise CheckpointError("no space left on the disk")
        return save(folder, step, *args, **more)

    monkeypatch.setattr(checkpoint, "save", failing)
    clf = estimator("adam", n_jobs, max_iter=200, hidden_layer_sizes=(30,))
    clf.fit(X, Y, checkpoint=tmp_path, checkpoint_every="1 step")
    failed = [event for event in clf.run_.events if event.what == "checkpoint failed"]
    assert [event.detail for event in failed] == ["no space left on the disk"]
    monkeypatch.undo()
    plain = estimator("adam", max_iter=200, hidden_layer_sizes=(30,)).fit(X, Y)
    assert clf.run_.digest == plain.run_.digest
    assert checkpoint.load(tmp_path).step == clf.run_.steps


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_system_that_has_no_more_threads(tmp_path, monkeypatch, n_jobs):
    """Checkpoints are written between two leases then, or while the driver waits."""
    start = threading.Thread.start

    def failing(thread):
        if thread.name.startswith("phalanx-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    clf = estimator("adam", n_jobs)
    clf.fit(X, Y, checkpoint=tmp_path, checkpoint_every=1, callback=lambda *_: None)
    assert same(clf, "adam")
    assert [event.what for event in clf.run_.events] == ["checkpoint"] * 7, "of the last one, two"


def test_a_checkpoint_for_which_there_is_no_memory(tmp_path, monkeypatch):
    def failing(*args):
        raise MemoryError

    monkeypatch.setattr(checkpoint, "save", failing)
    with pytest.warns(UserWarning, match="last checkpoint.*could not be written: out of memory"):
        clf = estimator("adam").fit(
            X, Y, checkpoint=tmp_path, checkpoint_every=1, callback=lambda *_: None
        )
    assert same(clf, "adam")
    failed = [event for event in clf.run_.events if event.what == "checkpoint failed"]
    assert len(failed) > 1
    assert {event.detail for event in failed} == {"out of memory"}


def test_a_leader_that_is_slow_to_open_the_next_step(tmp_path, monkeypatch):
    """The step before is not due again, although it is the one that is open still."""
    looks, regroup, report = threading.Semaphore(0), Leader._regroup, Keeper._report

    def slow(leader, tick):
        if leader.board.door[SNAPSHOT_TAKEN] == tick - 1 > 0:
            while looks.acquire(blocking=False):
                pass
            for _ in range(4):  # at which it is seen, reported, asked for anew, and seen again
                assert looks.acquire(timeout=30)
        regroup(leader, tick)

    def reported(keeper):
        report(keeper)
        looks.release()

    monkeypatch.setattr(Leader, "_regroup", slow)
    monkeypatch.setattr(Keeper, "_report", reported)
    clf = estimator("adam").fit(X, Y, checkpoint=tmp_path, checkpoint_every="20 steps")
    assert [event.step for event in clf.run_.events] == [20, 40, 42]


def test_steps_that_are_quicker_than_the_driver_looks(tmp_path, monkeypatch):
    """Of its looks, here at every seventh step, one finds a copy taken, the next, written."""
    look, begin, opens, keepers = Keeper.look, Keeper.begin, Leader.open, []

    def begun(keeper, *lease):
        keepers[:] = [keeper]
        begin(keeper, *lease)

    def opened(leader, tick):
        if tick % 7 == 0:
            keepers[0].wait()
            look(keepers[0], leader.arena)
        return opens(leader, tick)

    monkeypatch.setattr(Keeper, "look", lambda keeper, arena: None)
    monkeypatch.setattr(Keeper, "begin", begun)
    monkeypatch.setattr(Leader, "open", opened)
    clf = estimator("adam").fit(X, Y, checkpoint=tmp_path, checkpoint_every="5 steps")
    assert [event.step for event in clf.run_.events] == [5, 15, 30, 42]
    assert same(clf, "adam")


def test_checkpoints_and_deaths_together(tmp_path):
    from phalanx.testing import Fault, scripted

    with scripted(Fault(0, 9, "open"), Fault(1, 20, "update"), Fault(0, 21, "enter", life=2)):
        clf = estimator("adam", 2).fit(X, Y, checkpoint=tmp_path, checkpoint_every="1 step")
    assert same(clf, "adam")
    for path in tmp_path.iterdir():
        assert same(estimator("adam").fit(X, Y, resume=path), "adam")


def test_facts_are_plain_json(tmp_path):
    estimator("early stopping").fit(X, Y, checkpoint=tmp_path)
    saved = checkpoint.load(tmp_path)
    facts = json.loads(json.dumps(saved.facts))
    assert facts["position"]["updates"] == saved.step
    assert [len(record) for record in facts["records"]] == [7] * len(facts["records"])


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_snapshot_stays_as_it_is_while_it_is_written(tmp_path, monkeypatch, n_jobs):
    save, epochs, unchanged = checkpoint.save, [], []
    passed = threading.Condition()

    def slow_save(folder, step, arrays, facts, **more):
        before, seen = {name: array.copy() for name, array in arrays.items()}, len(epochs)
        with passed:  # the training goes on for some epochs, unless it is over
            passed.wait_for(lambda: len(epochs) > seen + 3, timeout=1)
        unchanged.append(all(np.array_equal(before[name], arrays[name]) for name in arrays))
        return save(folder, step, arrays, facts, **more)

    def callback(epoch, record):
        with passed:
            epochs.append(epoch)
            passed.notify_all()

    monkeypatch.setattr(checkpoint, "save", slow_save)
    more = {"checkpoint": tmp_path, "checkpoint_every": 1, "callback": callback}
    estimator("adam", n_jobs, max_iter=60).fit(X, Y, **more)
    assert len(unchanged) > 1
    assert all(unchanged)

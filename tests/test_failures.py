"""What happens to a fit when a worker raises, dies, or the user presses Ctrl-C.

Nothing waits by sleeping: each fault is set off by the worker itself, in a call that is named.
"""

import importlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

import numpy as np
import psutil
import pytest
from sklearn.exceptions import NotFittedError

from phalanx import MLPClassifier, UserFunctionError, WorkerError, WorkerLost
from phalanx.clusters import pool, processes
from phalanx.clusters.crew import Crew
from phalanx.clusters.inprocess import InProcess
from phalanx.clusters.process import DropJob
from phalanx.clusters.processes import Processes
from phalanx.run import digest
from phalanx.testing import Fault, scripted
from phalanx.training import checkpoint, sessions
from phalanx.training.course import Course
from processes import still_running

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 6))
Y = (X[:, 0] > 0).astype(int)
SETTINGS = dict(
    hidden_layer_sizes=(60,), batch_size=30, shards=4, max_iter=10, random_state=0, n_jobs=2,
    tol=0, n_iter_no_change=10**6,
)  # fmt: skip


def at_call(number, action):
    """An aggregation rule that does `action` in its `number`-th call in a worker, once."""
    calls = []

    def rule(grads_Sn, weights_S):
        calls.append(None)
        if len(calls) == number:
            action()
        return grads_Sn.mean(axis=0)

    return rule


def fails(message="broken"):
    raise ArithmeticError(message)


def is_usable():
    clf = MLPClassifier(**SETTINGS).fit(X, Y)
    return clf.run_.workers == 2 and clf.run_.reason == "max_epochs"


@pytest.mark.parametrize("call", [1, 5, 40])
def test_a_users_exception_arrives_with_rank_and_traceback(call):
    with pytest.raises(UserFunctionError, match="rule raised ArithmeticError: broken") as caught:
        MLPClassifier(**SETTINGS, aggregation=at_call(call, fails)).fit(X, Y)
    cause = caught.value.__cause__
    assert isinstance(cause, WorkerError)
    assert cause.rank in (0, 1)
    assert "in fails" in cause.worker_traceback
    assert f"raised in worker {cause.rank}" in caught.value.__notes__
    assert is_usable()


def test_an_exception_that_cannot_be_pickled_still_arrives():
    class Local(Exception):
        def __reduce__(self):
            raise TypeError("never")

    def order(epoch):
        if epoch.number == 2:
            raise Local("unpicklable")
        return np.arange(epoch.n_samples)

    with pytest.raises((WorkerError, UserFunctionError), match="unpicklable"):
        MLPClassifier(**SETTINGS, data_distribution=order).fit(X, Y)
    assert is_usable()


def test_an_exception_arrives_although_the_worker_that_raised_it_died_before_it_had_told(tmp_path):
    """The first process that is asked raises what ends it when it is sent, the second goes on, and
    the first one's replacement raises as well."""
    asked = []

    class Deadly(BaseException):
        def __reduce__(self):
            os.kill(os.getpid(), signal.SIGKILL)

    def number():
        with open(tmp_path / "asked", "ab", buffering=0) as file:
            file.write(b".")
            return file.tell()

    def rule(grads_Sn, weights_S):
        if not asked:
            asked.append(number())
            if asked[0] == 1:
                raise Deadly
            if asked[0] > 2:
                fails()
        return grads_Sn.mean(axis=0)

    settings = {**SETTINGS, "hidden_layer_sizes": (60, 800), "max_iter": 10**6}
    with pytest.raises(UserFunctionError, match="rule raised ArithmeticError: broken"):
        MLPClassifier(**settings, aggregation=rule).fit(X, Y)
    assert is_usable()


@pytest.mark.parametrize(
    ("death", "told"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        (lambda: os._exit(3), "exited with status 3"),
    ],
    ids=["killed", "segfault", "exit"],
)
def test_a_task_that_ends_every_process_is_named_and_nothing_is_left(death, told):
    is_usable()
    pids = [member.pid for member in pool.warm_pool().members]
    with pytest.raises(WorkerLost, match=f"while reducing block 0 in step 0: .*{told}") as caught:
        MLPClassifier(**SETTINGS, aggregation=at_call(1, death)).fit(X, Y)
    assert not [pid for pid in {*pids, caught.value.pid} if psutil.pid_exists(pid)]
    assert is_usable()


def test_a_shard_that_ends_every_process_is_named_with_its_samples():
    faults = [Fault(w, 9, "compute", life=life) for w in range(2) for life in range(1, 20)]
    with scripted(*faults), pytest.raises(WorkerLost, match=r"gradient of shard \d") as caught:
        MLPClassifier(**SETTINGS, shuffle=False).fit(X, Y)
    shard = int(re.search(r"shard (\d)", caught.value.task)[1])
    first = 30 * (9 - 8) + [0, 8, 16, 23][shard]
    assert caught.value.samples == list(range(first, first + [8, 8, 7, 7][shard]))
    assert is_usable()


@pytest.mark.parametrize("who", ["worker", "fork server"])
def test_a_process_lost_between_two_fits_is_replaced(who):
    is_usable()
    warm = pool.warm_pool()
    pid = warm.members[1].pid if who == "worker" else warm._process.pid
    sock = warm.members[1].sock if who == "worker" else warm._server
    os.kill(pid, signal.SIGKILL)
    assert select.select([sock], [], [], 5)[0], "its socket is closed once it is gone"
    assert is_usable()


def test_a_worker_is_replaced_even_if_a_child_of_it_lives(tmp_path):
    def die_before_a_child():
        if (tmp_path / "child").exists():
            return
        child = os.fork()
        if child == 0:
            signal.pause()
        (tmp_path / "child").write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)

    is_usable()
    begun = monotonic()
    clf = MLPClassifier(**SETTINGS, aggregation=at_call(1, die_before_a_child)).fit(X, Y)
    assert monotonic() - begun < 2
    assert "worker lost" in [event.what for event in clf.run_.events]
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # the user's, not ours to end


def test_ctrl_c_while_the_pool_starts(monkeypatch):
    pool.shutdown()
    receive = pool.wire.receive

    def interrupted(sock):
        monkeypatch.setattr(pool.wire, "receive", receive)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool.wire, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MLPClassifier(**SETTINGS).fit(X, Y)
    assert pool._pool is None
    assert is_usable()


SLOW = """
import os, select, signal, sys
os.kill({driver}, signal.SIGINT)
select.select([int(sys.argv[1])], [], [])  # until the driver has closed its end
"""


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_libraries_are_imported_does_not_wait_for_them(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text(SLOW.format(driver=os.getpid()))
    monkeypatch.syspath_prepend(tmp_path)
    starting = pool.warm_pool()
    with pytest.raises(KeyboardInterrupt):
        starting.load(("slow_to_import",))
    assert starting._process.returncode == -signal.SIGKILL
    assert pool._pool is None
    assert is_usable()


def test_a_function_that_cannot_be_pickled():
    lock = threading.Lock()

    def rule(grads_Sn, weights_S):
        with lock:
            return grads_Sn.mean(axis=0)

    clf = MLPClassifier(**SETTINGS, aggregation=rule)
    with pytest.raises(UserFunctionError, match=r"must be picklable.*cannot pickle '_thread.lock'"):
        clf.fit(X, Y)
    with pytest.raises(NotFittedError):
        clf.predict(X)
    assert is_usable()


def test_modules_that_workers_find_and_do_not_find(tmp_path, monkeypatch):
    is_usable()
    (tmp_path / "late_module.py").write_text("def rule(grads, weights): return grads.mean(axis=0)")
    monkeypatch.syspath_prepend(tmp_path)
    late_module = importlib.import_module("late_module")
    clf = MLPClassifier(**SETTINGS, aggregation=late_module.rule).fit(X, Y)
    assert clf.run_.workers == 2
    (tmp_path / "late_module.py").unlink()
    pool.shutdown()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    with pytest.raises(Exception, match=r"a worker could not load what it was sent.*late_module"):
        MLPClassifier(**SETTINGS, aggregation=late_module.rule).fit(X, Y)
    assert is_usable()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_ends_a_fit_at_a_steps_edge(n_jobs):
    driver = os.getpid()

    def interrupt():
        os.kill(driver, signal.SIGINT)

    clf = MLPClassifier(
        **{**SETTINGS, "n_jobs": n_jobs, "max_iter": 10**6}, aggregation=at_call(40, interrupt)
    )
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        clf.fit(X, Y)
    assert clf.run_.reason == "interrupted"
    assert clf.run_.events[0].what == "interrupted"
    assert clf.run_.steps < 10**6
    assert np.isfinite(clf.coefs_[0]).all()
    assert clf.predict(X).shape == (240,)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert is_usable()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_between_two_epochs(n_jobs):
    """As in a step: what was trained is kept."""
    clf = MLPClassifier(**{**SETTINGS, "n_jobs": n_jobs, "max_iter": 10**6})

    def interrupt(epoch, record):
        if epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="Training interrupted by user"):
        clf.fit(X, Y, callback=interrupt)
    assert clf.run_.reason == "interrupted"
    assert clf.n_iter_ == 2


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_between_two_sessions(monkeypatch):
    session = Processes.session

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return session(*args)

    monkeypatch.setattr(Processes, "session", interrupted)
    clf = MLPClassifier(**{**SETTINGS, "n_jobs": 1, "max_iter": 10**6})
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        clf.fit(X, Y, callback=lambda epoch, record: epoch == 2 and clf.resize(2))
    assert clf.run_.reason == "interrupted"
    assert clf.n_iter_ == 2


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_after_the_last_step(tmp_path, monkeypatch, n_jobs):
    save = checkpoint.save

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return save(*args)

    monkeypatch.setattr(checkpoint, "save", interrupted)
    clf = MLPClassifier(**{**SETTINGS, "n_jobs": n_jobs})
    with pytest.warns(UserWarning, match="Ctrl-C came after the last step"):
        clf.fit(X, Y, checkpoint=tmp_path)
    saved = checkpoint.load(tmp_path)
    assert clf.run_.reason == saved.facts["reason"] == "max_epochs"
    assert (clf.n_iter_, saved.step) == (10, clf.run_.steps)
    assert "interrupted" in [event.what for event in clf.run_.events]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("reason", "options", "epochs"),
    [
        ("max_epochs", {}, 10),
        ("loss_threshold", {"loss_threshold": 1e9}, 1),
        ("no_improvement", {"tol": 1e9, "n_iter_no_change": 1}, 3),
    ],
)
def test_ctrl_c_after_the_last_step_is_no_reason(monkeypatch, n_jobs, reason, options, epochs):
    """Right when the workers have answered, before anybody has looked at what came of it."""
    run_lease, heard = Course._run_lease, []

    def interrupted(course):
        found = run_lease(course)
        if found and found[-1].reason is not None:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(Course, "_run_lease", interrupted)
    clf = MLPClassifier(**{**SETTINGS, "n_jobs": n_jobs, **options})
    with pytest.warns(UserWarning, match="Ctrl-C came after the last step"):
        clf.fit(X, Y, callback=lambda epoch, record: heard.append(epoch))
    assert (clf.run_.reason, clf.n_iter_) == (reason, epochs)
    assert heard == list(range(1, epochs + 1))


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_as_an_epoch_ends_comes_after_its_callback(monkeypatch):
    run_lease, heard = Course._run_lease, []

    def interrupted(course):
        found = run_lease(course)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(Course, "_run_lease", interrupted)
    clf = MLPClassifier(**SETTINGS)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        clf.fit(X, Y, callback=lambda epoch, record: heard.append(epoch))
    assert (clf.run_.reason, clf.n_iter_, heard) == ("interrupted", 1, [1])


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_before_the_first_step_leaves_nothing_to_keep(monkeypatch, n_jobs):
    cluster_of = sessions.cluster_of

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return cluster_of(*args)

    monkeypatch.setattr(sessions, "cluster_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MLPClassifier(**{**SETTINGS, "n_jobs": n_jobs}).fit(X, Y)


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_ends_a_callback_at_once():
    def hang(epoch, record):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("still here")

    with pytest.raises(KeyboardInterrupt):
        MLPClassifier(**SETTINGS).fit(X, Y, callback=hang)
    assert is_usable()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_spares_the_workers_of_a_fit_in_another_thread(monkeypatch):
    """It was begun in a callback that the user does not want to wait for."""
    ask, is_in, may_end, others = Crew.ask, threading.Event(), threading.Event(), []
    turns = processes._turns._changed

    def ask_or_be_interrupted(crew, message, *more):
        if message == DropJob() and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        ask(crew, message, *more)

    def press():
        with turns:
            os.kill(os.getpid(), signal.SIGINT)

    def hold(epoch, record):
        is_in.set()
        assert may_end.wait(30)

    def fit_elsewhere(epoch, record):
        others.append(threads.submit(MLPClassifier(**SETTINGS).fit, X, Y, callback=hold))
        assert is_in.wait(30)
        signal.raise_signal(signal.SIGINT)  # the first one is a request
        turns.acquire()  # is given up as this thread begins to wait, and had again afterwards
        threads.submit(press)

    monkeypatch.setattr(Crew, "ask", ask_or_be_interrupted)
    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(KeyboardInterrupt):
            MLPClassifier(**SETTINGS).fit(X, Y, callback=fit_elsewhere)
        turns.release()
        may_end.set()
        other = others[0].result(30).run_
    assert not other.events
    monkeypatch.undo()
    assert other.digest == MLPClassifier(**SETTINGS).fit(X, Y).run_.digest


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_during_lbfgs():
    driver = os.getpid()
    rule = at_call(6, lambda: os.kill(driver, signal.SIGINT))
    clf = MLPClassifier(**{**SETTINGS, "solver": "lbfgs", "max_iter": 500}, aggregation=rule)
    with pytest.warns(UserWarning, match="interrupted"):
        clf.fit(X, Y)
    assert clf.run_.reason == "interrupted"


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_ctrl_c_while_the_record_is_made(monkeypatch, solver):
    """The digest of a large model takes its time."""

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return digest(*args)

    monkeypatch.setattr("phalanx.training.train.digest", interrupted)
    with pytest.warns(UserWarning, match="Ctrl-C came after the last step"):
        clf = MLPClassifier(**{**SETTINGS, "solver": solver}).fit(X, Y)
    assert clf.run_.reason == "max_epochs"
    assert [event.what for event in clf.run_.events] == ["interrupted"]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("n_jobs", "cluster"), [(1, InProcess), (2, Processes)])
def test_ctrl_c_as_the_session_of_lbfgs_closes(monkeypatch, n_jobs, cluster):
    session = cluster.session

    @contextmanager
    def interrupted(*args):
        with session(*args) as opened:
            yield opened
            signal.raise_signal(signal.SIGINT)

    settings = {**SETTINGS, "n_jobs": n_jobs, "solver": "lbfgs"}
    undisturbed = MLPClassifier(**settings).fit(X, Y)
    monkeypatch.setattr(cluster, "session", interrupted)
    with pytest.warns(UserWarning, match="Ctrl-C came after the last step"):
        clf = MLPClassifier(**settings).fit(X, Y)
    assert (clf.run_.reason, clf.run_.digest) == ("max_epochs", undisturbed.run_.digest)
    assert [event.what for event in clf.run_.events] == ["interrupted"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_fits_from_threads_do_not_mix():
    digests = {}

    def fit(seed):
        settings = {**SETTINGS, "random_state": seed}
        digests[seed] = MLPClassifier(**settings).fit(X, Y).run_.digest

    threads = [threading.Thread(target=fit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        alone = MLPClassifier(**{**SETTINGS, "random_state": seed, "n_jobs": 1}).fit(X, Y)
        assert digests[seed] == alone.run_.digest


PROGRAM = """
import os, signal, sys
import numpy as np
from phalanx import MLPClassifier
from phalanx.clusters import pool
from phalanx.testing import Fault, scripted

X = np.random.default_rng(0).normal(size=(240, 6)); y = (X[:, 0] > 0).astype(int)
driver = os.getpid()

class Helper:  # defined in the script itself, which has no main guard
    calls = 0

def rule(grads_Sn, weights_S):
    Helper.calls += 1
    if Helper.calls == 20:
        {action}
    return grads_Sn.mean(axis=0)

MLPClassifier((60,), batch_size=30, shards=4, max_iter=3, n_jobs=2).fit(X, y)
warm = pool.warm_pool()
print(warm._process.pid, *(member.pid for member in warm.members), flush=True)
MLPClassifier((60,), batch_size=30, shards=4, max_iter=10**6, tol=0, n_jobs=2,
              n_iter_no_change=10**6, aggregation=rule).fit(X, y)
"""


@pytest.mark.parametrize(
    "action",
    ["os.kill(driver, signal.SIGKILL)", "os.kill(driver, signal.SIGTERM)"],
    ids=["killed", "terminated"],
)
def test_workers_end_with_the_driver(action):
    program = textwrap.dedent(PROGRAM).format(action=action)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (-signal.SIGKILL, -signal.SIGTERM)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    assert not still_running(pids, within=1)


@pytest.mark.usefixtures("ctrl_c")
def test_a_script_without_a_main_guard_leaves_nothing():
    program = textwrap.dedent(PROGRAM).format(action="os.kill(driver, signal.SIGINT)")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not still_running(map(int, done.stdout.split()), within=1)


def test_a_forked_child_of_the_caller_gets_workers_of_its_own():
    expected = MLPClassifier(**SETTINGS).fit(X, Y).run_.digest
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            digest = MLPClassifier(**SETTINGS).fit(X, Y).run_.digest
            os.write(writer, digest.encode())
            pool.shutdown()
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with os.fdopen(reader) as pipe:
        assert pipe.read() == expected
    assert is_usable()

"""What the user's code finds around it is the same in every process; and what a process leaves to
those that are forked from it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from phalanx import CheckpointError, MLPClassifier, PhalanxError
from phalanx.clusters import pool
from phalanx.clusters.process import TakeJob, Told, _worker
from phalanx.clusters.surroundings import Surroundings
from phalanx.clusters.wire import Packed
from phalanx.training.claim import claimed
from processes import in_a_child

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
X = np.random.default_rng(0).normal(size=(80, 5))
Y = np.arange(80) % 3
SCRIPT = """
import numpy as np
from phalanx import MLPClassifier

def told(grads_Sn, weights_S):
    print("told")
    return grads_Sn.mean(axis=0)

X, y = np.random.default_rng(0).normal(size=(80, 5)), np.arange(80) % 3
clf = MLPClassifier((7,), shards=4, max_iter=1, batch_size=40, random_state=0, n_jobs=N,
                    aggregation=told, tol=0)
clf.fit(X, y)
with open(FILE, "w") as file:
    file.write(clf.run_.digest)
"""


def fit(n_jobs, aggregation):
    clf = MLPClassifier(
        (7,), shards=4, max_iter=2, batch_size=40, random_state=0, n_jobs=n_jobs,
        aggregation=aggregation,
    )  # fmt: skip
    return clf.fit(X, Y).run_.digest


def by_variable(grads_Sn, weights_S):
    return grads_Sn.mean(axis=0) * float(os.environ.get("PHALANX_TEST_SCALE", "1"))


def by_file(grads_Sn, weights_S):
    with open("scale.txt") as file:
        return grads_Sn.mean(axis=0) * float(file.read())


def in_depth(grads_Sn, weights_S):
    return grads_Sn.mean(axis=0) * sys.getrecursionlimit()


def test_warm_workers_have_the_callers_environment(monkeypatch):
    found = []
    for scale in ("3", "2", None):
        if scale is None:
            monkeypatch.delenv("PHALANX_TEST_SCALE")
        else:
            monkeypatch.setenv("PHALANX_TEST_SCALE", scale)
        found.append(fit(2, by_variable))
        assert found[-1] == fit(None, by_variable)
    assert len({*found}) == 3


def test_warm_workers_are_in_the_callers_folder(tmp_path, monkeypatch):
    found = []
    for scale in ("1", "2"):
        folder = tmp_path / scale
        folder.mkdir()
        (folder / "scale.txt").write_text(scale)
        monkeypatch.chdir(folder)
        found.append(fit(2, by_file))
        assert found[-1] == fit(None, by_file)
    assert len({*found}) == 2


def test_warm_workers_have_the_callers_depth():
    before = sys.getrecursionlimit()
    fit(2, in_depth)
    sys.setrecursionlimit(before + 500)
    try:
        assert fit(2, in_depth) == fit(None, in_depth)
    finally:
        sys.setrecursionlimit(before)


def test_a_folder_that_is_gone_is_left(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    here = Surroundings.here()
    assert here.folder is None
    here.take()
    monkeypatch.chdir(tmp_path)
    Surroundings(str(tmp_path / "gone"), here.variables, here.depth).take()
    assert os.getcwd() == str(tmp_path)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("closed", ["", "<&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_streams(tmp_path, n_jobs, closed):
    """What workers print comes out, also where nobody has it unbuffered, and if it cannot, nothing
    else fails."""
    file = tmp_path / "digest"
    (tmp_path / "script.py").write_text(f"N, FILE = {n_jobs}, {str(file)!r}\n{SCRIPT}")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = f"exec {sys.executable} -W ignore {tmp_path / 'script.py'} {closed}"
    ended = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert len(file.read_text()) == 64
    assert ended.stdout.count("told") == 0 if ">&-" in closed else ended.stdout.count("told") >= 2


def test_what_a_worker_was_sent_is_closed_where_it_cannot_take_the_job():
    around = replace(Surroundings.here(), depth=1)
    told = Packed(Told(around, (), None, {}, None, None))
    descriptors = [*os.pipe()]
    with pytest.raises(RecursionError):
        _worker(TakeJob(1, told), descriptors, 0)
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


# -- what a forked child inherits ----------------------------------------------------------------


def test_a_child_keeps_no_end_of_what_leads_to_a_worker():
    """Nor of one that is just being forked: its death would go unseen while the child lives."""
    ends = pool._socket_pair()
    assert in_a_child(lambda: sum(end.fileno() != -1 for end in ends)) == 0
    assert all(end.fileno() > 2 for end in ends)
    for end in ends:
        end.close()


def test_a_child_that_ends_within_a_fit_ends_as_it_would():
    def callback(epoch, record):
        pid = os.fork()
        if pid == 0:
            sys.exit(3)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    statuses, parent = [], os.getpid()
    clf = MLPClassifier((7,), shards=4, max_iter=2, batch_size=40, random_state=0, n_jobs=2)
    try:
        clf.fit(X, Y, callback=callback)
    finally:
        if os.getpid() != parent:
            error = sys.exc_info()[1]
            os._exit(3 if isinstance(error, SystemExit) else 70)
    assert statuses == [3, 3]


def test_a_child_does_not_unlock_the_folder_of_its_parents_checkpoints(tmp_path):
    def leave():
        folder.__exit__(None, None, None)
        return 0

    folder = claimed(tmp_path)
    with folder:
        assert in_a_child(leave) == 0
        with pytest.raises(CheckpointError, match="one training at a time"), claimed(tmp_path):
            pass


# -- fork servers that end -----------------------------------------------------------------------


@pytest.fixture
def fresh():
    pool.shutdown()
    yield pool.warm_pool()
    pool.shutdown()


def test_a_killed_fork_server_is_replaced_where_nobody_may_wait_for_it(fresh):
    """`SIGCHLD` is ignored, so the kernel forgets how it ended."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        fresh._process.kill()
        (member,) = fresh.take(1)
        assert member.pid > 0
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_fork_server_that_answers_too_late_is_replaced(fresh, tmp_path, monkeypatch):
    marker = tmp_path / "loaded"
    slow = f"""
    import os, signal
    if not os.path.exists({str(marker)!r}):
        open({str(marker)!r}, "w").close()
        signal.pause()
    """
    (tmp_path / "slow_at_first.py").write_text(textwrap.dedent(slow))
    fresh.take(1)
    monkeypatch.syspath_prepend(tmp_path)
    fresh = pool.warm_pool()  # with that path
    fresh.take(1)
    fresh._server.settimeout(0.2)
    fresh.load(("slow_at_first",))
    assert marker.exists()
    members = fresh.take(2)
    assert [member.rank for member in members] == [0, 1]
    assert all(member.pid > 1 for member in members)


def test_whoever_ends_after_the_pool_is_buried_already(fresh):
    (member,) = fresh.take(1)
    pool.shutdown()
    assert "fork server" in fresh.bury(member)


@pytest.fixture
def crowded(fresh, tmp_path, monkeypatch):
    """A pool whose fork server finds no room for a process, so many times."""

    def made(refusals, patience):
        code = f"""
        import os
        from phalanx.clusters import forkserver
        forkserver.FORK_PATIENCE = {patience}
        refusals, fork = iter(range({refusals})), os.fork
        def crowded():
            if next(refusals, None) is None:
                return fork()
            raise BlockingIOError(11, "Resource temporarily unavailable")
        os.fork = crowded
        """
        (tmp_path / "crowded.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(tmp_path)
        warm = pool.warm_pool()  # with that path
        warm.load(("crowded",))
        return warm

    return made


def test_a_worker_is_forked_once_there_is_room_for_it(crowded):
    (member,) = crowded(refusals=2, patience=60).take(1)
    assert member.pid > 1


@pytest.mark.parametrize("is_another", [False, True], ids=["the first", "another"])
def test_where_there_is_no_room_for_a_fork_server_it_is_said(is_another, fresh, monkeypatch):
    def crowded(*command, **options):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    if is_another:
        fresh._process.kill()
        fresh._process.wait()
    else:
        pool.shutdown()
    with monkeypatch.context() as patched:
        patched.setattr(pool.subprocess, "Popen", crowded)
        with pytest.raises(PhalanxError, match=r"fork server .*no room for one more process"):
            (fresh if is_another else pool.warm_pool()).take(1)
    assert pool.warm_pool().take(1)


def test_a_fork_server_that_cannot_be_started_at_all(fresh, monkeypatch):
    pool.shutdown()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        pool.warm_pool()


def test_where_there_is_no_room_for_a_worker_it_is_said(crowded, capfd):
    with pytest.raises(PhalanxError, match=r"no room for one more process .*unavailable"):
        crowded(refusals=10**9, patience=0).take(1)
    assert capfd.readouterr().err == "", "the fork server has ended in order"

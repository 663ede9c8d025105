"""Workers that come, go, are late or are many: by wish of the user, or by trying."""

from __future__ import annotations

import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import psutil
import pytest
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning

from phalanx import InvalidInput, MLPClassifier
from phalanx.clusters import pool
from phalanx.testing import Fault, Slow, scripted

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(11)
X = RNG.normal(size=(240, 6))
Y = (X[:, 0] > 0).astype(int)
SETTINGS = dict(
    hidden_layer_sizes=(40, 800), batch_size=24, shards=8, max_iter=8, random_state=1, tol=0,
    n_iter_no_change=1000,
)  # fmt: skip
STEPS = 80


@cache
def undisturbed(**more):
    return MLPClassifier(**{**SETTINGS, **more}).fit(X, Y).run_


def kinds(run):
    return [event.what for event in run.events]


@pytest.mark.parametrize("what", ["replaced", "deleted"])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_who_joins_reads_the_file_that_the_caller_has_mapped(tmp_path, what, is_sparse):
    """Whatever has its name by then."""
    path, csr = tmp_path / "x.npy", csr_matrix(X)
    np.save(path, csr.data if is_sparse else X)
    mapped = np.load(path, mmap_mode="r")
    x = csr_matrix((mapped, csr.indices, csr.indptr), X.shape) if is_sparse else mapped

    def callback(epoch, record):
        if epoch == 2:
            path.unlink()
            if what == "replaced":
                np.save(path, np.zeros_like(mapped))
            clf.resize(4)

    clf = MLPClassifier(**SETTINGS, n_jobs=2)
    run = clf.fit(x, Y, callback=callback).run_
    assert "worker joined" in kinds(run)
    base = MLPClassifier(**SETTINGS).fit(csr if is_sparse else X, Y).run_
    assert run.digest == base.digest


@pytest.mark.parametrize("n_jobs", [None, 1, 2, 5])
@pytest.mark.parametrize("wishes", [[2, 4, 1, 3, 8, 2], [1] * 6, [8, 1] * 3])
def test_resized_from_a_callback(n_jobs, wishes):
    clf = MLPClassifier(**SETTINGS, n_jobs=n_jobs)

    def callback(epoch, record):
        if epoch <= len(wishes):
            clf.resize(wishes[epoch - 1])

    run = clf.fit(X, Y, callback=callback).run_
    assert run.digest == undisturbed().digest
    assert run.losses == undisturbed().losses
    if set(wishes) != {1} or n_jobs not in (None, 1):
        assert run.workers > 1


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_resized_from_another_thread(n_jobs):
    long = {"max_iter": 150}
    clf, is_running, wished = (
        MLPClassifier(**{**SETTINGS, **long}, n_jobs=n_jobs),
        threading.Event(),
        [],
    )
    record = {}

    def order(epoch):  # called in the workers; in the caller's process where it is the only one
        return np.arange(epoch.n_samples)

    def fit():
        clf.fit(X, Y, callback=lambda epoch, _: is_running.set())
        record["run"] = clf.run_

    thread = threading.Thread(target=fit)
    thread.start()
    assert is_running.wait(30)
    for n_workers in (3, 1, 4, 2):
        try:
            clf.resize(n_workers)
        except InvalidInput:
            break  # it was quicker than we are
        wished.append(n_workers)
    thread.join(60)
    assert not thread.is_alive()
    assert wished
    assert record["run"].digest == undisturbed(**long).digest


def test_a_wish_beyond_the_seats_is_cut_and_said():
    clf = MLPClassifier(**SETTINGS, n_jobs=2)
    run = clf.fit(X, Y, callback=lambda epoch, record: clf.resize(1000)).run_
    assert run.digest == undisturbed().digest
    changed = [event.detail for event in run.events if event.what == "workers changed"]
    assert changed == ["2 before, 8 from now on"]


@pytest.mark.parametrize("n_jobs", [None, "auto"])
def test_a_wish_for_more_than_there_is_work_for_changes_nothing(n_jobs):
    small = {**SETTINGS, "hidden_layer_sizes": (9,), "shards": 1}
    clf = MLPClassifier(**small, n_jobs=n_jobs)
    run = clf.fit(X, Y, callback=lambda epoch, record: clf.resize(epoch)).run_
    assert (run.blocks, run.workers) == (1, 1)
    assert "workers changed" not in kinds(run)


@pytest.mark.parametrize("wish", [0, -1, 1.5, True, "2", None])
def test_bad_wishes(wish):
    clf = MLPClassifier(**SETTINGS, n_jobs=2)
    with pytest.raises(InvalidInput, match="number of workers must be an integer at least 1"):
        clf.fit(X, Y, callback=lambda epoch, record: clf.resize(wish))


def test_a_wish_may_be_a_number_of_numpy():
    clf = MLPClassifier(**SETTINGS)
    run = clf.fit(X, Y, callback=lambda epoch, record: clf.resize(np.int64(2))).run_
    assert run.workers == 2
    assert run.digest == undisturbed().digest


def test_a_wish_when_nothing_runs():
    clf = MLPClassifier(**SETTINGS)
    with pytest.raises(InvalidInput, match="none is"):
        clf.resize(2)
    clf.fit(X, Y)
    with pytest.raises(InvalidInput, match="none is"):
        clf.resize(2)


def test_a_callback_ends_a_fit_by_returning_true():
    clf = MLPClassifier(**SETTINGS, n_jobs=2).fit(X, Y, callback=lambda epoch, record: epoch == 3)
    assert clf.n_iter_ == 3
    assert clf.run_.reason == "callback"


def test_auto_gives_the_same_answer_and_says_what_it_tried():
    long = {"max_iter": 150}
    run = MLPClassifier(**{**SETTINGS, **long}, n_jobs="auto").fit(X, Y).run_
    assert run.digest == undisturbed(**long).digest


@pytest.mark.parametrize("assignment", ["round_robin", "load_balanced", "dynamic"])
def test_a_slow_worker_changes_nothing(assignment):
    with scripted(Slow(worker=1, factor=6)):
        run = MLPClassifier(**SETTINGS, task_assignment=assignment, n_jobs=2).fit(X, Y).run_
    assert run.digest == undisturbed().digest
    if assignment != "round_robin":
        assert run.shares[1] < 0.4


def shards_alone(n_tasks, speeds):
    """The shards are divided, the blocks are all the first worker's: there are fewer of them."""
    return [task % len(speeds) if n_tasks == 8 else 0 for task in range(n_tasks)]


def test_a_stopped_worker_that_owns_no_block_keeps_nobody_waiting():
    with scripted(*(Fault(1, step, "compute", "stop") for step in range(3, 60))):
        run = MLPClassifier(**SETTINGS, task_assignment=shards_alone, n_jobs=2).fit(X, Y).run_
    assert run.digest == undisturbed().digest
    stuck = [event.step for event in run.events if event.what == "worker stuck"]
    assert stuck == [STEPS]  # missed only when all was done and its answer was asked for
    assert run.shares[0] > 0.6


def test_more_workers_than_processors_and_deaths():
    with scripted(*(Fault(w, 3 + w, "enter") for w in range(8))):
        run = MLPClassifier(**SETTINGS, n_jobs=8).fit(X, Y).run_
    assert run.digest == undisturbed().digest
    assert kinds(run).count("worker lost") >= 4  # who lags may skip the very step


def test_a_callback_beside_verbose_and_a_copy_made_in_it(capsys):
    copies = []
    clf = MLPClassifier(**SETTINGS, n_jobs=2, verbose=True)
    clf.fit(X, Y, callback=lambda epoch, record: copies.append(pickle.dumps(clf)) or epoch == 2)
    assert "Iteration 2, loss" in capsys.readouterr().out
    assert [pickle.loads(copy).n_jobs for copy in copies] == [2, 2]


@pytest.mark.parametrize(("outer", "inner"), [(1, 2), (2, 1), (2, 2)])
def test_a_fit_in_the_callback_of_a_fit(outer, inner):
    """The callers of both wait in one thread, so the inner one cannot wait for the outer one."""
    found = []

    def fit_another(epoch, record):
        if epoch == 2:
            found.append(MLPClassifier(**SETTINGS, n_jobs=inner).fit(X, Y).run_.digest)
            found.append(MLPClassifier(**SETTINGS, n_jobs=inner).fit(X, Y).run_.digest)

    around = MLPClassifier(**SETTINGS, n_jobs=outer).fit(X, Y, callback=fit_another)
    alone = MLPClassifier(**SETTINGS, n_jobs=1).fit(X, Y).run_.digest
    assert [around.run_.digest, *found] == [alone] * 3


@pytest.mark.parametrize("inner", [1, 2, 4])
def test_a_fit_in_a_thread_that_a_callback_waits_for(inner):
    found = []

    def fit_elsewhere(epoch, record):
        if epoch in (2, 3):
            with ThreadPoolExecutor(2) as threads:
                fits = [threads.submit(MLPClassifier(**SETTINGS, n_jobs=inner).fit, X, Y)]
                fits += [threads.submit(MLPClassifier(**SETTINGS, n_jobs=2).fit, X, Y)]
                found.extend(fit.result().run_.digest for fit in fits)

    around = MLPClassifier(**SETTINGS, n_jobs=2).fit(X, Y, callback=fit_elsewhere)
    alone = MLPClassifier(**SETTINGS, n_jobs=1).fit(X, Y).run_.digest
    assert [around.run_.digest, *found] == [alone] * 5


def test_a_worker_lost_around_a_fit_in_a_callback():
    """What happens to the outer workers meanwhile is found out afterwards."""

    def fit_another(epoch, record):
        if epoch == 2:
            MLPClassifier(**SETTINGS, n_jobs=2).fit(X, Y)
            psutil.Process(pool._pool.members[1].pid).kill()

    around = MLPClassifier(**SETTINGS, n_jobs=2).fit(X, Y, callback=fit_another)
    assert around.run_.digest == MLPClassifier(**SETTINGS, n_jobs=1).fit(X, Y).run_.digest
    assert [event.worker for event in around.run_.events if event.what == "worker lost"] == [1]


def test_fits_in_a_callback_have_the_same_workers_until_the_outer_one_ends():
    seen, fits = [], []

    def note(epoch, record):
        seen.append([member.pid for member in pool._pool.members])

    def fit_another(epoch, record):
        if epoch == 5:
            psutil.Process(seen[-1][0]).kill()  # while they have nothing to do
        MLPClassifier(**SETTINGS, n_jobs=2).fit(X, Y, callback=note)
        fits.append(seen[-1])

    MLPClassifier(**SETTINGS, n_jobs=2).fit(X, Y, callback=fit_another)
    assert fits == [fits[0]] * 4 + [fits[4]] * 4
    assert fits[0] != fits[4]
    assert not any(psutil.pid_exists(pid) for pid in fits[0] + fits[4])
    assert pool._pool.is_sound(), "those of the outer one stay"


def test_workers_forked_before_a_library_was_loaded_are_replaced():
    """They would each have to load it for themselves."""
    fit = MLPClassifier(**SETTINGS, n_jobs=2).fit
    first = fit(X, Y).run_
    before = [member.pid for member in pool._pool.members]
    with pool.further_pool() as other:
        other.load(("colorsys",))
        assert [member.pid for member in pool._set_aside[0].members] == before, "of another job"
    pool.end_further_pools()
    pool._pool.load(("colorsys",))
    assert not any(psutil.pid_exists(pid) for pid in before)
    second = fit(X, Y).run_
    after = [member.pid for member in pool._pool.members]
    pool._pool.load(("colorsys",))
    assert [member.pid for member in pool._pool.members] == after
    assert second.digest == first.digest
    assert not second.events


def test_many_predictions_in_the_callback_of_a_fit():
    known = MLPClassifier(**SETTINGS, n_jobs=2).fit(X, Y)
    many = np.tile(X, (200, 1))
    seen = []
    MLPClassifier(**SETTINGS, n_jobs=2).fit(
        X, Y, callback=lambda *_: seen.append(known.predict(many).sum())
    )
    assert len(set(seen)) == 1


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_estimator_is_fitted_by_one_call_at_a_time(n_jobs):
    clf = MLPClassifier(**SETTINGS, n_jobs=n_jobs)
    refused = []

    def again(fit):
        try:
            fit(X, Y)
        except InvalidInput as error:
            refused.append(str(error))

    def callback(epoch, record):
        if epoch == 2:
            again(clf.fit)
            other = threading.Thread(target=again, args=(clf.partial_fit,))
            other.start()
            other.join()

    assert clf.fit(X, Y, callback=callback).run_.digest == undisturbed().digest
    assert len(refused) == 2
    assert all("one call at a time" in message for message in refused)
    assert clf.fit(X, Y).run_.digest == undisturbed().digest


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"solver": "adam"}, [ConvergenceWarning]),
        ({"solver": "lbfgs"}, [ConvergenceWarning]),
        ({"batch_size": 10**6}, [UserWarning, ConvergenceWarning]),
    ],
)
def test_a_warning_points_at_the_users_call(options, kinds):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MLPClassifier((3,), max_iter=2, random_state=0, **options).fit(X, Y)
    assert [each.category for each in caught] == kinds
    assert {each.filename for each in caught} == {__file__}

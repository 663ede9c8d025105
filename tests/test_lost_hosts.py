"""A host that is lost at any operation of its group: the others give the answer of one host, and
the caller hears of every epoch once."""

import warnings
from threading import Thread, get_ident

import numpy as np
import pytest

import phalanx
import ray_in_threads
from phalanx.clusters.ray.host import Host
from phalanx.engine.courier import Courier
from phalanx.errors import HostLost, InvalidInput
from phalanx.exchange.board import OPENED
from phalanx.pure.aggregation import mean
from phalanx.training import sessions
from phalanx.training.sessions import Sessions, in_one_thread
from ray_in_threads import Loss, Threads

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


def fitted(cluster=None, **options):
    settings = {"max_iter": 2, "batch_size": 32, "shards": 4, "random_state": 0, "n_jobs": 1}
    told = []
    clf = phalanx.MLPClassifier((5,), **settings | options)
    clf.fit(X, Y, cluster=cluster, callback=lambda epoch, record: told.append(epoch))
    return clf.run_, told


@pytest.fixture(params=[-1, 10**9], ids=["divided", "undivided"])
def blocks(request, monkeypatch):
    """Whether hosts divide the blocks, small as this network is."""
    monkeypatch.setattr("phalanx.pure.hosts.MESSAGE_BYTES", request.param)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("heard", [(), (1,)])
@pytest.mark.parametrize("options", [{}, {"early_stopping": True, "batch_size": 57}])
def test_whenever_a_host_is_lost(options, heard, replaces):
    alone, told = fitted(**options)
    for nth in range(1, 200):
        cluster = Threads(hosts=3, losses=(Loss(0, nth, heard),), replaces=replaces)
        run, heard_of = fitted(cluster, **options)
        assert (run.digest, heard_of, run.losses) == (alone.digest, told, alone.losses), nth
        digests = {found.run.digest for found in cluster.outcome["results"].values()}
        assert (digests, cluster.outcome["errors"]) == ({alone.digest}, {}), nth
        if 0 in cluster.outcome["results"]:
            return
    pytest.fail("the host was lost each time")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_two_are_lost_one_while_the_others_meet_again():
    alone, _ = fitted()
    for nth in range(18, 30):
        losses = Loss(0, 18), Loss(1, nth)
        run, _ = fitted(Threads(hosts=3, losses=losses, replaces=True))
        assert run.digest == alone.digest, nth


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_host_has_begun_once_it_has_the_state_though_it_has_no_workers_yet(monkeypatch):
    """Else the driver takes it for lost with the one that gave it the state."""
    begun, hand_over, cluster_of = [], sessions.hand_over, sessions.cluster_of
    host = Host(1.0)

    def giving(*given):
        begun.append(host.has_begun())
        return hand_over(*given)

    def starting(*workers):
        begun.append(host.has_begun())
        return cluster_of(*workers)

    monkeypatch.setattr(sessions, "hand_over", giving)
    monkeypatch.setattr(sessions, "cluster_of", starting)
    monkeypatch.setattr(ray_in_threads, "Control", lambda workers: host.control)
    fitted(Threads(hosts=2))
    assert begun == [False, False, True, True]


@pytest.mark.filterwarnings("ignore:Training interrupted:UserWarning")
def test_who_is_interrupted_as_a_host_is_lost_ends_the_next_session(monkeypatch):
    next_group = Sessions.next_group

    def interrupted(sessions, *more):
        sessions.interrupt()
        return next_group(sessions, *more)

    monkeypatch.setattr(Sessions, "next_group", interrupted)
    run, _ = fitted(Threads(hosts=3, losses=(Loss(0, 18),), replaces=True), max_iter=50)
    assert run.reason == "interrupted"
    assert run.steps < 10  # of 100


threads: list[int] = []


def unlike(grads_Sn, weights_S):
    """An aggregation that is another one on each host, under the same name."""
    threads.append(get_ident())
    return mean(grads_Sn, weights_S) * (1 if get_ident() == threads[0] else 2)


def test_where_warnings_are_errors_the_caller_has_what_hosts_learnt_that_differ(monkeypatch):
    monkeypatch.setattr("phalanx.pure.hosts.MESSAGE_BYTES", 10**9)
    threads.clear()
    clf = phalanx.MLPClassifier((5,), max_iter=2, shards=4, n_jobs=1, aggregation=unlike)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="the hosts came to different weights"):
            clf.fit(X, Y, cluster=Threads(hosts=2))
    assert clf.run_.digest
    assert clf.predict(X).shape == Y.shape


def test_a_loss_while_this_host_updates_waits_for_the_next_exchange():
    class Door:
        reads = 0

        def __getitem__(self, word):
            self.reads += 1
            return 3 if word == OPENED and self.reads > 50 else 0

    class Lost:
        def check(self):
            raise HostLost(1, "was replaced by another group")

    courier = Courier.__new__(Courier)
    courier.door, courier.group = Door(), Lost()
    courier._wait_until_open(3)  # workers are at tick 2, which all hosts have exchanged


def test_other_threads_do_not_speak_with_hosts_that_train():
    class Talk:
        pass

    group, refused = Talk(), []

    def other():
        with pytest.raises(InvalidInput, match="fits come one after another"), in_one_thread(group):
            pass
        refused.append(True)

    with in_one_thread(group), in_one_thread(group):  # a fit in a callback
        thread = Thread(target=other)
        thread.start()
        thread.join()
    assert refused
    with in_one_thread(group), in_one_thread(None):
        pass

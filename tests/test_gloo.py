"""Waiting for gloo's operations: one that ends just as a look's time is up has not failed; and for
what is made of connections."""

import signal
import sys
import threading
from threading import Event

import pytest

torch = pytest.importorskip("torch")

from phalanx.clusters.hosts import beats, gloo, left_groups, meeting  # noqa: E402
from phalanx.clusters.hosts.gloo import _Pending  # noqa: E402 - torch is an extra
from phalanx.clusters.hosts.launch import Launch  # noqa: E402
from phalanx.clusters.hosts.launched import Launched  # noqa: E402
from phalanx.clusters.hosts.left_groups import give_back  # noqa: E402
from phalanx.clusters.hosts.talking import gather  # noqa: E402
from phalanx.errors import HostLost, PhalanxError  # noqa: E402
from phalanx.pure.hosts import Place  # noqa: E402
from processes import in_a_child  # noqa: E402


class Work:
    """Of torch's kind: `wait` raises when its time is up, and when the operation has failed."""

    def __init__(self, fails, ends_in_wait):
        self.fails, self.ends_in_wait, self.waits = fails, ends_in_wait, 0

    def is_completed(self):
        return self.waits >= self.ends_in_wait

    def wait(self, time):
        was_over = self.is_completed()
        self.waits += 1
        if not was_over:
            raise RuntimeError("the time is up")
        if self.fails:
            raise RuntimeError("the connection was closed")


class Beats:
    def check(self):
        pass

    def lost(self, why):
        return HostLost(1, why)


@pytest.mark.parametrize("ends_in_wait", [0, 1, 3])
def test_an_operation_is_done(ends_in_wait):
    looks, done = [], []
    pending = _Pending(Work(False, ends_in_wait), (), Beats(), lambda: done.append(1))
    pending.wait(lambda: looks.append(1))
    assert len(looks) == ends_in_wait
    pending.wait(lambda: looks.append(1))
    assert done == [1]


@pytest.mark.parametrize("ends_in_wait", [0, 1, 3])
def test_an_operation_fails(ends_in_wait):
    pending = _Pending(Work(True, ends_in_wait), (), Beats(), lambda: None)
    with pytest.raises(HostLost, match="the connection was closed"):
        pending.wait(lambda: None)
    assert pending.is_done


def test_what_is_stuck_is_given_back_later(monkeypatch):
    """Not by waiting for it; and kept for gloo's thread, should the process end before."""
    given_back = []

    class Group:
        def shutdown(self):
            given_back.append(self)

    stuck, free, last = Group(), Group(), Group()
    tensor = torch.zeros(1)
    pending = _Pending(Work(False, ends_in_wait=3), (tensor,), Beats(), lambda: None)
    monkeypatch.setattr(left_groups, "_left", [])
    give_back(stuck, [pending])
    give_back(free, [])
    assert given_back == [free]
    (view,) = pending.views
    assert view._base is tensor
    before = sys.getrefcount(view), sys.getrefcount(stuck)
    left_groups._abandon_left()
    assert (sys.getrefcount(view), sys.getrefcount(stuck)) == tuple(n + 1 for n in before)
    give_back(last, [])
    assert given_back == [free, stuck, last]
    assert not left_groups._left


def test_two_threads_that_leave_give_each_group_back_once(monkeypatch):
    given_back = []

    class Group:
        def shutdown(self):
            given_back.append(self)

    class First(Group):
        def shutdown(self):
            super().shutdown()
            if other.ident is None:
                other.start()
                other.join(0.2)  # it waits for me

    first, second = First(), Group()
    other = threading.Thread(target=give_back, args=(second, []))
    monkeypatch.setattr(left_groups, "_left", [])
    give_back(first, [])
    other.join()
    assert given_back == [first, second]
    assert not left_groups._left


def ends_by_itself(function):
    """Whether a forked child that calls a function ends; a stuck one is ended."""

    def call():
        signal.alarm(20)
        function()
        return 0

    return in_a_child(call) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_leaves_what_others_were_giving_back_to_its_parent(monkeypatch):
    class Group:
        def shutdown(self):
            assert self is own, "the child has none of the threads of another"

    own = Group()
    monkeypatch.setattr(left_groups, "_left", [(Group(), [])])
    with left_groups._giving:
        assert ends_by_itself(lambda: give_back(own, []))


@pytest.fixture(scope="module")
def group_of_one():
    """Makes one."""

    def make():
        listener = meeting.listening("127.0.0.1", 0)
        how = Launch(Place(0, 1), "127.0.0.1", listener.getsockname()[1])
        return meeting.meet(how, listener)

    make().leave()  # from the first one on torch has a pipe
    return make


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_the_threads_of_its_parents_group(group_of_one):
    hosts = Launched()
    hosts._group = group_of_one()
    assert ends_by_itself(hosts.forget)
    assert gather(hosts._group, "it goes on", 1) == [1]
    hosts._leave()


def test_a_group_whose_signs_of_life_find_no_thread_is_left(group_of_one, monkeypatch):
    def failing(thread):
        if thread.name == "phalanx-beats":
            raise RuntimeError("can't start new thread")
        start(thread)

    given_back, start = [], threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", failing)
    monkeypatch.setattr(gloo, "give_back", lambda *group: given_back.append(group))
    with pytest.raises(PhalanxError, match="no room for one more"):
        group_of_one()
    ((group, operations),) = given_back
    give_back(group, operations)


def test_where_there_is_no_thread_for_a_meeting_or_for_signs_of_life_it_is_said(monkeypatch):
    def failing(thread):
        raise RuntimeError("can't start new thread")

    signs = beats.Beats(Place(0, 2), torch.distributed.HashStore(), 20.0)
    monkeypatch.setattr(threading.Thread, "start", failing)
    with pytest.raises(PhalanxError, match="no room for one more"):
        meeting._within(60.0, pytest.fail, HostLost(None, ""))
    with pytest.raises(PhalanxError, match="no room for one more"):
        signs.start()
    signs.close()


def test_what_is_made_too_late_is_left(monkeypatch):
    monkeypatch.setattr(meeting, "GRACE", 0.0)
    answers, is_left = Event(), Event()
    made = object()

    def make():
        assert answers.wait(60)
        return made

    def leave(what):
        assert what is made
        is_left.set()

    with pytest.raises(HostLost, match="did not connect"):
        meeting._within(0.0, make, HostLost(None, "did not connect"), leave)
    answers.set()
    assert is_left.wait(60)


def test_what_fails_too_late_fails_alone(monkeypatch):
    monkeypatch.setattr(meeting, "GRACE", 0.0)
    answers = Event()

    def make():
        assert answers.wait(60)
        raise RuntimeError("the connection was closed")

    before = set(threading.enumerate())
    with pytest.raises(HostLost, match="did not connect"):
        meeting._within(0.0, make, HostLost(None, "did not connect"))
    (late,) = set(threading.enumerate()) - before
    answers.set()
    late.join(60)  # what it raised would be a warning


def test_what_is_made_in_time_is_kept():
    assert meeting._within(60.0, lambda: "a group", HostLost(None, ""), pytest.fail) == "a group"

    def make():
        raise RuntimeError("the connection was closed")

    with pytest.raises(RuntimeError, match="the connection was closed"):
        meeting._within(60.0, make, HostLost(None, ""), pytest.fail)

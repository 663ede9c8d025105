"""Hosts on Ray as threads of this process, one of which may be lost at any operation of its group.

A group loses a host where the script says so: before the n-th operation that the host takes part
in, or after it, when some of the others have got their part of it and some have not.
"""

from __future__ import annotations

import pickle
import threading
import time
from dataclasses import dataclass, field, replace

import phalanx
from memory_group import MemoryGroup
from phalanx.clusters.control import Control
from phalanx.clusters.ray.driver import Driver
from phalanx.clusters.ray.host import Agenda, Follower
from phalanx.errors import HostLost
from phalanx.pure.hosts import Place


class Killed(BaseException):
    """Of the thread that is a lost host."""


@dataclass(frozen=True)
class Loss:
    """Host `host` is lost at its `nth` operation. heard: the others that still get its part."""

    host: int
    nth: int
    heard: tuple[int, ...] = ()


class Net:
    """What the hosts of one group have sent each other."""

    def __init__(self, names):
        self.names, self.dead, self.sent = names, set(), {}
        self.cond = threading.Condition()


class ThreadGroup(MemoryGroup):
    """A host that is lost takes its thread along."""

    def __init__(self, net, member, place):
        self.net, self.member, self.place, self._count = net, member, place, 0

    def check(self):
        pass

    def failed(self, why):
        with self.net.cond:
            self.net.dead.add(self.place.host)
            self.net.cond.notify_all()

    def _send(self, kind, told):
        at, self._count = self._count, self._count + 1
        loss = self.member.next_loss()
        with self.net.cond:
            heard = self.net.names if loss is None else loss.heard
            self.net.sent[at, self.place.host] = told, heard
            if loss is not None:
                self.net.dead.add(self.place.host)
            self.net.cond.notify_all()
        if loss is not None:
            raise Killed
        return at

    def _receive(self, at, kind, look):
        got, net = [None] * self.place.count, self.net
        for host in range(self.place.count):
            with net.cond:
                while True:
                    told, heard = net.sent.get((at, host), (None, ()))
                    if self.member.name in heard:
                        got[host] = told
                        break
                    if net.dead:
                        raise HostLost(host, "is gone")
                    net.cond.wait(0.5)
        return got


class Hall:
    """Where hosts wait for their next group: until all who live have come."""

    def __init__(self, caller):
        self.caller, self.cond = caller, threading.Condition()
        self.living, self.waiting, self.groups = [], {}, {}
        self.results, self.errors, self.n_groups = {}, {}, 0

    def come(self, member):
        with self.cond:
            self.waiting[member.name] = member
            self._form()
            while member.name not in self.groups:
                if not self.cond.wait(20):
                    raise HostLost(None, "nobody came")
            return self.groups.pop(member.name)

    def leave(self, member):
        with self.cond:
            self.living.remove(member.name)
            self._form()

    def _form(self):
        if not self.living or set(self.waiting) != set(self.living):
            return
        names, members = zip(*sorted(self.waiting.items()), strict=True)
        self.waiting, self.n_groups = {}, self.n_groups + 1
        net = Net(names)
        for host, member in enumerate(members):
            place = Place(host, len(members))
            member.is_first = place.is_first
            alone = place.is_alone
            self.groups[member.name] = None if alone else ThreadGroup(net, member, place)
        self.cond.notify_all()


class Member:
    """See clusters/hosts/launched.py: Hosts. Asks the caller as an actor of Ray's would."""

    def __init__(self, hall, name, losses):
        self.hall, self.name, self._losses, self._count = hall, name, losses, 0
        self.is_first, self.control = False, Control(1)

    def next_loss(self):
        self._count += 1
        return next((loss for loss in self._losses if loss.nth == self._count), None)

    def join(self):
        return self.hall.come(self)

    def next(self, group, lost):
        if group is not None:
            group.net.dead.add(group.place.host)  # whoever still waits for it
            with group.net.cond:
                group.net.cond.notify_all()
        return self.hall.come(self)

    def ask(self, what, told):
        return self.hall.caller(what, told) if self.is_first else None

    def tell(self, what, told):
        self.ask(what, told)


class Caller:
    """The driver's answers, without Ray."""

    def __init__(self, following):
        self.driver = Driver.__new__(Driver)
        self.driver.following, self.driver._values_XN = following, None
        saved = following.resume
        epochs = len(saved.facts["records"]) if saved else 0
        self.driver._epoch, self.driver._known_settings = (epochs, (False, None)), (-1, None)
        self.lock = threading.Lock()

    def __call__(self, what, told):
        driver = self.driver
        with self.lock:
            if what == "show":
                return driver._show(*told)
            return driver._end_epoch(told) if what == "epoch" else driver._settings(told)


@dataclass(frozen=True)
class Threads(phalanx.RayCluster):
    """So many hosts with one worker each. replaces: whether another one comes for one lost."""

    losses: tuple[Loss, ...] = ()
    replaces: bool = False
    outcome: dict = field(default_factory=dict)

    @property
    def n_workers(self):
        return 1

    def train(self, train, *training):
        *arguments, following = training
        hall = Hall(Caller(following))
        packed = pickle.dumps(arguments)
        threads = []

        def host(member):
            mine = replace(
                following, hosts=member, control=member.control, cluster=None, watch=None,
                on_event=None,
            )  # fmt: skip
            follower = Follower(member)
            mine.on_epoch = follower.on_epoch if following.on_epoch else None
            mine.mirror = follower if following.mirror else None
            agenda = following.agenda
            mine.agenda = None if agenda is None else Agenda(follower, agenda.changes)
            try:
                hall.results[member.name] = train(*pickle.loads(packed), mine)
            except Killed:
                if self.replaces:
                    start(member.name + 100, ())
            except BaseException as error:
                hall.errors[member.name] = error
            hall.leave(member)

        def start(name, losses):
            hall.living.append(name)
            thread = threading.Thread(target=host, args=(Member(hall, name, losses),), daemon=True)
            threads.append(thread)
            thread.start()

        with hall.cond:
            for name in range(self.hosts):
                start(name, tuple(loss for loss in self.losses if loss.host == name))
        until = time.monotonic() + 60
        for thread in threads:  # which may grow
            thread.join(max(0.0, until - time.monotonic()))
            assert not thread.is_alive(), "a host hangs"
        self.outcome.update(results=hall.results, errors=hall.errors, groups=hall.n_groups)
        if not hall.results:
            raise next(iter(hall.errors.values()))
        return next(iter(hall.results.values()))

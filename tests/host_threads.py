"""Hosts that are threads of one process, and a group for them that can be made to fail."""

from __future__ import annotations

import threading
from dataclasses import replace

from memory_group import MemoryGroup
from phalanx.errors import HostLost
from phalanx.pure.hosts import Place
from phalanx.pure.stopping import Progress
from phalanx.training.following import Following
from phalanx.training.train import train

LONG = 30


class Table:
    """Where the hosts of one group lay what they send, by the number of the operation."""

    def __init__(self, count, fails=()):
        self.count, self.fails = count, set(fails)  # (host, number of the operation)
        self.news = threading.Condition()
        self.laid = {}
        self.is_broken = False

    def groups(self):
        return [TableGroup(self, Place(host, self.count)) for host in range(self.count)]

    def lay(self, number, host, what):
        with self.news:
            self.laid.setdefault(number, {})[host] = what
            self.news.notify_all()

    def close(self):
        """A host has gone: operations that it has no part in yet will never be done."""
        with self.news:
            self.is_broken = True
            self.news.notify_all()


class TableGroup(MemoryGroup):
    """At an operation that fails on a host, this host loses the others."""

    def __init__(self, table, place):
        self.table, self.place, self.n_calls, self.told = table, place, 0, None

    def check(self):
        if self.table.is_broken:
            raise HostLost(None, "is gone")

    def failed(self, why):
        self.told = why
        self.table.close()

    def _send(self, kind, told):
        self.n_calls += 1
        self.table.lay(self.n_calls, self.place.host, (kind, told))
        return self.n_calls

    def _receive(self, number, kind, look):
        table = self.table
        if (self.place.host, number) in table.fails:
            raise HostLost(None, f"is gone at operation {number}")
        with table.news:
            while len(laid := table.laid[number]) < table.count:
                if table.is_broken:
                    raise HostLost(None, "is gone")
                look()
                table.news.wait(0.01)
        assert {kind for kind, _ in laid.values()} == {kind}, "all call the same in one order"
        return [laid[host][1] for host in range(table.count)]


class ThreadHosts:
    """See clusters/hosts/launched.py: Hosts. After a loss, the first `left` hosts of all train on.

    fails: for each group in turn, which hosts lose it at which operations.
    """

    def __init__(self, count, fails=(), left=None):
        self._fails = [*fails]
        self._at = threading.Condition()
        self._left = list(range(count if left is None else left))
        self._came: list[int] = []
        self._round = 0
        self._table = self._next(count)
        self.tables = [self._table]

    def _next(self, count):
        return Table(count, self._fails.pop(0) if self._fails else ())

    def of(self, number):
        return ThreadHost(self, number)

    def rejoin(self, number, lost):
        with self._at:
            self._table.close()
            if number not in self._left:
                raise lost
            self._came.append(number)
            mine = self._round
            self._begin_if_all_came()
            assert self._at.wait_for(lambda: self._round > mine, LONG), "somebody never rejoins"
            return self._group_of(number)

    def done(self, number):
        """A host has ended its training, one way or the other, and leaves."""
        with self._at:
            self._table.close()
            if number in self._left:
                self._left.remove(number)
                self._begin_if_all_came()

    def _begin_if_all_came(self):
        if self._came and sorted(self._came) == self._left:
            self._table = self._next(len(self._left))
            self.tables.append(self._table)
            self._members, self._came = list(self._left), []
            self._round += 1
            self._at.notify_all()

    def _group_of(self, number):
        return TableGroup(self._table, Place(self._members.index(number), self._table.count))


class ThreadHost:
    def __init__(self, hosts, number):
        self.hosts, self.number = hosts, number
        self.group = TableGroup(hosts.tables[0], Place(number, hosts.tables[0].count))

    def join(self):
        return None if self.group.place.is_alone else self.group

    def next(self, group, lost):
        if lost is not None:
            self.group = self.hosts.rejoin(self.number, lost)
        return self.join()


def in_threads(*works):
    """What each function returns, or the exception that it raises; all run at once."""
    found = [None] * len(works)

    def run(at, work):
        try:
            found[at] = work()
        except Exception as error:
            found[at] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads), "a host hangs"
    return found


def train_together(job, start, training, validation, hosts, count, followings=None):
    """What each of several hosts makes of one training."""
    followings = followings or [Following() for _ in range(count)]

    def host(number):
        following = replace(followings[number], hosts=hosts.of(number))
        try:
            return train(job, start(), training, validation, Progress(0.1), following)
        finally:
            hosts.done(number)

    return in_threads(*(lambda number=number: host(number) for number in range(count)))


def train_alone(job, start, training, validation, following=None):
    return train(job, start(), training, validation, Progress(0.1), following)

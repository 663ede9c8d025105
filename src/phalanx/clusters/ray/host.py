"""A host on a node of Ray's: the actor that trains there, and what it asks of the caller.

`train` runs in one thread of the actor; in others the caller's process gives orders (which group
the host is to be in) and hears what the training asks for: the settings of an epoch, whether to
stop after it. Only the first host of the group asks.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from phalanx.clusters import wire
from phalanx.clusters.control import Control
from phalanx.clusters.hosts.launch import Launch
from phalanx.clusters.hosts.machine import fingerprint
from phalanx.clusters.hosts.meeting import listening, meet
from phalanx.errors import HostLost
from phalanx.exchange.group import Group
from phalanx.pure.arrays import Array
from phalanx.run import EpochRecord, Event


class Order(NamedTuple):
    """To be in a group. generation: counts the groups of a training."""

    how: Launch
    generation: int


class Asked(NamedTuple):
    """What a host wants from the caller: a name, and what belongs to it."""

    what: str
    told: Any = None


@dataclass(frozen=True)
class Proxies:
    """Which of the caller's followers a training asks for."""

    hears_epochs: bool
    hears_events: bool
    has_mirror: bool
    has_agenda: bool
    agenda_changes: bool


class Host:
    """The actor. Also a training's `Hosts` (clusters/hosts/launched.py)."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._orders: queue.Queue[Order | None] = queue.Queue()  # None: to end
        self._asked: queue.Queue[Asked] = queue.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        self._listener: socket.socket | None = None
        self._group: Any = None
        self._generation, self._lock = 0, threading.Lock()
        self._is_first = True
        self.control = Control(1)

    # ---- called by the caller's process

    def introduce(self) -> tuple[str, dict[str, Any]]:
        """The address of this node, as the others reach it, and what kind of machine it is."""
        return self._address(), fingerprint()

    def listen(self) -> int:
        """A port on which this host can be met as the first one."""
        listener = listening(self._address(), 0)
        with self._lock:
            before, self._listener = self._listener, listener
        if before is not None:
            before.close()
        return _port_of(listener)

    def order(self, order: Order, interrupts: bool) -> None:
        """Be in another group: at once, or when all halt."""
        group = self._group  # before the order, by which another may be made at once
        self._orders.put(order)
        if interrupts and group is not None:
            group.interrupt("no longer belongs to the group")

    def end(self) -> None:
        """End the training, and keep what it has come to: there are too few hosts to go on."""
        self._orders.put(None)

    def pause(self, generation: int) -> None:
        """Have all hosts halt after the same step, to be in that group, unless they are by now."""
        with self._lock:
            if self._generation < generation:
                self.control.pause()

    def has_begun(self) -> bool:
        """Whether it has the training's state: from the start, or from those that it has met."""
        return self.control.has_begun

    def hear(self, seconds: float) -> Asked | None:
        """What the training asks for next, if it does so within so many seconds."""
        try:
            return self._asked.get(timeout=seconds)
        except queue.Empty:
            return None

    def answer(self, answer: Any) -> None:
        """To what was asked last."""
        self._answers.put(answer)

    def train(self, work: Any) -> Any:
        """Train; returns what the function of the work returns.

        Raises UserFunctionError where the job's functions are not those of the caller.
        """
        train, packed, start, training, validation, progress, following, proxies = work
        job = wire.unpack(packed)
        self.control = Control(job.n_workers)
        follower = Follower(self)
        following = replace(following, hosts=self, control=self.control)
        if proxies.hears_epochs:
            following.on_epoch = follower.on_epoch
        if proxies.hears_events:
            following.on_event = follower.on_event
        if proxies.has_mirror:
            following.mirror = follower
        if proxies.has_agenda:
            following.agenda = Agenda(follower, proxies.agenda_changes)
        return train(job, start, training, validation, progress, following)

    # ---- called by the training

    def join(self) -> Group | None:
        """See clusters/hosts/launched.py."""
        return self._enter()

    def next(self, group: Group | None, lost: HostLost | None) -> Group | None:
        """See clusters/hosts/launched.py: the caller's process knows who is in the next group."""
        self._leave()
        if lost is not None:
            self._asked.put(Asked("regroup", self._generation))
        return self._enter()

    def ask(self, what: str, told: Any) -> Any:
        """What the caller answers to the first host; None to all others."""
        if not self._is_first:
            return None
        self._asked.put(Asked(what, told))
        return self._answers.get()

    def tell(self, what: str, told: Any) -> None:
        """As `ask`, where there is no answer."""
        if self._is_first:
            self._asked.put(Asked(what, told))

    def _address(self) -> str:
        import ray

        util: Any = ray.util  # without types
        return str(util.get_node_ip_address())

    def _enter(self) -> Group | None:
        while True:
            order = self._newest_order()
            with self._lock:
                listener = self._listener
                is_mine = listener is not None and _port_of(listener) == order.how.port
                if not self._orders.empty() or (order.how.place.is_first and not is_mine):
                    continue  # there is a newer order, or it is on its way
                self._generation, self._listener = order.generation, None
                self.control.go_on()
            self._is_first = order.how.place.is_first
            if order.how.place.is_alone:
                return None
            try:
                self._group = meet(order.how, listener, order.generation, self._look)
            except HostLost:
                self._asked.put(Asked("regroup", self._generation))
                continue
            return self._group  # type: ignore[no-any-return]

    def _newest_order(self) -> Order:
        try:
            order = self._orders.get(timeout=self._patience)
            while not self._orders.empty():
                order = self._orders.get()
        except queue.Empty:
            raise HostLost(None, f"group did not come within {self._patience:.0f} s") from None
        if order is None:
            raise HostLost(None, "is needed to go on")
        return order

    def _look(self) -> None:
        """Those who meet may have been given up meanwhile."""
        if not self._orders.empty():
            raise HostLost(None, "no longer belongs to the group")

    def _leave(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.leave()


def _port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


class Follower:
    """The caller's followers, as the training on a host sees them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._changed_N: Array | None = None

    def on_epoch(self, epoch: int, record: EpochRecord) -> bool:
        """Whether the caller wants to stop."""
        stops, self._changed_N = self._host.ask("epoch", (epoch, record)) or (False, None)
        return bool(stops)

    def on_event(self, event: Event) -> None:
        """Something has happened."""
        self._host.tell("event", event)

    def show(self, values_XN: Array, scalars_KC: Array) -> None:
        """See following.Mirror."""
        self._host.tell("show", (values_XN.copy(), scalars_KC.copy()))

    def changed(self, values_N: Array) -> bool:
        """See following.Mirror."""
        if self._changed_N is None:
            return False
        values_N[...], self._changed_N = self._changed_N, None
        return True

    def settings(self, epoch: int) -> Array:
        """See following.Agenda; the other hosts get them from the first."""
        settings = self._host.ask("settings", epoch)
        return np.zeros(()) if settings is None else np.asarray(settings)


@dataclass(frozen=True)
class Agenda:
    """See following.Agenda."""

    follower: Follower
    changes: bool

    @property
    def settings(self) -> Callable[[int], Array]:
        return self.follower.settings

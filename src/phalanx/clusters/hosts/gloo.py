"""A group of hosts by torch.distributed's gloo, on sockets of one interface.

It is a process group of our own: the program's default one stays free for the program. What is
waited for ends when it is done, when its connection closes, or when a host has been silent for too
long (beats.py); an operation itself has no bound, since a host may compute for long.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed

from phalanx.clusters.hosts.beats import Beats, brief
from phalanx.clusters.hosts.left_groups import give_back
from phalanx.errors import HostLost, InvalidInput, PhalanxError
from phalanx.exchange.board import YIELDS
from phalanx.exchange.group import Look
from phalanx.pure.arrays import Array
from phalanx.pure.hosts import Place

dist: Any = torch.distributed  # its C++ classes have no types

LOOK = timedelta(seconds=0.1)  # how often a wait looks around
CONNECT = timedelta(seconds=30)
UNBOUNDED = timedelta(days=7)
THREADS = 2
LARGE = 2**20  # bytes of a piece; below, a collective is quicker than to send it by itself
TAGS = 65_536  # far more than there are exchanges under way

Tensors = tuple[torch.Tensor, ...]


class GlooGroup:
    """See exchange/group.py: Group."""

    def __init__(
        self, place: Place, store: Any, device: Any, host_seconds: float, generation: int = 0
    ) -> None:
        self.place = place
        name = f"phalanx/{generation}"
        named = dist.PrefixStore(name, store)
        # signs of life have a connection of their own: they come while others are waited for
        self._beats = Beats(place, dist.PrefixStore(f"{name}/beats", store.clone()), host_seconds)
        options = dist.ProcessGroupGloo._Options()
        options._timeout, options._devices, options._threads = CONNECT, [device], THREADS
        try:
            self._gloo = dist.ProcessGroupGloo(named, place.host, place.count, options)
        except RuntimeError as error:
            raise HostLost(None, f"could not be connected to ({error})") from error
        self._gloo._set_default_timeout(UNBOUNDED)
        self._pending: list[_Pending] = []
        self._tag = 0
        try:
            self._beats.start()
        except PhalanxError:
            self.leave()
            raise

    def all_to_all(self, pieces_H: Sequence[Array], places_H: Sequence[Array]) -> _Pending:
        """Small pieces in one collective. Large ones travel by themselves, before it: a collective
        may send before it says that it is ready to receive, which then waits behind what it sends,
        and so one host sends after the other.

        What is waited for is the collective, since it can be looked at now and then. Of each large
        piece it has one element again: when that is there, so is what was sent before.
        """
        large = self._send_large(pieces_H, places_H)
        pieces = [piece_n[:1] if is_large(piece_n) else piece_n for piece_n in pieces_H]
        places = [place_n[:1].copy() if is_large(place_n) else place_n for place_n in places_H]
        sizes, sizes_in = [*map(len, pieces)], [*map(len, places)]
        row_n = np.concatenate(pieces)
        into_n = np.empty(sum(sizes_in), row_n.dtype)
        into, row = tensor(into_n), tensor(row_n)
        options = dist.AllToAllOptions()
        work = self._gloo.alltoall_base(into, row, sizes_in, sizes, options)

        def put() -> None:
            for each in large:
                each.wait(CONNECT)
            at = 0
            for place_n in places:
                place_n[...] = into_n[at : at + len(place_n)]
                at += len(place_n)

        return self._begun(work, (into, row), put)

    def _send_large(self, pieces_H: Sequence[Array], places_H: Sequence[Array]) -> list[Any]:
        """Those that travel by themselves; first of all, that I am ready for them."""
        self._tag = (self._tag + 1) % TAGS
        tag, gloo = self._tag, self._gloo
        comes = [(place_n, h) for h, place_n in enumerate(places_H) if is_large(place_n)]
        goes = [(piece_n, h) for h, piece_n in enumerate(pieces_H) if is_large(piece_n)]
        try:
            receiving = [gloo.recv([tensor(place_n)], host, tag) for place_n, host in comes]
            return receiving + [gloo.send([tensor(piece_n)], host, tag) for piece_n, host in goes]
        except RuntimeError as error:
            raise self._beats.lost(str(error)) from error

    def all_gather(self, row_n: Array, into_Hn: Array) -> _Pending:
        into, row = tensor(into_Hn.reshape(-1)), tensor(row_n)
        return self._begun(self._gloo._allgather_base(into, row), (into, row))

    def broadcast(self, array_n: Array, host: int) -> _Pending:
        array = tensor(array_n)
        return self._begun(self._gloo.broadcast(array, host), (array,))

    def check(self) -> None:
        self._beats.check()

    def failed(self, why: str) -> None:
        self._beats.failed(why)

    def interrupt(self, why: str) -> None:
        """End what is waited for, from another thread."""
        self._beats.interrupt(why)

    def leave(self) -> None:
        """Give the sockets and threads back: at once, or when nothing is stuck there any more."""
        self._beats.close()
        give_back(self._gloo, self._pending)
        del self._gloo

    def _begun(self, work: Any, tensors: Tensors, then: Look = lambda: None) -> _Pending:
        pending = _Pending(work, tensors, self._beats, then)
        self._pending = [p for p in self._pending if not p.is_done] + [pending]
        return pending


class _Pending:
    """See exchange/group.py: Pending.

    tensors: what the operation is about. then: what is to be done with what has come.
    """

    def __init__(self, work: Any, tensors: Tensors, beats: Beats, then: Look) -> None:
        self._work, self._beats, self._then, self.is_done = work, beats, then, False
        # a view holds its base in C++: so the thread of gloo's that ends the operation need not ask
        # Python to free a tensor, which aborts the process if Python is about to end
        self.views = [tensor.view_as(tensor) for tensor in tensors]

    def wait(self, look: Look) -> None:
        self._wait_awake()
        while not self.is_done:
            was_over = self._work.is_completed()
            try:
                self._work.wait(LOOK)
            except RuntimeError as error:
                if was_over:  # else it may be the time that was up, even if it is over by now
                    self.is_done = True
                    raise self._beats.lost(str(error)) from error
            else:
                self.is_done = True
                self._finish()
                return
            look()
            self._beats.check()

    def _finish(self) -> None:
        try:
            self._then()
        except RuntimeError as error:
            raise self._beats.lost(str(error)) from error

    def _wait_awake(self) -> None:
        """For a while: to wake a processor that sleeps takes longer than a small message."""
        for _ in range(YIELDS):
            if self._work.is_completed():
                return
            os.sched_yield()

    def is_over(self) -> bool:
        """Whether nothing of it is under way, given a moment."""
        try:
            self.is_done or self._work.wait(LOOK)
        except RuntimeError:
            return bool(self._work.is_completed())
        return True


def is_large(array: Array) -> bool:
    """Whether an array travels by itself."""
    return array.nbytes > LARGE


def tensor(array: Array) -> torch.Tensor:
    """An array as a tensor over the same memory."""
    if array.dtype == np.uint16:
        array = array.view(np.float16)  # bits to be carried; gloo does not know the type
    return torch.from_numpy(array)


def device_of(address: str, interface: str | None) -> Any:
    """Sockets on the interface of that name, or on the one by which `address` is reached."""
    if interface is not None:
        try:
            return dist.ProcessGroupGloo.create_device(interface=interface)
        except RuntimeError as error:
            raise InvalidInput(
                "the environment variable GLOO_SOCKET_IFNAME must name a network interface of "
                f"this host; got {interface!r}: {brief(str(error))}. `ip address` lists them."
            ) from error
    return dist.ProcessGroupGloo.create_device(hostname=own_address(address))


def own_address(address: str) -> str:
    """The address of this host by which it reaches another; nothing is sent.

    Raises HostLost where there is no way.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address, 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise HostLost(0, f"cannot be reached at {address!r}: {error}") from error

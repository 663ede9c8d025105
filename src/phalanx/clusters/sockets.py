"""A group of hosts on lines of its own, driven by the one thread that waits for what they bring.

It moves the bytes itself, from array to array. gloo hands each operation from thread to thread:
for small steps that costs ten times what the bytes do. What is waited for ends when it is done,
when its line closes, or when a host has been silent for too long (beats.py).
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from phalanx.arrays import Array
from phalanx.clusters.beats import Beats
from phalanx.clusters.lines import lines
from phalanx.exchange.group import Look
from phalanx.hosts import Place

YIELDS = 300  # turns of a wait before it sleeps: about as long as a small step makes anyone wait
LOOK = 100  # milliseconds; how often a wait that sleeps looks around


class SocketGroup:
    """See exchange/group.py: Group."""

    def __init__(
        self, place: Place, store: Any, address: str, host_seconds: float, generation: int = 0
    ) -> None:
        import torch.distributed

        dist: Any = torch.distributed

        self.place, self._store = place, store  # which the first host serves as long as it has it
        name = f"phalanx/{generation}"
        # signs of life have a connection of their own: they come while others are waited for
        self._beats = Beats(place, dist.PrefixStore(f"{name}/beats", store.clone()), host_seconds)
        made = lines(place, dist.PrefixStore(name, store), address, host_seconds)
        self._lines = {host: _Line(host, made[host]) for host in sorted(made)}
        self._beats.start()

    def all_to_all(self, pieces_H: Sequence[Array], places_H: Sequence[Array]) -> _Pending:
        return self._begun(pieces_H, places_H)

    def all_gather(self, row_n: Array, into_Hn: Array) -> _Pending:
        into_Hn[self.place.host] = row_n
        return self._begun([row_n] * self.place.count, list(into_Hn))

    def broadcast(self, array_n: Array, host: int) -> _Pending:
        nothing = [array_n[:0]] * self.place.count
        if host == self.place.host:
            return self._begun([array_n] * self.place.count, nothing)
        places = list(nothing)
        places[host] = array_n
        return self._begun(nothing, places)

    def check(self) -> None:
        self.move()  # who waits for something else keeps what is under way going
        self._beats.check()

    def failed(self, why: str) -> None:
        self._beats.failed(why)

    def leave(self) -> None:
        """Close the lines."""
        self._beats.close()
        for line in self._lines.values():
            line.close()

    def move(self) -> bool:
        """Send and bring what goes at once; whether anything did. Raises HostLost."""
        has_moved = False
        for line in self._lines.values():
            try:
                has_moved = line.move() or has_moved
            except OSError as error:
                raise self._beats.lost(str(error), line.host) from error
        return has_moved

    def sleep(self) -> None:
        """Until something may go, but not for long."""
        poll = select.poll()
        for line in self._lines.values():
            poll.register(line.socket, line.awaited)
        poll.poll(LOOK)

    def _begun(self, pieces: Sequence[Array], places: Sequence[Array]) -> _Pending:
        marks = [
            (line, *line.take(pieces[host], places[host])) for host, line in self._lines.items()
        ]
        self.move()
        return _Pending(self, marks)


class _Line:
    """A line to another host, what is to go over it, and where what comes is to be put.

    sent, received: bytes so far.
    """

    def __init__(self, host: int, line: socket.socket) -> None:
        self.host, self.socket = host, line
        self.sent = self.received = 0
        self._to_send = self._to_receive = 0  # bytes that were ever asked for
        self._out: deque[memoryview] = deque()
        self._in: deque[memoryview] = deque()

    def take(self, piece_n: Array, place_n: Array) -> tuple[int, int]:
        """Put an array in each line of waiting; what `sent` and `received` are to come to."""
        if piece_n.nbytes:
            self._out.append(_bytes(piece_n))
        if place_n.nbytes:
            self._in.append(_bytes(place_n))
        self._to_send += piece_n.nbytes
        self._to_receive += place_n.nbytes
        return self._to_send, self._to_receive

    def move(self) -> bool:
        """Send and receive what goes at once; whether anything did. Raises OSError."""
        before = self.sent + self.received
        try:
            while self._out:
                sent = self.socket.send(self._out[0])
                self.sent += sent
                _pass(self._out, sent)
        except BlockingIOError:
            pass
        try:
            while self._in:
                received = self.socket.recv_into(self._in[0])
                if not received:
                    raise ConnectionResetError("its connection was closed")
                self.received += received
                _pass(self._in, received)
        except BlockingIOError:
            pass
        return self.sent + self.received > before

    @property
    def awaited(self) -> int:
        """What poll is to wait for."""
        return (select.POLLOUT if self._out else 0) | (select.POLLIN if self._in else 0)

    def close(self) -> None:
        self.socket.close()


class _Pending:
    """See exchange/group.py: Pending. marks: how far each line is to come."""

    def __init__(self, group: SocketGroup, marks: Sequence[tuple[_Line, int, int]]) -> None:
        self._group, self._marks = group, marks

    def wait(self, look: Look) -> None:
        idle = 0
        while not self._is_done():
            if self._group.move():
                idle = 0
                continue
            idle += 1
            if idle < YIELDS:
                os.sched_yield()
            else:
                look()
                self._group.check()
                self._group.sleep()

    def _is_done(self) -> bool:
        return all(
            line.sent >= sent and line.received >= received for line, sent, received in self._marks
        )


def _bytes(array_n: Array) -> memoryview:
    return array_n.view(np.uint8).data


def _pass(waiting: deque[memoryview], n_bytes: int) -> None:
    """Take so many bytes off the first that waits."""
    if n_bytes == len(waiting[0]):
        waiting.popleft()
    else:
        waiting[0] = waiting[0][n_bytes:]

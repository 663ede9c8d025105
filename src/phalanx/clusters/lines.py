"""Lines: connections from each host to each other one, made where they have met.

A host listens on the address by which the others know it, and says in the store where. Of two
hosts the later one calls. Who calls shows the word that stands there beside the port, so whoever
else finds the port is turned away.
"""

from __future__ import annotations

import fcntl
import secrets
import socket
import struct
import sys
from time import monotonic
from typing import Any

from phalanx.errors import HostLost, InvalidInput
from phalanx.hosts import Place

GREETING = struct.Struct("!I32s")  # the caller's number, and the word
ANSWER_SECONDS = 5.0  # for a greeting, from whoever it is
SIOCGIFADDR = 0x8915  # Linux' request for an interface's address


def lines(place: Place, store: Any, address: str, seconds: float) -> dict[int, socket.socket]:
    """A line to each other host. Raises HostLost where one is not made within so many seconds."""
    until = monotonic() + seconds
    word = secrets.token_hex(16).encode()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family, backlog=place.count) as listening:
        port = listening.getsockname()[1]
        store.set(f"lines/{place.host}", f"{address} {port} {word.decode()}")
        found: dict[int, socket.socket] = {}
        try:
            for host in range(place.host):
                found[host] = _call(place, host, store, until)
            while len(found) < place.count - 1:
                _answer(place, listening, word, found, until)
        except BaseException:
            for line in found.values():
                line.close()
            raise
    for line in found.values():
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.setblocking(False)
    return found


def _call(place: Place, host: int, store: Any, until: float) -> socket.socket:
    address, port, word = store.get(f"lines/{host}").decode().split()
    try:
        line = socket.create_connection((address, int(port)), _left(until))
        line.sendall(GREETING.pack(place.host, word.encode()))
    except OSError as error:
        raise HostLost(host, f"cannot be reached at {address}:{port}: {error}") from error
    return line


def _answer(
    place: Place,
    listening: socket.socket,
    word: bytes,
    found: dict[int, socket.socket],
    until: float,
) -> None:
    """Take the next call; keep the line if a host is at its other end."""
    listening.settimeout(_left(until))
    try:
        line, _ = listening.accept()
    except TimeoutError as error:
        missing = next(h for h in range(place.host + 1, place.count) if h not in found)
        raise HostLost(missing, "has met the others, and cannot reach this host") from error
    line.settimeout(min(ANSWER_SECONDS, _left(until)))
    try:
        host, said = GREETING.unpack(line.recv(GREETING.size, socket.MSG_WAITALL))
    except (OSError, struct.error):
        host, said = -1, b""
    if place.host < host < place.count and secrets.compare_digest(said, word):
        found[host] = line
    else:
        line.close()


def _left(until: float) -> float:
    return max(0.001, until - monotonic())


def own_address(address: str, interface: str | None = None) -> str:
    """The address of this host on an interface; without one, that by which it reaches `address`.

    Raises InvalidInput where there is no such interface, HostLost where there is no way.
    """
    if interface is not None and sys.platform == "linux":
        return _address_of(interface)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address, 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(where)  # nothing is sent
            return str(probe.getsockname()[0])
    except OSError as error:
        raise HostLost(0, f"cannot be reached at {address!r}: {error}") from error


def _address_of(interface: str) -> str:
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, SIOCGIFADDR, request)
        except OSError as error:
            raise InvalidInput(
                "GLOO_SOCKET_IFNAME must name a network interface of this host that has an IPv4 "
                f"address; got {interface!r} ({error.strerror})."
            ) from error
    return socket.inet_ntoa(answer[20:24])

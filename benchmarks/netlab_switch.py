"""A switch that hands every packet on late: `netlab_switch.py 0.02 port0 port1`.

The kernel's own means, tc's netem, is missing from many kernels, so it is a process.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from select import select

EVERY_PROTOCOL = 0x0003  # Linux' ETH_P_ALL
SOL_PACKET, PACKET_VNET_HDR, SO_RCVBUFFORCE = 263, 15, 33  # which Python's socket lacks
HEADER = 10  # bytes of virtio's header, which keeps bursts of packets whole
LONGEST = HEADER + (1 << 16) + 64
TO, FROM = slice(HEADER, HEADER + 6), slice(HEADER + 6, HEADER + 12)
WAITING = 1 << 26  # bytes that a port may hold before they are read
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def seconds(delay: str) -> float:
    """The seconds of a delay such as "20ms"."""
    if not (match := re.fullmatch(r"([\d.]+)(us|ms|s)", delay)):
        raise ValueError(f"a delay is a number and us, ms or s, such as 20ms; got {delay!r}")
    return float(match[1]) * UNITS[match[2]]


def port(device: str) -> socket.socket:
    """A socket for all frames of a device."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, WAITING)
    opened.bind((device, EVERY_PROTOCOL))
    return opened


class Switch:
    """Ports, and the frames between them."""

    def __init__(self, ports: Sequence[socket.socket], delay: float) -> None:
        self._ports = ports
        self._delay = delay
        self._late: deque[tuple[float, bytes, socket.socket]] = deque()
        self._behind: dict[bytes, socket.socket] = {}  # the port of an Ethernet address

    def turn(self) -> None:
        """Wait for frames or for the next to be due, take those, hand on these."""
        wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
        ready, _, _ = select(self._ports, [], [], wait)
        for source in ready:
            with suppress(OSError):  # its link was cut
                self._late.append((time.monotonic() + self._delay, source.recv(LONGEST), source))
        while self._late and self._late[0][0] <= time.monotonic():
            _, frame, source = self._late.popleft()
            self._hand_on(frame, source)

    def _hand_on(self, frame: bytes, source: socket.socket) -> None:
        self._behind[frame[FROM]] = source
        known = self._behind.get(frame[TO])
        for port in [known] if known else self._ports:
            if port is not source:
                with suppress(OSError):  # its link was cut, or its queue is full
                    port.send(frame)


def main() -> None:
    delay, *devices = sys.argv[1:]
    switch = Switch([port(device) for device in devices], float(delay))
    print("ready", flush=True)
    while True:
        switch.turn()


if __name__ == "__main__":
    main()

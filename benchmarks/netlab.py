"""Hosts in a laboratory: network namespaces whose links can be slow, long and cut.

Two hosts are the ends of one cable (a veth pair); more are joined by a switch, which is a bridge,
or `netlab_switch.py` where packets are to be late. Nothing is made outside the laboratory's own
namespaces, so laboratories do not meet each other, nor the machine's own network, and all of one
goes with its namespaces. A laboratory that is killed leaves them, named after its process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any, Self, cast

from netlab_switch import seconds

SWITCH = Path(__file__).with_name("netlab_switch.py")
LINK = "eth0"  # the name of a host's end of its cable
MASTER_PORT = 29500  # nothing else listens in a namespace of ours
PACKET = 1514  # bytes of a full one, with all headers
SKIPPED = 77  # the exit status that test harnesses take for "skipped"
MOST = 254  # addresses of a subnet
LABORATORIES = itertools.count()


class LabError(RuntimeError):
    """This machine refuses what a laboratory needs."""


@dataclass(frozen=True)
class End:
    """An end of a cable: a network device in a namespace."""

    namespace: str
    device: str

    def set(self, *words: str) -> None:
        """Change the device, as `ip link set` does."""
        run("ip", "-n", self.namespace, "link", "set", "dev", self.device, *words)

    def send_through(self, queue: Sequence[str]) -> None:
        """Let what the device sends wait in a queue of tc's."""
        run("tc", "-n", self.namespace, "qdisc", "add", "dev", self.device, "root", *queue)

    def sent(self) -> int:
        """Bytes sent so far, as the cable carries them.

        The queue knows them and the device does not: that counts the headers of a burst of
        packets once, since a veth leaves its bursts whole.
        """
        show = ("qdisc", "show", "dev", self.device, "root")
        return int(json.loads(run("tc", "-n", self.namespace, "-s", "-j", *show))[0]["bytes"])


@dataclass(frozen=True)
class Cable:
    """What joins a host to its peer or to the switch."""

    host: End
    far: End


class Lab:
    """Hosts that live as long as the `with` block, and with them whatever runs on them.

    `rate`, such as "100mbit", is what each link carries, either way. `delay`, such as "20ms", is
    how long a packet is under way from any host to any other.
    """

    def __init__(self, hosts: int = 2, rate: str | None = None, delay: str | None = None) -> None:
        if not 1 <= hosts <= MOST:
            raise ValueError(f"hosts must be from 1 to {MOST}, got {hosts!r}")
        name = f"netlab-{os.getpid()}-{next(LABORATORIES)}"
        self._hosts = [f"{name}-host{host}" for host in range(hosts)]
        self._switch = f"{name}-switch"
        self._queue = queue(rate)
        self._delay = seconds(delay) if delay else None
        self._cables: list[Cable] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def popen(self, host: int, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command on a host; the options are those of `subprocess.Popen`."""
        return self._popen(self._hosts[host], argv, **options)

    def environment(self, host: int) -> dict[str, str]:
        """What torchrun would set for the one process of a host, and the name of its link."""
        here = dict.fromkeys(("RANK", "GROUP_RANK", "ROLE_RANK"), str(host))
        sizes = ("WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE")
        everywhere = dict.fromkeys(sizes, str(len(self._hosts)))
        local = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        master = {"MASTER_ADDR": self.address(0), "MASTER_PORT": str(MASTER_PORT)}
        return here | everywhere | local | master | {"GLOO_SOCKET_IFNAME": LINK}

    def address(self, host: int) -> str:
        """A host's address on its link."""
        return f"10.0.0.{host + 1}"

    def cut(self, host: int) -> None:
        """Take a host's link down: what is sent to it or by it is lost, and nobody is told."""
        self._cables[host].host.set("down")

    def mend(self, host: int) -> None:
        """Take a host's link up again."""
        self._cables[host].host.set("up")

    def bytes_sent(self, host: int) -> int:
        """What a host has put on its link, with all headers."""
        return self._cables[host].host.sent()

    def bytes_sent_again(self, host: int) -> int:
        """What of it TCP took for lost, since this machine was busy: an upper bound."""
        counters = run("ip", "netns", "exec", self._hosts[host], "cat", "/proc/net/snmp")
        names, values = (line.split() for line in counters.splitlines() if line.startswith("Tcp:"))
        return PACKET * int(dict(zip(names, values, strict=True))["RetransSegs"])

    def bytes_received(self, host: int) -> int:
        """What has been put on its link for a host, with all headers."""
        return self._cables[host].far.sent()

    def _build(self) -> None:
        for host in self._hosts:
            self._add_namespace(host)
        if len(self._hosts) == 2 and not self._delay:
            self._join_the_pair()
        else:
            self._join_by_a_switch()
        for number, host in enumerate(self._hosts):
            End(host, "lo").set("up")
            run("ip", "-n", host, "address", "add", f"{self.address(number)}/24", "dev", LINK)

    def _join_the_pair(self) -> None:
        one, other = (End(host, LINK) for host in self._hosts)
        self._lay(one, other)
        self._cables = [Cable(one, other), Cable(other, one)]

    def _join_by_a_switch(self) -> None:
        self._add_namespace(self._switch)
        for number, host in enumerate(self._hosts):
            cable = Cable(End(host, LINK), End(self._switch, f"port{number}"))
            self._lay(cable.host, cable.far)
            self._cables.append(cable)
        if self._delay:
            self._switch_late(self._delay)
        else:
            self._bridge()

    def _lay(self, one: End, other: End) -> None:
        peer = ("peer", "name", other.device, "netns", other.namespace)
        run("ip", "-n", one.namespace, "link", "add", one.device, "type", "veth", *peer)
        for end in (one, other):
            end.send_through(self._queue)
            end.set("addrgenmode", "none")  # IPv6 would announce itself, and bytes are counted
            end.set("up")

    def _bridge(self) -> None:
        bridge = End(self._switch, "bridge")
        run("ip", "-n", self._switch, "link", "add", "name", bridge.device, "type", "bridge")
        bridge.set("addrgenmode", "none")
        bridge.set("up")
        for cable in self._cables:
            cable.far.set("master", bridge.device)

    def _switch_late(self, delay: float) -> None:
        ports = [cable.far.device for cable in self._cables]
        argv = [sys.executable, str(SWITCH), str(delay), *ports]
        pipe = {"stdout": subprocess.PIPE, "start_new_session": True}  # Ctrl-C is not for it
        switch = self._popen(self._switch, argv, **pipe)
        with cast(IO[bytes], switch.stdout) as ready:
            if not ready.readline():
                raise LabError("the switch that delays packets did not start")

    def _popen(self, namespace: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *argv], **options)
        self._undo.callback(end, process)
        return process

    def _add_namespace(self, name: str) -> None:
        self._undo.callback(remove_namespace, name)
        run("ip", "netns", "add", name)


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a process, if it lives."""
    process.kill()
    process.wait()


def remove_namespace(name: str) -> None:
    """Kill what runs in a namespace, then delete it and thereby its ends of cables."""
    if not Path("/run/netns", name).exists():
        return
    try:
        while pids := run("ip", "netns", "pids", name).split():  # one may just have forked
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
    finally:
        run("ip", "netns", "delete", name)


def queue(rate: str | None) -> Sequence[str]:
    """The queue, in tc's words, from which a device sends: as fast as it can, or at a rate."""
    if rate is None:
        return ("pfifo", "limit", "1000")
    return ("tbf", "rate", rate, "burst", "64kb", "latency", "100ms")


def run(*argv: str) -> str:
    """What a command prints; an error, if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise LabError(f"`{' '.join(argv)}`: {done.stderr.strip()}")
    return done.stdout


def why_not(hosts: int = 2, delay: str | None = None) -> str | None:
    """Why there can be no laboratory here, or None where there can."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"needs {' and '.join(missing)}, of the package iproute2"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    try:
        with Lab(hosts, "1gbit", delay):
            return None
    except LabError as error:
        return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command on every host, each in a network of its own."""
    taken = parser()
    chosen = taken.parse_args(arguments)
    try:
        if reason := why_not(chosen.hosts, chosen.delay):
            print(f"netlab: skipped: {reason}", file=sys.stderr)
            return SKIPPED
        with Lab(chosen.hosts, chosen.rate, chosen.delay) as lab:
            return run_everywhere(lab, chosen.hosts, chosen.command)
    except (LabError, ValueError) as error:
        taken.error(str(error))


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    made = argparse.ArgumentParser("netlab", description=main.__doc__)
    made.add_argument("--hosts", type=int, default=2, help="how many (2)")
    made.add_argument("--rate", help="of each link, either way, such as 100mbit (unlimited)")
    made.add_argument("--delay", help="from any host to any other, such as 20ms (none)")
    made.add_argument("command", nargs="+", help="after --; its environment is torchrun's")
    return made


def run_everywhere(lab: Lab, hosts: int, argv: Sequence[str]) -> int:
    """The exit status of the first host that failed; prints what each printed, sent and received.

    The others are not ended for it: how they take a failure is what one came to see.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}
    running = [
        lab.popen(host, argv, env=unbuffered | lab.environment(host), **pipes)
        for host in range(hosts)
    ]
    readers = [Thread(target=copy, args=pair, daemon=True) for pair in enumerate(running)]
    for reader in readers:
        reader.start()
    statuses = [process.wait() for process in running]
    for host, reader in enumerate(readers):
        reader.join()
        sent, received = lab.bytes_sent(host), lab.bytes_received(host)
        print(f"[host {host}] sent {sent:,} bytes, received {received:,}")
    failed = next((status for status in statuses if status), 0)
    return failed if failed >= 0 else 128 - failed  # by a signal, as a shell says it


def copy(host: int, process: subprocess.Popen[str]) -> None:
    """Print a host's lines as they come, marked with its number."""
    with cast(IO[str], process.stdout) as lines:
        for line in lines:
            print(f"[host {host}] {line.rstrip()}\n", end="", flush=True)

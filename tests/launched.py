"""Programs that run on several hosts of this machine at once, and what is left of them."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from time import monotonic, sleep

import psutil

LONG = 60  # seconds after which a test that hangs fails
TESTS = Path(__file__).parent
TOKEN = "PHALANX_TEST_TOKEN"
LAUNCHERS = ("RANK", "WORLD_SIZE", "MASTER_", "SLURM_", "PHALANX_", "TORCHELASTIC", "LOCAL_")
WARNINGS = ["-W", "error", "-W", "ignore:__array__ implementation:DeprecationWarning"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def by_hand(host, count, port):
    """What torchrun would set."""
    numbers = {"RANK": host, "WORLD_SIZE": count, "MASTER_PORT": port}
    return {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


def by_slurm(host, count, port):
    """What srun would set."""
    return {
        "SLURM_PROCID": str(host), "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NODELIST": "127.0.0.1,127.0.0.2", "SLURM_JOB_ID": str(port - 20_000),
        "MASTER_PORT": str(port),
    }  # fmt: skip


class Launched:
    """Hosts 0 to `count` - 1, each a process that runs `argv`; ended with the `with` block, after
    which nothing of them may be left."""

    def __init__(self, count, argv, environment=by_hand, popen=None, port=None, each=None, **more):
        self.token, self.port = uuid.uuid4().hex, port or free_port()
        self.starts = []
        for host in range(count):
            environ = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
            environ |= environment(host, count, self.port) | {"PYTHONUNBUFFERED": "1"}
            environ |= {TOKEN: self.token, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            environ |= {"PHALANX_JOIN_SECONDS": "40"} | more | (each or {}).get(host, {})
            self.starts.append(environ)
        self.argv = [str(part) for part in argv]
        self.popen = popen or (lambda host, argv, **options: subprocess.Popen(argv, **options))
        self.hosts = []

    def __enter__(self):
        for host, environ in enumerate(self.starts):
            self.hosts.append(Host(self.popen(host, self.argv, **pipes(environ))))
        self.pids = {host.process.pid for host in self.hosts}
        return self

    def __exit__(self, kind, *exception):
        for host in self.hosts:
            host.close()
        left = self.left()
        for process in left:
            process.kill()
        if kind is None:
            assert not left

    def __getitem__(self, host):
        return self.hosts[host]

    def left(self, within=3):
        """Processes of these hosts that still live after so many seconds."""
        until = monotonic() + within
        while (left := [p for p in psutil.process_iter() if self._is_ours(p)]) and (
            monotonic() < until
        ):
            sleep(0.05)
        return left

    def _is_ours(self, process):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if process.pid in self.pids:
                return True
            return process.environ().get(TOKEN) == self.token
        except psutil.Error:
            return False

    def ends(self, within=LONG):
        """What each host printed and has not been read yet, once all have ended well."""
        return [host.ends(0, within) for host in self.hosts]


def pipes(environ):
    return {
        "env": environ, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT, "text": True,
    }  # fmt: skip


class Host:
    """A process whose lines are read as they come."""

    def __init__(self, process):
        self.process, self.read = process, []
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._copy, daemon=True)
        self._reader.start()

    def _copy(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, start, within=LONG):
        """The next line that begins so, less its beginning."""
        end = monotonic() + within
        while True:
            line = self._lines.get(timeout=max(0.01, end - monotonic()))
            assert line is not None, f"no {start!r} in\n{self.text()}"
            self.read.append(line)
            if line.startswith(start):
                return line.removeprefix(start)

    def ends(self, status, within=LONG):
        """The lines that are left, once it has ended as expected."""
        found = self.process.wait(within)
        self._reader.join(5)
        lines = list(iter(self._lines.get, None))
        self.read += lines
        assert status is None or found == status, f"status {found} of\n{self.text()}"
        return lines

    def text(self):
        return "\n".join(self.read)

    def signal(self, number):
        self.process.send_signal(number)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        self.process.stdout.close()


def script(name, *arguments):
    """The command line of a program beside this file."""
    return [sys.executable, *WARNINGS, TESTS / name, *arguments]


def program(**wishes):
    """The command line of a training, and what is to be different about it."""
    return script("host_program.py", *(f"{k}={json.dumps(v)}" for k, v in wishes.items()))


def error_of(host, status=3, within=30):
    """The name, the seconds that it took since the last epoch, and the message."""
    host.ends(status, within)
    (line,) = [line for line in host.read if line.startswith("error ")]
    name, seconds, message = re.match(r"error (\w+) ([\d.]+) (.*)", line).groups()
    return name, float(seconds), message

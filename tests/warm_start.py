"""Programs that begin with torch, Keras and Phalanx loaded: forked from a process that has them.

Loading takes each host seconds, and dozens of hosts are started by the tests. `python warm_start.py
N` is that process; it is told over the socket N what to run.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import warnings
from functools import cached_property

MOST = 1 << 16  # bytes of a message
LIBRARIES = (
    "torch", "torch.distributed", "keras", "psutil", "phalanx", "phalanx.estimators.base",
    "phalanx.clusters.hosts.gloo", "phalanx.fitting.pytorch.modules",
    "phalanx.fitting.keras3.models",
)  # fmt: skip


living = set()  # pids
current = None  # while tests that use the fixture `warm` run


class WarmStart:
    """The process, seen by who wants programs run."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, __file__, str(theirs.fileno())]
            environ = os.environ | {"KERAS_BACKEND": "torch"}
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], env=environ)
        living.add(self._process.pid)

    def popen(self, host, argv, env, **options):
        """A program, much as subprocess.Popen gives it; its standard error goes with its output."""
        reading, writing = os.pipe()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        message = json.dumps({"argv": argv[argv.index(sys.executable) + 1 :], "env": env}).encode()
        with theirs:
            socket.send_fds(self._sock, [message], [writing, theirs.fileno()])
        os.close(writing)
        return Forked(mine, reading)

    def close(self):
        self._sock.close()
        self._process.wait()
        living.remove(self._process.pid)


class Forked:
    """A process that is not our child; its keeper says over a socket what became of it."""

    def __init__(self, sock, reading):
        self._sock, self.returncode = sock, None
        self.stdout = os.fdopen(reading)

    @cached_property
    def pid(self):
        return int(self._sock.recv(MOST))

    def poll(self):
        if self.returncode is None and select.select([self._sock], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout=None):
        self.pid  # noqa: B018  what is said first
        if self.returncode is None:
            if not select.select([self._sock], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a program", timeout or 0)
            self.returncode = int(self._sock.recv(MOST))
            self._sock.close()
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def serve(sock):
    """Fork for each message; returns in the child, with its message and where its output goes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, (writing, keeping), _, _ = receive(sock)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sock.close()
            pid = os.fork()
            if pid == 0:
                os.close(keeping)
                return json.loads(message), writing
            os.close(writing)
            with socket.socket(fileno=keeping) as keeper:
                keeper.send(str(pid).encode())
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                keeper.send(str(status).encode())
            os._exit(0)
        os.close(writing)
        os.close(keeping)


def receive(sock):
    received = socket.recv_fds(sock, MOST, 2)
    if not received[0]:
        os._exit(0)
    return received


def run(told, writing):
    """Be the program."""
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", 1, closefd=False) for fd in (1, 2))
    os.environ.clear()
    os.environ.update(told["env"])
    argv = told["argv"]
    warnings.simplefilter("error")
    while argv[0] == "-W":
        if argv[1] != "error":
            action, message, category = argv[1].split(":")
            warnings.filterwarnings(action, message, vars(__builtins__)[category])
        argv = argv[2:]
    sys.argv = argv
    sys.path[:0] = [os.path.dirname(argv[0])]
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    for library in LIBRARIES:
        __import__(library)
    gc.freeze()  # so that programs do not copy all this to look through it, in turn, when they end
    run(*serve(socket.socket(fileno=int(sys.argv[1]))))

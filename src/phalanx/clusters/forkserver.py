"""The fork server: a small process with the libraries loaded, from which workers are forked.

A fork takes about 10 ms where a new interpreter takes 200. Unlike `multiprocessing`'s, it never
imports the user's main module, so a script needs no main guard. It has a single thread, so
forking it is safe. It ends, and takes its workers along, when the driver does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import signal
import socket
import sys
from collections.abc import Sequence
from time import monotonic, sleep
from typing import NoReturn

from phalanx.clusters import wire

PR_SET_PDEATHSIG = 1
FORK_PATIENCE = 5.0  # seconds for the system to have room for one more process


def main(descriptor: int) -> None:
    """Serve forks over the socket `descriptor` until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the driver may have it ignored
    driver = socket.socket(fileno=descriptor)
    children: set[int] = set()
    try:
        sys.path[:], _ = wire.receive(driver)
        import phalanx.clusters.process  # noqa: F401  (loads the libraries)

        while True:
            request, descriptors = wire.receive(driver)
            if request[0] == "fork":
                gc.freeze()  # what is loaded stays: workers need not look through it, nor copy it
                pid = _fork(driver, request[1], descriptors[0])
                if isinstance(pid, int):
                    children.add(pid)
                wire.send(driver, pid)
            elif request[0] == "load":
                _load(request[1])
                wire.send(driver, None)
            else:
                wire.send(driver, _end(request[1], children))
    except (EOFError, BrokenPipeError):
        pass
    finally:
        for pid in list(children):
            _end(pid, children)
    _end_at_once()


def _load(libraries: Sequence[str]) -> None:
    """Import what workers will need, so that a fork has it; what cannot be imported, a worker will
    miss, and say so."""
    os.environ["KERAS_BACKEND"] = "torch"
    for library in libraries:
        with contextlib.suppress(Exception):
            importlib.import_module(library)
    gc.collect()


def _fork(driver: socket.socket, rank: int, descriptor: int) -> int | OSError:
    """The pid of a new worker, or why there is none."""
    server = os.getpid()
    pid = _pid_or_error()
    if pid == 0:
        driver.close()
        _become_worker(server, rank, descriptor)
    os.close(descriptor)
    return pid


def _pid_or_error() -> int | OSError:
    """What a fork returns, tried for a while where the system has no room for one more process."""
    deadline = monotonic() + FORK_PATIENCE
    while True:
        try:
            return os.fork()
        except OSError as error:
            if monotonic() > deadline:
                return error
        sleep(0.05)


def _become_worker(server: int, rank: int, descriptor: int) -> NoReturn:
    from phalanx.clusters.process import serve

    status = 1
    if isinstance(sys.stdout, io.TextIOWrapper):  # a closed one is None
        sys.stdout.reconfigure(line_buffering=True)  # what is printed is not lost with a worker
    try:
        die_with_parent(server)
        serve(socket.socket(fileno=descriptor), rank)
        status = 0
    finally:
        os._exit(status)  # never through the server's own stack and exit handlers


def _end(pid: int, children: set[int]) -> int | None:
    """Make sure that a child is gone; its exit code, or minus the signal that ended it.

    None for a child of an earlier fork server, which the kernel ended together with it.
    """
    if pid not in children:
        return None
    os.kill(pid, signal.SIGKILL)  # of no effect on one that has ended and waits to be asked after
    _, status = os.waitpid(pid, 0)
    children.discard(pid)
    return os.waitstatus_to_exitcode(status)


def _end_at_once() -> NoReturn:
    """To take libraries down in order takes up to a second, for which the driver would wait."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a closed one is None
        stream.flush()
    os._exit(0)


def die_with_parent(parent: int) -> None:
    """Have Linux end this process when its parent ends; elsewhere the closed socket does."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

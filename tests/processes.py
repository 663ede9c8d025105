"""Which processes still run: a zombie that nobody has reaped yet does not; and what a forked child
comes to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

import psutil


def still_running(pids: Iterable[int], within: float) -> list[int]:
    """Those of the processes that still run after `within` seconds."""
    until = time.monotonic() + within
    left = list(pids)
    while (left := [pid for pid in left if _runs(pid)]) and time.monotonic() < until:
        time.sleep(0.01)
    return left


def in_a_child(function: Callable[[], int]) -> int:
    """The exit status of a forked child that calls a function."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            status = function()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

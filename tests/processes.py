"""Which processes still run: a zombie that nobody has reaped yet does not."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil


def still_running(pids: Iterable[int], within: float) -> list[int]:
    """Those of the processes that still run after `within` seconds."""
    until = time.monotonic() + within
    left = list(pids)
    while (left := [pid for pid in left if _runs(pid)]) and time.monotonic() < until:
        time.sleep(0.01)
    return left


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

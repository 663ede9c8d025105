"""What a fit must not leave behind: processes, descriptors, mappings of an arena."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from phalanx.clusters import pool


def descriptors() -> set[int]:
    """Open descriptors of this process, less the warm pool's."""
    names = [
        name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")
    ]
    return set(map(int, names)) - _pool_descriptors()


def remains(before: set[int]) -> list[str]:
    """What is left, in words; `before` are the descriptors that were open before the fit."""
    warm = pool._pool
    known = {warm._process.pid, *(member.pid for member in warm.members)} if warm else set()
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    left = [f"process {pid}" for pid in children - known]
    left += [f"an arena in process {pid}" for pid in (os.getpid(), *known) if _maps_an_arena(pid)]
    return left + [f"descriptor {number}" for number in descriptors() - before]


def _pool_descriptors() -> set[int]:
    warm = pool._pool
    if warm is None:
        return set()
    return {warm._server.fileno(), *(member.sock.fileno() for member in warm.members)}


def _maps_an_arena(pid: int) -> bool:
    try:
        return "memfd:phalanx" in Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False  # it was hit after the fit's last word

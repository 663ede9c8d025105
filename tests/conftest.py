"""What every test is held to: it leaves no process, no descriptor and no mapping behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import psutil
import pytest

from phalanx.clusters import pool


@pytest.fixture(autouse=True)
def nothing_is_left():
    """After each test: only the warm pool lives, and nobody still maps an arena."""
    before = _descriptors() - _pool_descriptors()
    yield
    gc.collect()
    warm = pool._pool
    known = {warm._process.pid, *(member.pid for member in warm.members)} if warm else set()
    left = {child.pid for child in psutil.Process().children(recursive=True)} - known
    assert not left, f"processes left behind: {left}"
    for pid in [os.getpid(), *known]:
        assert "memfd:phalanx" not in Path(f"/proc/{pid}/maps").read_text(), f"arena left in {pid}"
    assert _descriptors() - _pool_descriptors() <= before, "descriptors left behind"


@pytest.fixture(autouse=True, scope="session")
def pool_ends():
    """The pool itself is gone when the tests are."""
    yield
    pool.shutdown()
    assert not psutil.Process().children(recursive=True)


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if _is_open(name)}


def _is_open(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def _pool_descriptors() -> set[int]:
    warm = pool._pool
    if warm is None:
        return set()
    return {warm._server.fileno(), *(member.sock.fileno() for member in warm.members)}

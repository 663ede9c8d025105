"""What every test is held to: it leaves no process, no descriptor and no mapping behind."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

import warm_start
from phalanx.clusters import pool

settings.register_profile("phalanx", deadline=None)  # a busy machine is no failure
settings.load_profile("phalanx")


@pytest.fixture(autouse=True)
def nothing_is_left():
    """After each test: only the warm pool lives, and nobody still maps an arena."""
    before = _descriptors() - _pool_descriptors()
    yield
    if _left_behind(before):
        gc.collect()  # a failed fit's traceback may hold its arena in a cycle
    assert not _left_behind(before)


def _left_behind(before: set[int]) -> list[str]:
    warm = pool._pool
    known = {warm._process.pid, *(member.pid for member in warm.members)} if warm else set()
    children = set(_descendants(psutil.Process()))
    left = [f"process {pid}" for pid in children - known]
    left += [
        f"an arena in process {pid}"
        for pid in [os.getpid(), *known]
        if "memfd:phalanx" in _maps(pid)
    ]
    return left + [f"descriptor {fd}" for fd in _descriptors() - _pool_descriptors() - before]


def _descendants(process: psutil.Process) -> Iterator[int]:
    """But for those who start programs for the tests, which look after them."""
    with suppress(psutil.NoSuchProcess):
        for child in process.children():
            if child.pid not in warm_start.living:
                yield child.pid
                yield from _descendants(child)


def _maps(pid: int) -> str:
    """What a process has mapped; nothing, if it was killed while idle and nobody has asked yet."""
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture(scope="module")
def warm():
    """Programs that the tests of a module launch begin with everything loaded."""
    warm_start.current = warm_start.WarmStart()
    yield
    warm_start.current.close()


@pytest.fixture
def ctrl_c():
    """Python's own handler, whatever the shell had these tests begin with."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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

"""The board: 64-bit words of the arena that one worker publishes and others wait for.

A word only ever grows; it holds the number of the last tick (a step or an evaluation) for which
its task is done. Waiting is spinning, then yielding the processor, then sleeping: a wait of a few
microseconds costs no system call, and a long one costs no core.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from phalanx.arena import Arena, Field, Fields

SPINS = 2_000  # about 0.1 ms, longer than a balanced step makes anyone wait
YIELDS = 2_000
NAP = 0.000_2  # seconds
NEVER = 2**62

OPENED, LAST, HALT, ABORT = range(4)

_fence = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_fence=threading.Lock()))


class Aborted(Exception):
    """Somebody else failed; there is nothing more to wait for."""


def board_fields(n_shards: int, n_workers: int) -> Fields:
    """Arena fields of a board for S shards and W workers."""
    return {
        "door": Field((4,), "int64"),
        "shards_done": Field((n_shards,), "int64"),
        "workers_done": Field((n_workers,), "int64"),
    }


class Board:
    """What is open, what is done, and whether to go on."""

    def __init__(self, arena: Arena, n_workers: int) -> None:
        self.door = arena.words("door")
        self.shards = arena.words("shards_done")
        self.workers = arena.words("workers_done")
        # With more workers than processors, whoever spins keeps the awaited one from running.
        self._spins = SPINS if n_workers <= processors() else 0

    def publish(self, words: memoryview[Any], i: int, tick: int) -> None:
        """Let everybody see that word `i` has reached `tick`, and what was written before it."""
        fence()
        words[i] = tick

    def wait(self, words: memoryview[Any], tick: int) -> None:
        """Return once every word has reached `tick`. Raises Aborted if somebody failed."""
        for i in range(len(words)):
            if words[i] < tick:
                self._wait_one(words, i, tick)
        fence()

    def wait_opened(self, tick: int) -> bool:
        """Wait until the leader has opened `tick`; whether it is to be done at all."""
        if self.door[OPENED] < tick:
            self._wait_one(self.door, OPENED, tick)
        fence()
        return bool(tick <= self.door[LAST])

    def open(self, tick: int) -> None:
        """Let everybody begin `tick`."""
        self.publish(self.door, OPENED, tick)

    def close_after(self, tick: int) -> None:
        """Make `tick` the last one; everybody who waits for a later one returns."""
        self.door[LAST] = tick
        self.publish(self.door, OPENED, tick + 1)

    def _wait_one(self, words: memoryview[Any], i: int, tick: int) -> None:
        for _ in range(self._spins):
            if words[i] >= tick:
                return
        pauses = 0
        while words[i] < tick:
            if self.door[ABORT]:
                raise Aborted
            if pauses < YIELDS:
                os.sched_yield()
            else:
                time.sleep(NAP)
            pauses += 1


def fence() -> None:
    """Keep reads and writes before it from moving behind it, and the other way round.

    x86 needs none here; Arm may otherwise show a word before the data that it speaks of. Taking an
    uncontended lock is the one portable fence that Python has.
    """
    with _fence:
        pass


def processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

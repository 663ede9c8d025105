"""The board: 64-bit words of the arena that one worker publishes and others wait for.

At any time a single process may write a word. Most hold the number of the last tick (a step or an
evaluation) for which a task is done, and only ever grow. Waiting is spinning, then yielding
the processor, then sleeping: a wait of a few microseconds costs no system call, and a long one
costs no core.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from typing import Any

from phalanx.arena import Arena, Field, Fields

SPINS = 2_000  # about 0.1 ms, longer than a balanced step makes anyone wait
YIELDS = 2_000
NAP = 0.000_2  # seconds
NEVER = 2**62

# Words of the door. The leader writes OPENED, LAST, PLAN and SNAPSHOT_TAKEN, the courier GATHERED
# and EXCHANGED (the last tick of which other hosts have the shards, and then all that they need),
# the driver all others; HALT the courier too, LAST the driver between leases.
# PLAN counts changes by twos, and is odd while the tasks are being divided.
OPENED, LAST, PLAN, HALT, ABORT, DEATHS, WANTED, SNAPSHOT_DUE, SNAPSHOT_TAKEN = range(9)
GATHERED, EXCHANGED = 9, 10
# Values of HALT: our wish to go on elsewhere; the user's to end, which goes before it.
REGROUP, INTERRUPT = 1, 2

_fence = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_fence=threading.Lock()))


class Aborted(Exception):
    """Somebody else failed; there is nothing more to wait for."""


def board_fields(n_blocks: int) -> Fields:
    """Arena fields of a board for K blocks."""
    words = ("blocks_reduced", "blocks_done")
    return {"door": Field((11,), "int64"), **{name: Field((n_blocks,), "int64") for name in words}}


class Board:
    """What is open, what is done, and whether to go on."""

    def __init__(self, arena: Arena) -> None:
        self.door = arena.words("door")
        self.blocks = arena.words("blocks_done")
        self.reduced = arena.words("blocks_reduced")
        self.spins = 0  # with more workers than processors, spinning keeps the awaited from running

    def publish(self, words: memoryview[Any], i: int, value: int) -> None:
        """Let everybody see that word `i` has reached `value`, and what was written before it."""
        if not IS_ORDERED:
            fence()
        words[i] = value

    def spin(self, words: memoryview[Any], i: int, value: int) -> bool:
        """Wait for as long as is cheap; whether the word has reached `value`."""
        for _ in range(self.spins):
            if words[i] >= value:
                return True
        return bool(words[i] >= value)

    def open(self, tick: int) -> None:
        """Let everybody begin `tick`."""
        self.publish(self.door, OPENED, tick)

    def close_after(self, tick: int) -> None:
        """Make `tick` the last one; everybody who waits for a later one returns."""
        self.door[LAST] = tick
        self.publish(self.door, OPENED, tick + 1)


class Pause:
    """A wait that may be long: it yields at first, and sleeps later on."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> None:
        if self._count < YIELDS:
            os.sched_yield()
        else:
            time.sleep(NAP)
        self._count += 1


def _by_lock() -> None:
    for _ in range(2):
        with _fence:
            pass


def _by_nothing() -> None:
    pass


# A fence keeps reads that come before it before what follows, and writes as well; that a later read
# overtakes a write does no harm here. x86 keeps that order by itself: who writes past its caches
# ends with a fence, or C++'s releases would not hold either. Arm may show a word before the data
# that it speaks of. Taking an uncontended lock is the one portable fence that Python has; twice,
# since what comes before it and what comes after may both slip into it, and change places there.
IS_ORDERED = platform.machine() in ("x86_64", "AMD64")
fence = _by_nothing if IS_ORDERED else _by_lock

"""A worker's presence: it says what it is at, in a word that outlives it, and obeys a script.

The word tells the driver, when the worker is dead or silent, at which task it was. The script is
for tests (pure/faults.py); without one, a phase costs a tenth of a microsecond.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from phalanx.exchange.seats import PHASE_WORDS, Seats, tick_word
from phalanx.pure.faults import Script, Slow, find


class ScriptedError(Exception):
    """The exception of a fault whose action is "raise"."""


class Presence:
    """Of the process that has life `life` of seat `rank`."""

    def __init__(self, seats: Seats, rank: int, life: int, script: Script) -> None:
        self.rank, self.life, self.script = rank, life, script
        self._activity = seats.activity
        self._slow = [line for line in script if isinstance(line, Slow) and line.worker == rank]
        self._beats = seats.beats
        self._begun = time.monotonic()
        self._tick_word = self.step = 0

    def enter(self, tick: int, step: int) -> None:
        """A tick begins, before which `step` optimiser steps were made."""
        self._tick_word, self.step = tick_word(tick), step

    def at(self, phase: str, task: int = 0) -> None:
        """Say that a phase begins."""
        self._activity[self.rank] = self._tick_word + PHASE_WORDS[phase] + task
        if self.script:
            self._obey(phase)

    def say(self, phase: str) -> None:
        """Say that a phase begins, at a place where no script has a say."""
        self._activity[self.rank] = self._tick_word + PHASE_WORDS[phase]

    def beat(self) -> None:
        """Give a sign of life while waiting."""
        self._beats[self.rank] += 1

    def _obey(self, phase: str) -> None:
        action = find(self.script, self.rank, self.life, self.step, phase)
        if action is not None:
            _ACTIONS[action]()
        now = time.monotonic()
        for slow in self._slow:
            if phase in ("publish", "commit") and self.step >= slow.step:
                time.sleep((slow.factor - 1) * (now - self._begun))
        self._begun = time.monotonic()


class Unseen(Presence):
    """Of the only worker of a job: nobody looks, and no script applies to the user's process."""

    def enter(self, tick: int, step: int) -> None:
        """Say nothing."""

    def at(self, phase: str, task: int = 0) -> None:
        """Say nothing."""

    def say(self, phase: str) -> None:
        """Say nothing."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _hang() -> NoReturn:
    while True:
        time.sleep(3600)


def _raise() -> NoReturn:
    raise ScriptedError("a fault of the script")


_ACTIONS: dict[str, Callable[[], None]] = {
    "kill": _kill,
    "segfault": _segfault,
    "exit": lambda: os._exit(1),
    "stop": _stop,
    "hang": _hang,
    "raise": _raise,
}

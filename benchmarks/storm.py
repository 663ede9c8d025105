"""A storm: signals from outside to worker processes, at random moments of a fit."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from types import TracebackType

import psutil

from phalanx.clusters import pool

SECONDS_BETWEEN = 0.06  # on average
STOPPED = 0.01, 1.0  # seconds until a stopped process goes on, where it does
FORK_SERVER = "SIGKILL to the fork server"
MOST_FORK_SERVERS = 3  # killed in a fit; that many a pool replaces for a single worker
STOPPED_FOR_GOOD = "SIGSTOP, for good"
STOPPED_A_WHILE = "SIGSTOP, then SIGCONT"
WEIGHTS = {
    "SIGKILL": 10,
    "SIGSEGV": 4,
    "SIGABRT": 3,
    STOPPED_A_WHILE: 3,
    STOPPED_FOR_GOOD: 1,
    FORK_SERVER: 1,
}
VICTIMS = {"one": 16, "several": 3, "all": 1}


@dataclass(frozen=True)
class Blow:
    """What is to happen: seconds after the last one, to whom, and for how long where it passes."""

    wait: float
    kind: str
    victims: str
    lasts: float


def draw_blows(chance: Random, most: int, spared: Collection[str]) -> list[Blow]:
    """At most `most` blows by chance, of all kinds but those that are spared."""
    weights = [0 if kind in spared else weight for kind, weight in WEIGHTS.items()]
    return [
        Blow(
            wait=chance.expovariate(1 / SECONDS_BETWEEN),
            kind=chance.choices(list(WEIGHTS), weights)[0],
            victims=chance.choices(list(VICTIMS), list(VICTIMS.values()))[0],
            lasts=chance.uniform(*STOPPED),
        )
        for _ in range(chance.randint(1, most))
    ]


class Storm:
    """A context manager: within it, a thread deals out the blows. `sent` counts them by kind."""

    def __init__(self, blows: Sequence[Blow], chance: Random) -> None:
        self.sent: Counter[str] = Counter()
        self._blows, self._chance = blows, chance
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._rage, name="storm", daemon=True)
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        for timer in self._timers:
            timer.join()

    def _rage(self) -> None:
        for blow in self._blows:
            if self._is_over.wait(blow.wait):
                return
            self._strike(blow)

    def _strike(self, blow: Blow) -> None:
        warm = pool._pool
        if warm is None:
            return
        if blow.kind == FORK_SERVER:
            if self.sent[FORK_SERVER] < MOST_FORK_SERVERS:
                self._send(warm._process.pid, signal.SIGKILL, FORK_SERVER)
            return
        pids = [member.pid for member in list(warm.members)]
        number = {"one": 1, "several": self._chance.randint(2, 4), "all": len(pids)}[blow.victims]
        for pid in self._chance.sample(pids, min(number, len(pids))):
            self._hit(pid, blow)

    def _hit(self, pid: int, blow: Blow) -> None:
        name = blow.kind.partition(",")[0]
        if self._send(pid, signal.Signals[name], blow.kind) and blow.kind == STOPPED_A_WHILE:
            timer = threading.Timer(blow.lasts, _go_on, [pid])
            self._timers.append(timer)
            timer.start()

    def _send(self, pid: int, number: signal.Signals, kind: str) -> bool:
        """Whether there was somebody to be hit."""
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
            os.kill(pid, number)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False
        self.sent[kind] += 1
        return True


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):  # somebody may have lost patience with it
        os.kill(pid, signal.SIGCONT)

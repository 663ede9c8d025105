"""The seats: which process of which worker counts, from which tick on, as words of the arena.

A word has one writer at a time, and all but `active` only grow. `born`: the life that has taken the
seat and waits to be admitted, written by its process. `admitted`, `since`: the life that the leader
let in, and the tick from which it counts. `ended`: the life that the driver knows to be over.
`left`: the last tick that the worker has done with. `activity`: what it is at, for whoever asks if
it is dead. `beats`: counts its looks around while it waits. `active`: 1 for those among whom the
leader divided the tasks.
"""

from __future__ import annotations

from typing import NamedTuple

from phalanx.arena import Arena, Field, Fields
from phalanx.exchange.board import DEATHS, NEVER, fence
from phalanx.pure.faults import PHASES

WORDS = ("born", "admitted", "since", "ended", "left", "activity", "beats", "active")
_TASK_BITS, _PHASE_BITS = 24, 4
PHASE_WORDS = {phase: index << _TASK_BITS for index, phase in enumerate(PHASES)}


def seat_fields(n_seats: int) -> Fields:
    """Arena fields of W seats."""
    return {name: Field((n_seats,), "int64") for name in WORDS}


class Activity(NamedTuple):
    """What a worker is at, or was at when it died."""

    tick: int
    phase: str
    task: int


class Seats:
    """All seats of an arena."""

    def __init__(self, arena: Arena) -> None:
        self.born, self.admitted, self.since, self.ended = (
            arena.words(name) for name in ("born", "admitted", "since", "ended")
        )
        self.left, self.activity, self.beats, self.actives = (
            arena.words(name) for name in ("left", "activity", "beats", "active")
        )
        self._door = arena.words("door")
        self.count = len(self.born)

    def members(self) -> list[int]:
        """Ranks that ever counted, the dead included."""
        return [rank for rank in range(self.count) if self.admitted[rank]]

    def alive(self, tick: int) -> list[int]:
        """Ranks that count in `tick` and are not known to be dead."""
        living = [rank for rank in range(self.count) if self.admitted[rank] > self.ended[rank]]
        fence()
        return [rank for rank in living if self.since[rank] <= tick]

    def counts_from(self, rank: int, life: int) -> int:
        """The tick from which a life counts; NEVER as long as it is not let in."""
        if self.admitted[rank] != life:
            return NEVER
        fence()
        return int(self.since[rank])

    def awaits(self, tick: int) -> bool:
        """Whether somebody was let in who counts from a later tick on."""
        return any(
            self.admitted[rank] > self.ended[rank] and self.since[rank] > tick
            for rank in range(self.count)
        )

    def newcomers(self) -> list[int]:
        """Ranks whose process waits to be admitted."""
        return [
            rank
            for rank in range(self.count)
            if self.born[rank] > max(self.admitted[rank], self.ended[rank])
        ]

    def admit(self, rank: int, tick: int) -> None:
        """Let the process that waits in a seat count from `tick` on."""
        self.since[rank] = tick
        fence()
        self.admitted[rank] = self.born[rank]

    def bury(self, rank: int, life: int) -> None:
        """Let everybody know that a life is over."""
        self.ended[rank] = life
        fence()
        self._door[DEATHS] += 1

    def active(self) -> list[int]:
        """Ranks among whom the tasks were divided."""
        return [rank for rank in range(self.count) if self.actives[rank]]

    def at(self, rank: int) -> Activity:
        """What the last process of a seat said that it was at."""
        word = self.activity[rank]
        phase = PHASES[(word >> _TASK_BITS) & ((1 << _PHASE_BITS) - 1)]
        return Activity(word >> (_TASK_BITS + _PHASE_BITS), phase, word & ((1 << _TASK_BITS) - 1))


def tick_word(tick: int) -> int:
    """What a tick adds to the word of an activity."""
    return tick << (_PHASE_BITS + _TASK_BITS)

"""A worker's post: what all its parts know of where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from phalanx.arena import Arena
from phalanx.engine.exchange import Exchange
from phalanx.engine.presence import Presence, Unseen
from phalanx.engine.share import Share
from phalanx.exchange.board import ABORT, EXCHANGED, GATHERED, Aborted, Board, Pause
from phalanx.exchange.seats import Seats
from phalanx.job import SPAN_COLUMNS, Job
from phalanx.pure.faults import Script
from phalanx.pure.timetable import Moment, Timetable

BEGUN, COMPUTE, UPDATE, WAIT, SHARDS = range(SPAN_COLUMNS)
UNKNOWN_TIME = 0.01  # seconds of a shard, for a worker that has computed none


class Post:
    """Of one worker in one job. tick, moment: what it is at; timetable: of the present lease."""

    timetable: Timetable
    moment: Moment

    def __init__(
        self, job: Job, arena: Arena, rank: int, life: int, script: Script, exchange: Exchange
    ) -> None:
        self.job, self.rank, self.life, self.exchange = job, rank, life, exchange
        self.board, self.seats = Board(arena), Seats(arena)
        presence = Presence if job.has_process else Unseen
        self.presence = presence(self.seats, rank, life, script)
        self.share = Share(job, arena, self.board, self.seats, rank)
        self.speed = arena.words("speed")[2 * rank : 2 * rank + 2]  # shards computed, seconds
        self._spans = arena.words("spans")
        self._first_span = rank * arena["spans"][0].size
        self._is_alone = job.place.is_alone
        self.tick = 0

    def enter(self, tick: int) -> None:
        """Stand at a tick that is open."""
        self.tick, self.moment = tick, self.timetable.at(tick)
        self.presence.enter(tick, self.moment.updates)
        if self.share.is_outdated():
            self.share.muster(tick)
        self.presence.at("enter")

    def leave(self) -> None:
        """Say that I have done with this tick."""
        self.presence.at("leave")
        self.board.publish(self.seats.left, self.rank, self.tick)

    @property
    def has_begun(self) -> bool:
        """Whether I have been at any tick of this lease."""
        return self.tick > self.timetable.tick

    @property
    def is_gathered(self) -> bool:
        """Whether the other hosts have the shards of this one, and this one theirs."""
        return self._is_alone or bool(self.board.door[GATHERED] >= self.tick)

    @property
    def is_exchanged(self) -> bool:
        """Whether the other hosts have all that they need of this tick."""
        return self._is_alone or bool(self.board.door[EXCHANGED] >= self.tick)

    def hear(self) -> bool:
        """Whether somebody has died since I last looked. Raises Aborted if somebody failed."""
        if self.board.door[ABORT]:
            raise Aborted
        return self.share.hear(self.tick)

    def waiting(self) -> Iterator[Wait]:
        """Turns of a wait that may be long, each with a sign of life."""
        wait, pause = Wait(2 * self._shard_time() + 0.002), Pause()
        while True:
            self.presence.beat()
            yield wait
            pause()

    def _shard_time(self) -> float:
        shards, seconds = self.speed
        return seconds / shards if shards else UNKNOWN_TIME

    def note(self, compute: float, update: float, wait: float, shards: int) -> None:
        """Add seconds and shards to my line of this epoch."""
        place, spans = self._first_span + SPAN_COLUMNS * self.moment.row, self._spans
        if not spans[place]:
            spans[place] = monotonic() - compute - update - wait
        spans[place + COMPUTE] += compute
        spans[place + UPDATE] += update
        spans[place + WAIT] += wait
        spans[place + SHARDS] += shards


class Wait:
    """Since when somebody waits, and when the awaited counts as late: after twice the time that I
    need for a shard, since by then I could have done it myself."""

    def __init__(self, patience: float) -> None:
        self._patience, self._since = patience, monotonic()

    @property
    def is_long(self) -> bool:
        return monotonic() - self._since > self._patience

    def begin_anew(self) -> None:
        """I have done something in between."""
        self._since = monotonic()

"""The courier: brings what other hosts have done into this host's arena, and sends them ours.

For the workers of a host it is one more doer, behind all seats. The other hosts' shards are done
when it says so: then the part of their gradients that is reduced here lies in the shards' home
slots. So are the blocks that are reduced elsewhere, if any are. Nobody updates a block of a step
before all of that has come, so a step whose exchange fails has changed nothing, on no host that it
failed on.

Everything is sent in the same order everywhere: the j-th rows of all hosts, then the shards'
figures; then the reduced blocks, and their squares.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import numpy as np

from phalanx.arena import Arena
from phalanx.engine.lanes import Arriving, lanes_of, shard_lanes_of
from phalanx.engine.rows import rows_of
from phalanx.exchange.board import (
    ABORT,
    EXCHANGED,
    GATHERED,
    HALT,
    LAST,
    OPENED,
    Aborted,
    Board,
    Pause,
    fence,
)
from phalanx.exchange.group import Group, Look
from phalanx.exchange.tally import Tally
from phalanx.job import Job
from phalanx.pure.arrays import Array
from phalanx.pure.timetable import EVALUATION, Timetable


class Courier:
    """Of one host in one job; see engine/exchange.py: Exchange.

    wish: a value of the door's word HALT, for all hosts to heed after one and the same tick.
    """

    def __init__(self, job: Job, arena: Arena, group: Group) -> None:
        self.job, self.arena, self.group = job, arena, group
        self.host, self.count = job.place.host, job.place.count
        self.board = Board(arena)
        self.door = self.board.door
        self.ranks = range(job.n_seats)
        self.shards_done = Tally(arena, "shards_done", job.courier)
        self.chunks_done = Tally(arena, "chunks_done", job.courier)
        self.rows = rows_of(job, arena, self.shards_done)
        self.results_WSR, self.squares_K = arena["results"], arena["squares"]
        self.reduced_N, self.partials = arena["reduced"], arena["partials"]
        self.shard_lanes, self.lanes = shard_lanes_of(job), lanes_of(job)
        self.wish = 0
        self._at = -1
        self._flights: list[list[Arriving]] = []

    def begin(self, timetable: Timetable) -> None:
        self.timetable = timetable

    def run(self, timetable: Timetable) -> None:
        """Exchange tick after tick beside the workers, until the door is closed.

        Raises HostLost, and Aborted where a worker of this host has failed.
        """
        self.begin(timetable)
        tick = timetable.tick
        while True:
            tick += 1
            self._wait_until_open(tick)
            if tick > self.door[LAST]:
                return
            if timetable.at(tick).step == EVALUATION:
                self.chunks(tick)
            else:
                self.shards(tick)
                self.blocks(tick)

    def look(self, tick: int) -> None:
        """Send those of this host's shards that are done, in their order."""
        if self._at != tick:
            self._begin_step(tick)
        while len(self._flights) < self._n_turns:
            rows = self.rows.turn(len(self._flights))
            if rows is None:
                return
            self._flights.append([lane.scatter(self.group, rows) for lane in self.shard_lanes])

    def shards(self, tick: int) -> None:
        def all_are_sent() -> bool:
            self.look(tick)
            return len(self._flights) == self._n_turns

        self._wait(all_are_sent)
        figures = self._send_figures(tick)
        for flight in chain(*self._flights):
            flight.land(self._look_around)
        self._flights = []
        self.rows.land()
        self._heed(figures.land(self._look_around))
        self.board.publish(self.door, GATHERED, tick)
        self._publish(self.shards_done, self._live_parts, self._live, tick)

    def blocks(self, tick: int) -> None:
        if self.job.divides_blocks:
            self._spread(tick)
        self.board.publish(self.door, EXCHANGED, tick)

    def chunks(self, tick: int) -> None:
        done, parts = self.chunks_done, self.job.chunk_parts
        here = parts[self.host]
        self._wait(lambda: all(done.doer(v, tick, self.ranks) is not None for v in here))
        mine = self.partials[self.job.courier]
        for v, doer in self._doers(done, here, tick):
            mine[v] = self.partials[doer, v]
        figures = self._send(parts, mine, (self.wish,))
        self._heed(figures.land(self._look_around))
        self._publish(done, parts, len(mine), tick)
        self.board.publish(self.door, EXCHANGED, tick)

    def _spread(self, tick: int) -> None:
        """Send the blocks that were reduced here, bring the others."""
        reduced, parts = self.board.reduced, self.job.block_parts
        here = parts[self.host]
        self._wait(lambda: all(reduced[k] >= tick for k in here))
        fence()
        flights = [lane.spread(self.group, self.reduced_N) for lane in self.lanes]
        if self.job.clip.norm is not None:
            self._send(parts, self.squares_K[:, np.newaxis]).land(self._look_around)
        for flight in flights:
            flight.land(self._look_around)
        for k in chain(*parts):
            if k not in here:
                self.board.publish(reduced, k, tick)

    def _wait_until_open(self, tick: int) -> None:
        """For this host alone: its workers may be updating, and what is exchanged is to be
        committed whoever is lost meanwhile."""
        pause = Pause()
        while self.door[OPENED] < tick:
            self._look_around()
            pause()
        fence()

    def _begin_step(self, tick: int) -> None:
        self._at, self._flights = tick, []
        self._live = len(self.job.plan.shards(self.timetable.at(tick).step))
        self._live_parts = self.job.live_parts(self._live)
        self._n_turns = self.rows.begin(tick, self._live_parts)

    def _send_figures(self, tick: int) -> Figures:
        """Loss, weight and measures of each shard."""
        done, parts = self.shards_done, self._live_parts
        mine_SR = self.results_WSR[self.job.courier]
        for s, doer in self._doers(done, parts[self.host], tick):
            mine_SR[s] = self.results_WSR[doer, s]
        return self._send(parts, mine_SR, (self.wish,))

    def _doers(self, done: Tally, tasks: range, tick: int) -> list[tuple[int, int | None]]:
        """Tasks that are done, each with who has done it, whose results may then be read: he may
        be another one than at an earlier look."""
        doers = [(task, done.doer(task, tick, self.ranks)) for task in tasks]
        fence()
        return doers

    def _heed(self, wishes_H: Array) -> None:
        """Halt after this tick if a host wishes to."""
        halt = int(wishes_H.max())
        if halt:
            self.door[HALT] = halt

    def _publish(self, done: Tally, parts: list[range], n_tasks: int, tick: int) -> None:
        here = parts[self.host]
        for task in range(n_tasks):
            if task not in here:
                done.publish(task, tick)

    def _send(self, parts: list[range], rows_XR: Array, header: tuple[float, ...] = ()) -> Figures:
        return Figures(self.group, self.host, parts, rows_XR, header)

    def _wait(self, is_there: Callable[[], bool]) -> None:
        """For something of this host. Raises Aborted, HostLost."""
        pause = Pause()
        while not is_there():
            self._look_around()
            self.group.check()
            pause()

    def _look_around(self) -> None:
        if self.door[ABORT]:
            raise Aborted


class Figures:
    """Rows of figures that each host has a part of, on their way to all; before them a header."""

    def __init__(
        self, group: Group, host: int, parts: list[range], rows_XR: Array, header: tuple[float, ...]
    ) -> None:
        self._host, self._parts, self._rows_XR, self._n = host, parts, rows_XR, len(header)
        here, width = parts[host], rows_XR.shape[1]
        mine_n = np.zeros(self._n + max(map(len, parts)) * width)
        mine_n[: self._n] = header
        mine_n[self._n : self._n + len(here) * width] = rows_XR[here.start : here.stop].ravel()
        self._all_Hn = np.empty((len(parts), len(mine_n)))
        self._pending = group.all_gather(mine_n, self._all_Hn)

    def land(self, look: Look) -> Array:
        """Wait until the rows of the others are in their places; returns all hosts' headers."""
        self._pending.wait(look)
        n, width = self._n, self._rows_XR.shape[1]
        for host, part in enumerate(self._parts):
            if host != self._host:
                theirs_n = self._all_Hn[host, n : n + len(part) * width]
                self._rows_XR[part.start : part.stop] = theirs_n.reshape(len(part), width)
        return self._all_Hn[:, :n]

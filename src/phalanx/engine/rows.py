"""The rows that hosts send each other, turn by turn: in each, a host sends one or none.

A row is what a shard leaves, its gradient or its factors; or, where exactness was given up, the
mean of a host's shards.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from phalanx.arena import Arena
from phalanx.engine.factors import Factors
from phalanx.engine.slots import Slots
from phalanx.exchange.board import fence
from phalanx.exchange.tally import Tally
from phalanx.job import Job
from phalanx.pure.aggregation import mean
from phalanx.pure.arrays import Array
from phalanx.pure.factors import pack, unpack
from phalanx.pure.layout import Kind


class Rows(Protocol):
    """Seen by one host."""

    def begin(self, tick: int, parts: list[range]) -> int:
        """A step begins, in which each host has these shards; returns the number of turns."""

    def turn(self, j: int) -> list[Array | None] | None:
        """The row of each host, and None for who has none: mine to be sent, the others' where they
        are to come. None as long as mine is not there."""

    def land(self) -> None:
        """All rows of the step have come: put them where they belong."""


class ShardTurns:
    """Every shard by itself: turn j has the j-th of each host."""

    def __init__(self, job: Job, done: Tally) -> None:
        self.here, self._ranks, self._done = job.place.host, range(job.n_seats), done

    def begin(self, tick: int, parts: list[range]) -> int:
        """As Rows.begin."""
        self._tick, self.parts = tick, parts
        return max(map(len, parts))

    def shards(self, j: int) -> list[int | None]:
        """Of each host, and None for who has none."""
        return [part[j] if j < len(part) else None for part in self.parts]

    def doer(self, s: int) -> int | None:
        """Who has done a shard of mine, if it is there."""
        doer = self._done.doer(s, self._tick, self._ranks)
        if doer is not None:
            fence()
        return doer


class ShardRows:
    """Every shard's gradient by itself."""

    def __init__(self, job: Job, arena: Arena, done: Tally) -> None:
        self._turns = ShardTurns(job, done)
        self._slots = Slots(arena, 0, job.model.size)
        self._homes, self._owners_S = arena["grads"], arena["shard_owner"]

    def begin(self, tick: int, parts: list[range]) -> int:
        return self._turns.begin(tick, parts)

    def turn(self, j: int) -> list[Array | None] | None:
        shards = self._turns.shards(j)
        rows: list[Array | None] = [None if s is None else self._homes[s] for s in shards]
        mine = shards[self._turns.here]
        if mine is not None:
            doer = self._turns.doer(mine)
            if doer is None:
                return None
            rows[self._turns.here] = self._slots.one(mine, doer, int(self._owners_S[mine]))
        return rows

    def land(self) -> None:
        """They have come to their slots."""


class FactorRows:
    """Every shard's factors by themselves, packed into a parcel."""

    def __init__(self, job: Job, arena: Arena, done: Tally) -> None:
        assert job.model.factors is not None
        self._turns = ShardTurns(job, done)
        self._courier, self._owners_S = job.courier, arena["shard_owner"]
        self._factors, self._layout = Factors(arena, job.model.factors), job.model.factors
        self._parcels_Sn = arena["parcels"]

    def begin(self, tick: int, parts: list[range]) -> int:
        return self._turns.begin(tick, parts)

    def turn(self, j: int) -> list[Array | None] | None:
        shards = self._turns.shards(j)
        mine = shards[self._turns.here]
        if mine is not None:
            doer = self._turns.doer(mine)
            if doer is None:
                return None
            factors = self._factors.at(doer, int(self._owners_S[mine]))
            pack(factors, self._layout.columns([mine]), self._parcels_Sn[mine])
        return [None if s is None else self._parcels_Sn[s] for s in shards]

    def land(self) -> None:
        home = self._factors.at(self._courier, self._courier)
        for host, part in enumerate(self._turns.parts):
            for s in part if host != self._turns.here else ():
                unpack(self._parcels_Sn[s], home, self._layout.columns([s]))


class HostRows:
    """The mean of each host's shards, weighted by samples, in a single turn; see Job.exact."""

    def __init__(self, job: Job, arena: Arena, done: Tally) -> None:
        self._here, self._ranks, self._done = job.place.host, range(job.n_seats), done
        self._rows_HN, self._owners_S = arena["host_rows"], arena["shard_owner"]
        self._results_WSR = arena["results"]
        self._rounding = job.rounding
        self._blocks = [(block, Slots(arena, *block[:2])) for block in job.blocks]

    def begin(self, tick: int, parts: list[range]) -> int:
        self._tick, self._parts = tick, parts
        return 1

    def land(self) -> None:
        """They have come to their rows."""

    def turn(self, j: int) -> list[Array | None] | None:
        here = self._parts[self._here]
        found = ((s, self._done.doer(s, self._tick, self._ranks)) for s in here)
        doers = {s: doer for s, doer in found if doer is not None}
        if len(doers) < len(here):
            return None
        if here:
            fence()
            self._fill(doers, here)
        return [self._rows_HN[h] if part else None for h, part in enumerate(self._parts)]

    def _fill(self, doers: dict[int, int], shards: range) -> None:
        """Put the mean of my shards into my row."""
        row_N, owners = self._rows_HN[self._here], self._owners_S.tolist()
        is_home = all(owners[s] == doer for s, doer in doers.items())
        weights_S = np.array([self._results_WSR[doers[s], s, 1] for s in shards])
        for block, slots in self._blocks:
            if is_home:
                rows_Sn = slots.home(shards.stop, shards.start)
            else:
                rows_Sn = slots.gathered(shards, doers, owners)
            into_n = row_N[block.start : block.stop]
            into_n[...] = rows_Sn[0] if block.kind is Kind.COPIED else mean(rows_Sn, weights_S)
            if block.kind is Kind.TRAINED:
                self._rounding.apply(into_n)


def rows_of(job: Job, arena: Arena, done: Tally) -> Rows:
    """See the module."""
    if job.model.factors is not None:
        return FactorRows(job, arena, done)
    return HostRows(job, arena, done) if job.sends_means else ShardRows(job, arena, done)

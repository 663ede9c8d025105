"""A worker's share: which tasks fall to it, who else there is, and whom it may help.

The leader's plan says who owns what; the words of the seats say who lives. Both are looked at
anew at the edge of a tick, and while waiting whenever somebody has died.
"""

from __future__ import annotations

from phalanx.arena import Arena
from phalanx.exchange.board import DEATHS, PLAN, SPINS, Board, fence
from phalanx.exchange.processors import processors
from phalanx.exchange.seats import Seats
from phalanx.job import Job
from phalanx.pure.assignment import is_dynamic, is_sooner
from phalanx.pure.membership import heirs


class Share:
    """What one worker has to do in the present tick.

    owners: by the plan, of each shard. heirs: who really does it. shards, blocks, chunks: mine;
    reductions: the blocks that I reduce; those that I update, unless hosts divide them.
    expected: index of the word by which each shard's heir publishes it. others: all ranks but mine
    that ever counted. active: those among whom the plan divides. is_whole: no owner is dead, and I
    was there before this tick, so nobody has left anything of it undone.
    is_regular: whole, and nobody takes another's shard before it is late.
    leads: I am the first of the living. may_help: the plan counts on me.
    """

    def __init__(self, job: Job, arena: Arena, board: Board, seats: Seats, rank: int) -> None:
        self.job, self.board, self.seats, self.rank = job, board, seats, rank
        self._shard_owner, self._block_owner = arena["shard_owner"], arena["block_owner"]
        self._reducer = arena["block_reducer"]
        self._elsewhere = [] if job.place.is_alone else [job.courier]
        self._chunks_here = job.chunk_parts[job.place.host]
        self._begun = arena.words("shards_begun")
        self._is_dynamic = is_dynamic(job.assignment)
        self._processors = processors()
        self._news = (-1, -1)
        self.leads = False

    def muster(self, tick: int) -> None:
        """Look at the plan and at who lives."""
        door, seats = self.board.door, self.seats
        self._news = door[PLAN], door[DEATHS]
        fence()  # what the leader had changed, and what the dead had done, is to be seen as well
        alive, self.active = seats.alive(tick), seats.active()
        is_new = seats.since[self.rank] == tick  # a former process of mine may have been in it
        self.is_whole = not is_new and set(self.active) <= set(alive)
        self.is_regular = self.is_whole and not self._is_dynamic
        self._take_tasks(alive)
        self.alive_others = [rank for rank in alive if rank != self.rank]
        self.others = [rank for rank in seats.members() if rank != self.rank] + self._elsewhere
        self.leads = alive[:1] == [self.rank]
        self.may_help = self.rank in self.active
        self.board.spins = SPINS if len(self.active) <= self._processors else 0
        is_torn = self._news[0] % 2  # a leader has died while it divided, and nobody did so anew
        if is_new or is_torn or seats.awaits(tick):
            self._look_again()

    def _take_tasks(self, alive: list[int]) -> None:
        """Find out who owns each task by the plan, who really does it, and which are mine."""
        turns = self.active or alive
        chunk_owners = [
            turns[v % len(turns)] if v in self._chunks_here else self.job.courier
            for v in range(len(self.job.chunks))
        ]
        planned = (self._shard_owner, self._block_owner, self._reducer)
        owners = [*(ranks.tolist() for ranks in planned), chunk_owners]
        doers = owners
        if not self.is_whole:
            present = [*alive, *self._elsewhere]
            doers = [heirs(ranks, present, self.active, self.seats.count) for ranks in owners]
        self.owners, self.heirs = owners[0], doers[0]
        self.shards, self.blocks, reductions, self.chunks = (
            [task for task, doer in enumerate(ranks) if doer == self.rank] for ranks in doers
        )
        self.reductions = reductions if self.job.divides_blocks else self.blocks
        n_shards = self.job.plan.n_shards
        self.expected = [rank * n_shards + s for s, rank in enumerate(self.heirs)]

    def is_outdated(self) -> bool:
        """Whether the plan or the living have changed since I looked."""
        door = self.board.door
        return (door[PLAN], door[DEATHS]) != self._news

    def hear(self, tick: int) -> bool:
        """Look anew if somebody has died, in the middle of a tick; whether somebody had."""
        if self.board.door[DEATHS] == self._news[1]:
            return False
        self.muster(tick)
        self._look_again()
        return True

    def _look_again(self) -> None:
        """At the tick's edge, whatever has changed by then."""
        self._news = -1, self._news[1]

    def begin(self, s: int, tick: int) -> None:
        """Let those who help see that I am at a shard."""
        self._begun[self.rank * self.job.plan.n_shards + s] = tick

    def to_help(self, missing: list[int], tick: int, is_late: bool) -> int | None:
        """A shard that I should compute although it is not mine, or not yet done by me.

        Never another host's: it is late as well for those who must have its part of the blocks.
        """
        missing = [s for s in missing if self.owners[s] not in self._elsewhere]
        unbegun = [s for s in missing if not self.is_begun(s, tick)]
        mine = [s for s in unbegun if self.heirs[s] == self.rank]
        if mine:
            return mine[0]
        if not self.may_help:
            return None
        taken = self._to_take(unbegun) if self._is_dynamic else None
        if taken is not None:
            return taken
        late = (unbegun or missing) if is_late else []
        return late[self.rank % len(late)] if late else None

    def _to_take(self, unbegun: list[int]) -> int | None:
        """A shard that I shall have done before its owner, who comes from the other end."""
        mine = self.owners.count(self.rank)
        for s in reversed(unbegun):
            owner = self.heirs[s]
            n_waiting = sum(self.heirs[other] == owner for other in unbegun)
            if is_sooner(n_waiting, self.owners.count(owner), mine):
                return s
        return None

    def is_begun(self, s: int, tick: int) -> bool:
        """Whether somebody else who lives is at a shard, or has done it."""
        n_shards = self.job.plan.n_shards
        return any(self._begun[rank * n_shards + s] >= tick for rank in self.alive_others)

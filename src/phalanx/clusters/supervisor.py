"""The supervisor: what the driver makes of the arena's words while the workers work.

It sees who has died, who keeps the others waiting, who has joined; lets `membership` decide; and
writes the events down. It carries out nothing itself but the words: crew.py does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic

from phalanx.arena import Arena
from phalanx.clusters.patience import LEAST_BOUND, Patience
from phalanx.clusters.pool import ORPHANED
from phalanx.errors import WorkerLost
from phalanx.exchange.board import ABORT, LAST, OPENED, WANTED
from phalanx.exchange.seats import Activity, Seats
from phalanx.job import Job, Lease
from phalanx.pure import membership
from phalanx.pure.membership import (
    Action,
    Ended,
    GiveUp,
    Joined,
    Seat,
    Start,
    State,
    Stuck,
    Task,
    Wanted,
)
from phalanx.run import Event

GLANCE = 0.05  # seconds between two looks at the arena
QUICK_GLANCE = 0.001  # while somebody has died and the step is not yet committed
IDLE = ("wait", "leave")  # phases in which no task is to blame
DOING = {
    "join": "joining",
    "enter": "beginning a step",
    "read": "reading the samples of shard {}",
    "compute": "computing the gradient of shard {}",
    "publish": "publishing the gradient of shard {}",
    "wait": "waiting for the other shards",
    "reduce": "reducing block {}",
    "norm": "measuring the gradient of block {}",
    "update": "updating block {}",
    "commit": "committing block {}",
    "leave": "waiting for the next step",
    "open": "opening the next step",
    "evaluate": "scoring chunk {} of the validation samples",
    "orphaned": "losing one fork server after another",
}


class Wound:
    """A death whose cost is not known yet."""

    def __init__(self, rank: int, tick: int, step: int) -> None:
        self.rank, self.tick, self.step, self.detail = rank, tick, step, ""
        self.at = monotonic()

    def healed(self) -> Event:
        """The event, once a later step has been opened."""
        cost = 1000 * (monotonic() - self.at)
        return Event("worker lost", self.step, self.detail, self.rank, self.at, cost)


class Supervisor:
    """Of one job on several workers."""

    def __init__(self, job: Job, arena: Arena, tell: Callable[[Event], None]) -> None:
        self.job, self.arena, self._tell = job, arena, tell
        self.seats, self._door = Seats(arena), arena.words("door")
        first = [Seat(State.WORKING, 1)] * job.n_workers
        rest = [Seat()] * (job.n_seats - job.n_workers)
        self.view = membership.View((*first, *rest), job.n_workers)
        for rank in range(job.n_workers):
            self.seats.admitted[rank] = 1
        self._door[WANTED] = self._wish = job.n_workers
        self._wounds: list[Wound] = []
        self._lost_at: dict[int, float] = {}
        self._stuck_lives: set[tuple[int, int]] = set()
        self._patience = Patience(job.n_seats)
        self.timetable = job.timetable(Lease(0, 0, 0, 0))

    def begin(self, lease: Lease) -> None:
        """A lease begins."""
        self.timetable = self.job.timetable(lease)
        self._patience.begin(monotonic(), lease.tick)

    def life(self, rank: int) -> int:
        """Of the process that has the seat, or is to have it."""
        return self.view.seats[rank].life

    def pace(self) -> float:
        """Seconds until the next glance."""
        waits = self._wounds or any(s.state is State.STARTING for s in self.view.seats)
        return QUICK_GLANCE if waits else GLANCE

    def lost(self, rank: int) -> Callable[[str], list[Action]]:
        """A process is gone: tell the living at once. What it returns takes the cause, and says
        what else is to be done."""
        life, activity, tick = self.life(rank), self._activity(rank), self._door[OPENED]
        self.seats.bury(rank, life)
        wound = Wound(rank, tick, self._step(tick))
        self._lost_at[rank] = wound.at

        def decide(cause: str) -> list[Action]:
            if (rank, life) in self._stuck_lives:
                cause = "it was ended for being stuck"
            wound.detail = f"{cause} while {_doing(activity)}"
            self._wounds.append(wound)
            task = Task(tick, "orphaned", 0) if cause == ORPHANED else _task(activity)
            return self._follow(Ended(rank, life, task))

        return decide

    def give_up(self, action: GiveUp, pid: int, cause: str) -> WorkerLost:
        """The error for a task that ends one process after another."""
        task = action.task
        doing = _doing(Activity(task.tick, task.phase, task.index))
        step = self._step(task.tick)
        samples: list[int] = []
        if "shard" in doing:
            plan, moment = self.job.plan, self.timetable.at(task.tick)
            start, stop = plan.shard(moment.step, task.index)
            samples = plan.order(moment.epoch)[start:stop].tolist()
        return WorkerLost(action.rank, pid, f"{doing} in step {step:,}", cause, samples)

    def failed(self) -> None:
        """A worker has raised: the others are to stop."""
        self._door[ABORT] = 1

    def wish(self, n_workers: int) -> None:
        """Have the first `n_workers` seats work from the next step on; heard at the next glance."""
        self._wish = max(1, min(n_workers, self.job.n_seats))

    def _resize(self, n_workers: int) -> list[Action]:
        if n_workers == self.view.wanted:
            return []
        was, self._door[WANTED] = self.view.wanted, n_workers
        self._say("workers changed", f"{was} before, {n_workers} from now on")
        return self._follow(Wanted(n_workers))

    def glance(self, owing: Collection[int]) -> list[Action]:
        """Look at everything once; `owing` are those who have not answered yet."""
        self._see_who_joined()
        self._heal(self._door[OPENED])
        self._let_somebody_in()
        actions = self._resize(self._wish)
        for rank in self._stuck(owing):
            actions += self._name_stuck(rank, "no sign of life")
        return actions

    def stopped(self, rank: int) -> list[Action]:
        """A process is stopped by a signal."""
        return self._name_stuck(rank, "stopped by a signal") if self._is_awaited(rank) else []

    def _activity(self, rank: int) -> Activity:
        """What a process was at; before it has taken its seat, the words are its predecessor's.

        Who joins in a step that is not done again and again is kept from it by what it is sent.
        """
        activity = self.seats.at(rank)
        if activity.phase == "join" or self.seats.born[rank] != self.life(rank):
            return Activity(self._door[OPENED], "join", rank)
        return activity

    def _name_stuck(self, rank: int, how: str) -> list[Action]:
        activity = self._activity(rank)
        self._say("worker stuck", f"{how} while {_doing(activity)}", rank)
        self._stuck_lives.add((rank, self.life(rank)))
        return self._follow(Stuck(rank, self.life(rank), _task(activity)))

    def end(self) -> None:
        """A lease is over."""
        self._heal(self._door[OPENED] + 1)
        self._see_who_joined()

    def _follow(self, event: membership.Event) -> list[Action]:
        self.view, actions = membership.follow(self.view, event)
        for action in actions:
            if isinstance(action, Start):
                self._patience.forget(action.rank)
        return actions

    def _see_who_joined(self) -> None:
        for rank, seat in enumerate(self.view.seats):
            if seat.state is State.STARTING and self.seats.admitted[rank] == seat.life:
                self._follow(Joined(rank, seat.life))
                lost = self._lost_at.pop(rank, None)
                now = monotonic()
                cost = None if lost is None else 1000 * (now - lost)
                what = "a new worker" if lost is None else "took the place of the lost one"
                self._say("worker joined", what, rank, cost)

    def _heal(self, opened: int) -> None:
        for wound in [wound for wound in self._wounds if wound.tick < opened]:
            self._wounds.remove(wound)
            self._tell(wound.healed())

    def _let_somebody_in(self) -> None:
        """Where nobody lives there is no leader to admit a newcomer, so the driver does; or to
        open the tick from which it was to count."""
        opened = self._door[OPENED]
        if not self.seats.alive(opened):
            waiting = self.seats.newcomers() or self.seats.alive(opened + 1)
            for rank in waiting[:1]:
                self.seats.admit(rank, opened)

    def _stuck(self, owing: Collection[int]) -> list[int]:
        """Who has given no sign of life for too long, and is being waited for."""
        signs = list(zip(self.seats.activity, self.seats.beats, strict=True))
        silent = self._patience.silent(monotonic(), self._door[OPENED], signs, owing)
        return [rank for rank in silent if self._is_awaited(rank)]

    def _is_awaited(self, rank: int) -> bool:
        seat, opened = self.view.seats[rank], self._door[OPENED]
        if seat.state in (State.EMPTY, State.ENDING):
            return False
        if seat.state is State.STARTING or opened > self._door[LAST]:
            return True  # the lease is over, or cannot begin, without its answer
        if rank not in self.seats.alive(opened):
            return False
        at = self.seats.at(rank)
        is_at_work = at.tick == opened and at.phase not in IDLE
        # whoever only waits gives signs of life, so in a step that does not end any silence counts
        return is_at_work or self._patience.step_age > LEAST_BOUND

    def _step(self, tick: int) -> int:
        """Optimiser steps before a tick."""
        return (
            self.timetable.at(tick).updates
            if tick > self.timetable.tick
            else (self.timetable.updates)
        )

    def _say(
        self, what: str, detail: str, rank: int | None = None, cost: float | None = None
    ) -> None:
        step = self._step(self._door[OPENED])
        self._tell(Event(what, step, detail, rank, monotonic(), cost))


def _task(activity: Activity) -> Task | None:
    """What may be to blame for a death."""
    if activity.phase in IDLE:
        return None
    return Task(activity.tick, activity.phase, activity.task)


def _doing(activity: Activity) -> str:
    """What a worker was at, in words."""
    return DOING[activity.phase].format(activity.task)

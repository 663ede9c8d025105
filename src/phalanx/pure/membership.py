"""Who works, who has died, who steps up. Pure: events in, actions out.

A seat is a worker's place: its rank. The processes that take it one after another are its lives,
counted from 1. The driver feeds what happens to `follow` and carries out what comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

MIN_DEATHS = 3  # of processes at one and the same task
MAX_HANGS = 6  # likewise; the bound doubles each time, so a task that is merely slow gets through


class State(Enum):
    """Of a seat."""

    EMPTY = "empty"
    STARTING = "starting"
    WORKING = "working"
    ENDING = "ending"  # we have killed it and its end has not been seen yet


@dataclass(frozen=True)
class Seat:
    """One worker's place, and how many processes have had it."""

    state: State = State.EMPTY
    life: int = 0


@dataclass(frozen=True)
class Task:
    """What somebody was at: shard or block `index` in `phase` of a tick."""

    tick: int
    phase: str
    index: int


@dataclass(frozen=True)
class View:
    """All seats, how many of the first are wanted, and who died at which task."""

    seats: tuple[Seat, ...]
    wanted: int
    deaths: dict[Task, int] = field(default_factory=dict)
    hangs: dict[Task, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Joined:
    """The process of a seat has begun to work."""

    rank: int
    life: int


@dataclass(frozen=True)
class Ended:
    """The process of a seat is gone; at which task, if it was at one."""

    rank: int
    life: int
    task: Task | None


@dataclass(frozen=True)
class Stuck:
    """The process of a seat keeps the others waiting for longer than the bound."""

    rank: int
    life: int
    task: Task | None


@dataclass(frozen=True)
class Wanted:
    """The user, or the tuner, wants this many workers."""

    n_workers: int


Event = Joined | Ended | Stuck | Wanted


@dataclass(frozen=True)
class Start:
    """Start a process for a seat."""

    rank: int
    life: int


@dataclass(frozen=True)
class Kill:
    """End the process of a seat; its end will be an event of its own."""

    rank: int
    life: int


@dataclass(frozen=True)
class GiveUp:
    """End the training: `task` has ended or stopped `count` processes."""

    rank: int
    task: Task
    count: int


Action = Start | Kill | GiveUp


def deaths_that_accuse(n_workers: int) -> int:
    """Deaths at one and the same task that are its own fault: more than if two accidents had taken
    all workers each. A fork takes some 20 ms, so a task that kills is soon convicted."""
    return 2 * n_workers + MIN_DEATHS


def follow(view: View, event: Event) -> tuple[View, list[Action]]:
    """The view after an event, and what is to be done. Events of former lives change nothing."""
    match event:
        case Joined(rank, life):
            if view.seats[rank] == Seat(State.STARTING, life):
                return _seated(view, rank, Seat(State.WORKING, life)), []
        case Ended(rank, life, task):
            if view.seats[rank].life == life and view.seats[rank].state is not State.EMPTY:
                return _after_an_end(view, rank, task)
        case Stuck(rank, life, task):
            if view.seats[rank] in (Seat(State.STARTING, life), Seat(State.WORKING, life)):
                return _after_a_hang(view, rank, task)
        case Wanted(n_workers):
            return _filled(replace(view, wanted=n_workers))
    return view, []


def _after_an_end(view: View, rank: int, task: Task | None) -> tuple[View, list[Action]]:
    state, life = view.seats[rank].state, view.seats[rank].life
    emptied = _seated(view, rank, Seat(State.EMPTY, life))
    if task is None or state is State.ENDING:  # a hang, and counted as one
        return _filled(emptied)
    count = view.deaths.get(task, 0) + 1
    counted = replace(emptied, deaths={**view.deaths, task: count})
    gives_up = count >= deaths_that_accuse(view.wanted)
    return (counted, [GiveUp(rank, task, count)]) if gives_up else _filled(counted)


def _after_a_hang(view: View, rank: int, task: Task | None) -> tuple[View, list[Action]]:
    life = view.seats[rank].life
    ending = _seated(view, rank, Seat(State.ENDING, life))
    if task is None:
        return ending, [Kill(rank, life)]
    count = view.hangs.get(task, 0) + 1
    counted = replace(ending, hangs={**view.hangs, task: count})
    return counted, [GiveUp(rank, task, count) if count >= MAX_HANGS else Kill(rank, life)]


def _filled(view: View) -> tuple[View, list[Action]]:
    """Start a process for every wanted seat that is empty."""
    starts: list[Action] = []
    for rank, seat in enumerate(view.seats[: view.wanted]):
        if seat.state is State.EMPTY:
            view = _seated(view, rank, Seat(State.STARTING, seat.life + 1))
            starts.append(Start(rank, seat.life + 1))
    return view, starts


def _seated(view: View, rank: int, seat: Seat) -> View:
    seats = (*view.seats[:rank], seat, *view.seats[rank + 1 :])
    return replace(view, seats=seats)


def heirs(
    owners: Sequence[int], alive: Collection[int], active: Sequence[int], n_seats: int
) -> list[int]:
    """Who does each task: its owner, or the first of the living in the task's line of succession.

    `active` are the ranks among whom the tasks were divided; the others come after all of them.
    Everybody may find this out alone: all before an heir in the line are dead, and the dead stay
    dead, so two workers that know of different deaths never take themselves for the same heir.
    """
    line = [*active, *(rank for rank in range(n_seats) if rank not in active)]
    living = [rank in alive for rank in line]
    return [
        owner if owner in alive else _heir(task, line, living, len(active))
        for task, owner in enumerate(owners)
    ]


def _heir(task: int, line: list[int], living: list[bool], n_active: int) -> int:
    """The first of the living, from a place in the line that differs from task to task."""
    for place in range(n_active):
        turned = (task + place) % n_active
        if living[turned]:
            return line[turned]
    return next(rank for rank, lives in zip(line, living, strict=True) if lives)

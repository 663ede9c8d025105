"""The crew: the worker processes of one job, asked together and answering together.

A member that dies is replaced: the new process is told what the old one had been told. What else
is to be done about it the guard says (supervisor.py for a training).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
from collections.abc import Callable, Collection
from time import monotonic
from typing import NoReturn, Protocol

from phalanx.clusters import wire
from phalanx.clusters.pool import Member, Pool, end_pool
from phalanx.clusters.process import DropJob, Failure
from phalanx.data.caller import own_memory
from phalanx.errors import WorkerError, WorkerLost
from phalanx.pure.membership import Action, GiveUp, Kill, Start

FIRST_LIFE = 1
STOPPED_LOOK = 0.5  # seconds
GRACE = 5.0  # seconds that workers get to leave a step after one of them failed

Setup = Callable[[int], object]  # the message that begins a job, for a life of a seat


class Guard(Protocol):
    """Who says what follows from a death, and from what the arena shows."""

    def life(self, rank: int) -> int: ...

    def pace(self) -> float: ...

    def lost(self, rank: int) -> Callable[[str], list[Action]]: ...

    def glance(self, owing: Collection[int]) -> list[Action]: ...

    def stopped(self, rank: int) -> list[Action]: ...

    def failed(self) -> None: ...

    def give_up(self, action: GiveUp, pid: int, cause: str) -> WorkerLost: ...


class Crew:
    """See the module. A context manager: the members are taken and told of the job on entering,
    and give its memory back on leaving. Owns the descriptor `arena`."""

    def __init__(self, pool: Pool, n_workers: int, setup: Setup, arena: int, guard: Guard) -> None:
        self._pool, self._n_workers, self._setup, self._guard = pool, n_workers, setup, guard
        self._descriptors = arena, own_memory()
        self._setup_body: tuple[int, bytes] = (0, b"")
        self._body: bytes | None = None
        self._failures: dict[int, Failure] = {}
        self._cause = ""
        self._stopped = Stopped()
        self.members: dict[int, Member] = {}

    def __enter__(self) -> Crew:
        try:
            self._setup_body = FIRST_LIFE, wire.pack(self._setup(FIRST_LIFE))
            for member in self._pool.take(self._n_workers):
                self.members[member.rank] = member
                member.due = 0
                self._set_up(member)
        except BaseException:
            if self.members:
                # an answer may be on its way, which the next job would take for its own
                end_pool(self._pool)
            self._close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._pool.is_open:
                self._failures, self._guard = {}, Unguarded()
                self.ask(DropJob())
        except BaseException:
            end_pool(self._pool)
            raise
        finally:
            self._close()

    def _close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def ask(self, message: object | None, look: Callable[[], None] | None = None) -> None:
        """Have every member do what a message says; with None, wait until all are set up. `look` is
        called now and then.

        Raises what the first failed worker raised, once all have stopped, with a WorkerError as its
        cause. Any other error ends the pool, so that nothing is left of it, and the next job starts
        a new one: WorkerLost, if a task ends one process after another; a mere WorkerError, if some
        worker did not stop in time.
        """
        try:
            self._have_done(message, look)
        except BaseException:
            end_pool(self._pool)
            raise
        if self._failures:
            _reraise(*self._first_failure())

    def _have_done(self, message: object | None, look: Callable[[], None] | None) -> None:
        self._body = None if message is None else wire.pack(message)
        for member in list(self.members.values()):
            if self._body is not None:
                self._tell(member, self._body)
        deadline: float | None = None
        while any(member.due for member in self.members.values()):
            self._hear()
            if self._failures:
                deadline = deadline or monotonic() + GRACE
                if monotonic() > deadline:
                    break
            else:
                owing = {rank: member for rank, member in self.members.items() if member.due}
                self._perform(self._guard.glance(owing))
                for rank in self._stopped.look(monotonic(), owing):
                    self._perform(self._guard.stopped(rank))
            if look is not None:
                look()
        self._body = None
        if any(member.due for member in self.members.values()):
            rank, failure = self._first_failure()
            raise WorkerError(rank, failure.summary, failure.traceback)

    def _set_up(self, member: Member) -> None:
        life = self._guard.life(member.rank)
        if self._setup_body[0] != life:
            self._setup_body = life, wire.pack(self._setup(life))
        self._tell(member, self._setup_body[1], self._descriptors)

    def _tell(self, member: Member, body: bytes, descriptors: tuple[int, ...] = ()) -> None:
        member.due += 1
        try:
            wire.send_packed(member.sock, body, descriptors)
        except TimeoutError:
            _end(member)  # stopped, with half a message in its socket
        except OSError:
            pass  # gone; its socket will say so

    def _hear(self) -> None:
        """Take the answers that have come, for a while."""
        by_number = {member.sock.fileno(): member for member in self.members.values()}
        poller = select.poll()
        for number in by_number:
            poller.register(number, select.POLLIN)
        for number, _ in poller.poll(self._guard.pace() * 1000):
            self._take_answer(by_number[number])

    def _take_answer(self, member: Member) -> None:
        try:
            answer, _ = wire.receive(member.sock)
        except (EOFError, OSError):
            self._lose(member)
            return
        member.due -= 1
        if isinstance(answer, Failure):
            self._failures.setdefault(member.rank, answer)
            self._guard.failed()

    def _lose(self, member: Member) -> None:
        """A member is gone: the others are told before anything else is done."""
        del self.members[member.rank]
        decide = self._guard.lost(member.rank)
        self._cause = self._pool.bury(member)
        actions = decide(self._cause)
        if not self._failures:
            self._perform(actions, member.pid)

    def _perform(self, actions: list[Action], pid: int = 0) -> None:
        for action in actions:
            match action:
                case Start(rank):
                    self._start(rank)
                case Kill(rank) if rank in self.members:
                    _end(self.members[rank])
                case GiveUp():
                    raise self._guard.give_up(action, pid, self._cause)

    def _start(self, rank: int) -> None:
        member = self.members[rank] = self._pool.seat(rank)
        member.due = 0
        self._set_up(member)
        if self._body is not None:
            self._tell(member, self._body)

    def _first_failure(self) -> tuple[int, Failure]:
        """Of the lowest rank that failed by itself."""
        own = [rank for rank, failure in self._failures.items() if not failure.aborted]
        rank = min(own or self._failures)
        return rank, self._failures[rank]


def _reraise(rank: int, failure: Failure) -> NoReturn:
    """Raise the worker's own exception, caused by a WorkerError with its rank and traceback."""
    remote = WorkerError(rank, failure.summary, failure.traceback)
    if failure.error is None:
        raise remote from None
    error: BaseException = pickle.loads(failure.error)
    error.add_note(f"raised in worker {rank}")
    raise error from remote


def _end(member: Member) -> None:
    """Kill a process; nobody but its fork server waits for it, so the pid is still its own."""
    with contextlib.suppress(ProcessLookupError):  # the fork server was ended before
        os.kill(member.pid, signal.SIGKILL)


class Stopped:
    """Finds members that the system shows as stopped (SIGSTOP) at two looks, half a second apart:
    they need not be waited for until they count as stuck."""

    def __init__(self) -> None:
        self._looked = 0.0
        self._seen: set[int] = set()

    def look(self, now: float, members: dict[int, Member]) -> list[int]:
        """Ranks of those that are stopped still."""
        if now - self._looked < STOPPED_LOOK:
            return []
        self._looked, before = now, self._seen
        self._seen = {member.pid for member in members.values() if is_stopped(member.pid)}
        return [rank for rank, member in members.items() if member.pid in before & self._seen]


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process; False where the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] == b"T"
    except OSError:
        return False


class Unguarded:
    """A guard for the time when nobody needs to be replaced."""

    def life(self, rank: int) -> int:
        return 0

    def pace(self) -> float:
        return 1.0

    def lost(self, rank: int) -> Callable[[str], list[Action]]:
        return lambda cause: []

    def glance(self, owing: Collection[int]) -> list[Action]:
        return []

    def stopped(self, rank: int) -> list[Action]:
        return [Kill(rank, FIRST_LIFE)]

    def failed(self) -> None:
        pass

    def give_up(self, action: GiveUp, pid: int, cause: str) -> WorkerLost:
        raise NotImplementedError

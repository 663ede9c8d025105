"""Several workers as processes of this machine around one arena in shared memory."""

from __future__ import annotations

import os
import pickle
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, NoReturn

from phalanx.arena import Arena, Field
from phalanx.arrays import Array
from phalanx.clusters import wire
from phalanx.clusters.base import Forward, Session, Watch
from phalanx.clusters.interrupt import on_interrupt
from phalanx.clusters.pool import Member, Pool, shutdown, warm_pool
from phalanx.clusters.process import DropJob, Failure, TakeForward, TakeJob
from phalanx.data.caller import own_memory
from phalanx.data.placement import Placement
from phalanx.data.samples import Samples
from phalanx.errors import WorkerError
from phalanx.exchange.board import ABORT, HALT
from phalanx.job import Job, Lease
from phalanx.worker import Report

GLANCE = 0.05  # seconds between two looks at the progress while workers work
GRACE = 5.0  # seconds that workers get to leave a step after one of them failed


class Processes:
    """See clusters/base.py: Cluster."""

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers

    @contextmanager
    def session(self, job: Job, training: Samples, validation: Samples | None) -> Iterator[Session]:
        place = Placement.of(training, "training/")
        place_validation = Placement.of(validation, "validation/") if validation else None
        fields = job.fields | place.fields(training)
        if validation and place_validation:
            fields |= place_validation.fields(validation)
        with reserved(self.n_workers) as crew:
            arena, descriptor = Arena.shared(fields)
            try:
                with closing_on_error(descriptor):
                    place.copy_in(training, arena)
                    if validation and place_validation:
                        place_validation.copy_in(validation, arena)
                crew.share(TakeJob(job, fields, place, place_validation), descriptor)
                yield _Session(arena, crew)
            finally:
                crew.release()

    def predict(self, work: Forward, params_N: Array, samples: Samples) -> Array:
        place = Placement.of(samples, "samples/")
        shape = (work.n_samples, work.model.n_outputs)
        dtype = params_N.dtype.str
        fields = {"parameters": Field(params_N.shape, dtype), "outputs": Field(shape, dtype)}
        fields |= place.fields(samples)
        with reserved(self.n_workers) as crew:
            arena, descriptor = Arena.shared(fields)
            with closing_on_error(descriptor):
                arena["parameters"][:] = params_N
                place.copy_in(samples, arena)
            crew.share(TakeForward(work, fields, place), descriptor)
            return arena["outputs"].copy()


@contextmanager
def closing_on_error(descriptor: int) -> Iterator[None]:
    """Close a descriptor that nobody was given yet."""
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


_one_job_at_a_time = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_one_job_at_a_time=threading.Lock()))


@contextmanager
def reserved(n_workers: int) -> Iterator[Crew]:
    """Workers of the pool for one job; threads that want some at the same time wait their turn."""
    with _one_job_at_a_time:
        yield Crew(warm_pool(), n_workers)


class _Session:
    def __init__(self, arena: Arena, crew: Crew) -> None:
        self.arena, self._crew = arena, crew

    def run(self, lease: Lease, watch: Watch | None) -> list[Report]:
        with on_interrupt(lambda: self.arena["door"].__setitem__(HALT, 1)):
            return self._crew.ask(lease, arena=self.arena, watch=watch)


class Crew:
    """The workers of one job: asked together, answering together."""

    def __init__(self, pool: Pool, n_workers: int) -> None:
        self.members: list[Member] = pool.take(n_workers)
        self._pool = pool

    def share(self, message: object, arena: int) -> None:
        """Give every worker a message, the arena and the caller's memory; closes both here."""
        memory = own_memory()
        try:
            self.ask(message, (arena, memory))
        finally:
            os.close(arena)
            os.close(memory)

    def release(self) -> None:
        """Have the workers give the job's memory back, where they are still there."""
        if self._pool.is_open:
            self.ask(DropJob())

    def ask(
        self,
        message: object,
        descriptors: tuple[int, ...] = (),
        arena: Arena | None = None,
        watch: Watch | None = None,
    ) -> list[Any]:
        """Send a message to every worker and wait for every answer, in rank order.

        Raises what the first failed worker raised, once all have stopped; WorkerLost at once if a
        process is gone. After a lost worker or an exception here the pool is closed, so that
        nothing is left of it; the next job starts a new one.
        """
        body = wire.pack(message)
        try:
            self._send(body, descriptors)
            return self._answers(arena, watch)
        except WorkerFailed as failed:
            failed.reraise()
        except BaseException:
            if arena is not None:
                arena["door"][ABORT] = 1
            shutdown()
            raise

    def _send(self, body: bytes, descriptors: tuple[int, ...]) -> None:
        for member in self.members:
            try:
                wire.send_packed(member.sock, body, descriptors)
            except OSError:
                raise self._pool.lost(member) from None

    def _answers(self, arena: Arena | None, watch: Watch | None) -> list[Any]:
        answers: dict[int, Any] = {}
        waiting = {member.sock.fileno(): member for member in self.members}
        poller = select.poll()
        for number in waiting:
            poller.register(number, select.POLLIN)
        deadline: float | None = None
        while waiting:
            for number, _ in poller.poll(GLANCE * 1000):
                member = waiting.pop(number)
                poller.unregister(number)
                answers[member.rank] = self._answer(member)
                if isinstance(answers[member.rank], Failure) and deadline is None:
                    deadline = monotonic() + GRACE
            if deadline is not None and monotonic() > deadline:
                break
            if watch is not None and arena is not None:
                watch(arena)
        raise_first(answers, all_answered=not waiting)
        return [answers[member.rank] for member in self.members]

    def _answer(self, member: Member) -> Any:
        try:
            return wire.receive(member.sock)[0]
        except EOFError:
            raise self._pool.lost(member) from None


class WorkerFailed(Exception):
    """A worker raised, and all workers are idle again."""

    def __init__(self, rank: int, failure: Failure) -> None:
        super().__init__(rank, failure.summary)
        self.rank, self.failure = rank, failure

    def reraise(self) -> NoReturn:
        """Raise the worker's own exception, caused by a WorkerError with its rank and traceback."""
        remote = WorkerError(self.rank, self.failure.summary, self.failure.traceback)
        if self.failure.error is None:
            raise remote from None
        error: BaseException = pickle.loads(self.failure.error)
        error.add_note(f"raised in worker {self.rank}")
        raise error from remote


def raise_first(answers: dict[int, Any], all_answered: bool) -> None:
    """Raise WorkerFailed for the lowest rank that failed by itself.

    Where some worker did not stop in time, a WorkerError is raised instead, which closes the pool.
    """
    failures = {r: a for r, a in sorted(answers.items()) if isinstance(a, Failure)}
    if not failures:
        return
    own = [rank for rank, failure in failures.items() if not failure.aborted]
    rank = own[0] if own else next(iter(failures))
    if all_answered:
        raise WorkerFailed(rank, failures[rank])
    raise WorkerError(rank, failures[rank].summary, failures[rank].traceback)

"""Several workers as processes of this machine around one arena in shared memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from phalanx.arena import Arena, Field
from phalanx.clusters.base import Forward, Session, Tell, Watch
from phalanx.clusters.crew import Crew
from phalanx.clusters.halting import Halting
from phalanx.clusters.hosts.courier_thread import beside
from phalanx.clusters.pool import Pool, end_further_pools, further_pool, warm_pool
from phalanx.clusters.process import TakeForward, TakeJob, Told
from phalanx.clusters.supervisor import GLANCE, Supervisor
from phalanx.clusters.surroundings import Surroundings
from phalanx.clusters.threads import one_blas_thread
from phalanx.clusters.turns import Turn, Turns
from phalanx.clusters.wire import Packed
from phalanx.data.placement import Placement
from phalanx.data.samples import Samples
from phalanx.engine.courier import Courier
from phalanx.errors import WorkerLost
from phalanx.exchange.board import ABORT
from phalanx.exchange.group import Group
from phalanx.job import Job, Lease
from phalanx.pure import faults, membership
from phalanx.pure.arrays import Array
from phalanx.pure.membership import Action, GiveUp, Kill, Seat, State, Task


class Processes:
    """See clusters/base.py: Cluster."""

    def __init__(self, n_workers: int, group: Group | None = None) -> None:
        self.n_workers, self.group = n_workers, group

    @contextmanager
    def session(
        self, job: Job, training: Samples, validation: Samples | None, tell: Tell
    ) -> Iterator[Session]:
        place = Placement.of(training, "training/")
        place_validation = Placement.of(validation, "validation/") if validation else None
        fields = job.fields | place.fields(training)
        if validation and place_validation:
            fields |= place_validation.fields(validation)
        around = Surroundings.here()
        told = Packed(Told(around, faults.active, job, fields, place, place_validation))

        def setup(life: int) -> TakeJob:
            return TakeJob(life, told)

        with reserved() as (pool, turn):
            pool.load(job.model.libraries)
            arena, descriptor = Arena.shared(fields)
            with closing_on_error(descriptor):
                place.copy_in(training, arena, descriptor)
                if validation and place_validation:
                    place_validation.copy_in(validation, arena, descriptor)
                supervisor = Supervisor(job, arena, tell)
                courier = Courier(job, arena, self.group) if self.group else None
                crew = Crew(pool, job.n_workers, setup, descriptor, supervisor)
            # a mean that the courier makes is part of the answer
            limited = one_blas_thread() if job.sends_means else nullcontext()
            with crew, limited:
                yield _Session(arena, crew, supervisor, courier, turn)

    def predict(self, work: Forward, params_N: Array, samples: Samples) -> Array:
        place = Placement.of(samples, "samples/")
        fields = {
            "parameters": Field(params_N.shape, params_N.dtype.str),
            "outputs": Field(work.out_shape, work.dtype),
        }
        fields |= place.fields(samples)
        message = TakeForward(Surroundings.here(), work, fields, place)
        with reserved() as (pool, _):
            pool.load(work.model.libraries)
            arena, descriptor = Arena.shared(fields)
            with closing_on_error(descriptor):
                arena["parameters"][:] = params_N
                place.copy_in(samples, arena, descriptor)
                guard = _Repeating(self.n_workers)
                crew = Crew(pool, self.n_workers, lambda life: message, descriptor, guard)
            with crew:
                crew.ask(None)
            return arena["outputs"].copy()


@contextmanager
def closing_on_error(descriptor: int) -> Iterator[None]:
    """Close a descriptor that nobody was given yet."""
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


_turns = Turns()


def _afresh() -> None:
    global _turns
    _turns = Turns()


os.register_at_fork(after_in_child=_afresh)


@contextmanager
def reserved() -> Iterator[tuple[Pool, Turn]]:
    """The pool for one job, in its turn. A job inside another one, in its callback, has a pool of
    its own, which stays warm until that one is over."""
    with _turns.turn() as turn:
        if turn.is_inside:
            with further_pool() as pool:
                yield pool, turn
            return
        try:
            yield warm_pool(), turn
        finally:
            end_further_pools()


class _Session(Halting):
    def __init__(
        self,
        arena: Arena,
        crew: Crew,
        supervisor: Supervisor,
        courier: Courier | None,
        turn: Turn,
    ) -> None:
        self.arena, self._crew, self._supervisor = arena, crew, supervisor
        self._courier, self._turn = courier, turn

    def in_callback(self) -> AbstractContextManager[None]:
        return self._turn.callback()

    def run(self, lease: Lease, watch: Watch | None) -> None:
        def look() -> None:
            if watch is not None:
                watch(self.arena)

        self._supervisor.begin(lease)
        try:
            with beside(self._courier, self._supervisor.timetable):
                self._crew.ask(lease, look)
        except BaseException:
            self.arena["door"][ABORT] = 1
            raise
        self._supervisor.end()

    def resize(self, n_workers: int) -> None:
        self._supervisor.wish(n_workers)


class _Repeating:
    """The guard of a prediction: who dies is replaced, and the new one does all of it again."""

    def __init__(self, n_workers: int) -> None:
        self._view = membership.View((Seat(State.WORKING, 1),) * n_workers, n_workers)

    def life(self, rank: int) -> int:
        return self._view.seats[rank].life

    def pace(self) -> float:
        return GLANCE

    def lost(self, rank: int) -> Callable[[str], list[Action]]:
        ended = membership.Ended(rank, self.life(rank), Task(0, "predict", rank))
        self._view, actions = membership.follow(self._view, ended)
        return lambda cause: actions

    def glance(self, owing: Collection[int]) -> list[Action]:
        return []

    def stopped(self, rank: int) -> list[Action]:
        return [Kill(rank, self.life(rank))]

    def failed(self) -> None:
        pass

    def give_up(self, action: GiveUp, pid: int, cause: str) -> WorkerLost:
        return WorkerLost(action.rank, pid, "predicting its share of the samples", cause, [])

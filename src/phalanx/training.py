"""Training: the one place where job, samples, cluster and record meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Protocol

import numpy as np

from phalanx.arena import Arena
from phalanx.arrays import Array
from phalanx.cadence import Cadence
from phalanx.checkpoint import Saved
from phalanx.clusters.base import Cluster, Forward, Session, Tell, Watch
from phalanx.clusters.inprocess import InProcess
from phalanx.clusters.processes import Processes
from phalanx.control import Control
from phalanx.data.samples import Samples
from phalanx.engine.ledger import Ledger
from phalanx.errors import NonFiniteLoss
from phalanx.exchange.board import HALT, INTERRUPT, LAST, NEVER, OPENED, REGROUP, processors
from phalanx.job import LEASE_EPOCHS, Job, Lease, chunk_bounds
from phalanx.keeper import Keeper, Resumption, identity_of, resume
from phalanx.models.base import ModelSpec
from phalanx.plan import FLOPS_A_PARAMETER
from phalanx.registry import name_of
from phalanx.run import EpochRecord, Event, Run, Span, digest, shares_of
from phalanx.state import State, state_of
from phalanx.stopping import Progress, Reason

MIN_FLOPS_A_WORKER = 5e7  # of a prediction: half a millisecond, what handing it out costs
MIN_SEATS = 8  # so that a training on a small machine may still be given more workers


class Checkpoints(NamedTuple):
    """A folder, how often a checkpoint is written to it, and what else it is to hold."""

    folder: Path
    cadence: Cadence
    extra: dict[str, Any]


OnEpoch = Callable[[int, EpochRecord], bool | None]


@dataclass
class Trained:
    """What training returns: the state it reached, how it got there, and the record."""

    state: State
    records: list[EpochRecord]
    progress: Progress
    reason: Reason
    run: Run


class Mirror(Protocol):
    """The user's own model, as callbacks see it."""

    def show(self, values_XN: Array, scalars_KC: Array) -> None:
        """Take the parameters of the training, and the optimiser's state and scalars."""

    def changed(self, values_N: Array) -> bool:
        """Write parameters that a callback has changed into the training's; whether it has."""


class Agenda(Protocol):
    """The optimiser's settings, where they come from the driver."""

    changes: bool  # whether one epoch's differ from another's

    def settings(self, epoch: int) -> Array:
        """Of each step of an epoch, [T, G, H]."""


@dataclass
class Following:
    """Who follows a training, and what is kept of it.

    on_epoch: called after each epoch; stops the training by returning True. watch: called with
    the arena about twenty times a second. on_event: called for each event, at once. control:
    where wishes about the number of workers come from. checkpoints: where, how often, and what
    else is to be written there. resume: what to go on from. mirror: shows the parameters to
    on_epoch. agenda: the optimiser's settings.
    """

    on_epoch: OnEpoch | None = None
    watch: Watch | None = None
    on_event: Tell | None = None
    control: Control | None = None
    checkpoints: Checkpoints | None = None
    resume: Saved | None = None
    mirror: Mirror | None = None
    agenda: Agenda | None = None


@dataclass
class History:
    """What has happened in a training so far."""

    records: list[EpochRecord] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def useful_workers(asked: int, n_shards: int, n_blocks: int) -> int:
    """Workers that find something to do: more than there are shards and blocks would only wait."""
    return max(1, min(asked, max(n_shards, n_blocks)))


def seats_for(n_workers: int, n_shards: int, n_blocks: int) -> int:
    """How many workers may share a job; a single one needs no arena with seats for others."""
    if n_workers == 1:
        return 1
    return useful_workers(max(n_workers, processors(), MIN_SEATS), n_shards, n_blocks)


def cluster_of(model: ModelSpec, n_seats: int, n_workers: int) -> Cluster:
    """Workers on this machine; where there is one seat, the caller's own process, if it can."""
    return InProcess() if n_seats == 1 and model.runs_here else Processes(n_workers)


def train(
    job: Job,
    start: State,
    training: Samples,
    validation: Samples | None,
    progress: Progress,
    following: Following | None = None,
) -> Trained:
    """Train until the job's rule says stop; `job.n_workers` workers begin.

    Raises what a worker raised, with a WorkerError as its cause, or WorkerLost.
    """
    following = following or Following()
    control = following.control or Control(job.n_workers)
    history, begun, first_update = History(), monotonic(), start.updates
    tell = _telling(history, following)
    job = replace(job, keeps_snapshots=following.checkpoints is not None)
    keeper = _keeper(job, training, validation, following, tell)
    state, reason = start, None
    if following.resume is not None:
        taken = resume(following.resume, identity_of(job, training, validation))
        state, progress, history.records = taken.state, taken.progress, taken.records
        first_update, reason = 0, _reason_to_stay(job, taken)
        if reason is not None:
            state.take_best()
        tell(Event("resumed", state.updates, f"from {taken.path}", at=begun))
    while reason is None:
        job = _regrouped(job, control.workers)
        cluster = cluster_of(job.model, job.n_seats, job.n_workers)
        with cluster.session(job, training, validation, tell) as session:
            control.attach(session)
            try:
                course = _Course(job, session, state, progress, history, following, keeper)
                state, progress, reason = course.run()
            except NonFiniteLoss:  # raised before anybody can have begun to update
                course.show()
                raise
            finally:
                control.attach(None)
    if keeper is not None and history.spans:
        keeper.close(state, progress, history.records, reason)
    steps = state.updates - first_update
    run = record_run(job, state, history, monotonic() - begun, reason, steps)
    return Trained(state, history.records, progress, reason, run)


def _keeper(
    job: Job, training: Samples, validation: Samples | None, following: Following, tell: Tell
) -> Keeper | None:
    if following.checkpoints is None:
        return None
    keeper = Keeper(*following.checkpoints, tell)
    keeper.identity = identity_of(job, training, validation)
    return keeper


def _reason_to_stay(job: Job, taken: Resumption) -> Reason | None:
    """Why a training that is gone on from is over already, if it is."""
    if taken.reason is Reason.MAX_EPOCHS and taken.progress.epochs < job.rule.max_epochs:
        return None  # the user has allowed more of them
    return taken.reason


def _regrouped(job: Job, n_workers: int) -> Job:
    """The job for another number of workers, where one seat has become too few."""
    if job.n_seats > 1 or n_workers == 1:
        return job
    shards, blocks = job.plan.n_shards, len(job.blocks)
    useful = useful_workers(n_workers, shards, blocks)
    return replace(job, n_workers=useful, n_seats=seats_for(useful, shards, blocks))


def _telling(history: History, following: Following) -> Tell:
    def tell(event: Event) -> None:
        history.events.append(event)
        if following.on_event is not None:
            following.on_event(event)

    return tell


class _Course:
    """A training's way through one session, lease by lease."""

    def __init__(
        self,
        job: Job,
        session: Session,
        state: State,
        progress: Progress,
        history: History,
        following: Following,
        keeper: Keeper | None,
    ) -> None:
        self.keeper = keeper
        self.job, self.session, self.arena = job, session, session.arena
        self.progress, self.history, self.following = progress, history, following
        self.door = session.arena.words("door")
        self.ledger = Ledger(session.arena, job.n_validation > 0)
        self.lease = Lease(state.epochs, 0, 0, state.updates, state.place)
        state.load(session.arena)

    def run(self) -> tuple[State, Progress, Reason | None]:
        """Lease after lease until there is a reason to stop; None if the session is to change."""
        reason: Reason | None = None
        while reason is None and self.door[HALT] != REGROUP:
            epochs = self._run_lease()
            self.history.records += epochs
            if self.door[HALT] == INTERRUPT:
                reason = Reason.INTERRUPTED
            elif epochs:
                reason = epochs[-1].reason
                if self._epoch_ends(epochs[-1]):
                    reason = reason or Reason.CALLBACK
        is_final = reason is not None
        return state_of(self.job, self.arena, self.lease, is_final), self.progress, reason

    def _epoch_ends(self, record: EpochRecord) -> bool:
        """Let the user's callback see it; whether the callback wants to stop."""
        on_epoch, mirror = self.following.on_epoch, self.following.mirror
        if on_epoch is None:
            return False
        values_N = self.arena["values"][0]
        if mirror is not None:
            mirror.show(self.arena["values"], self.arena["scalars"][self.lease.updates % 2])
        stops = bool(on_epoch(len(self.history.records), record))
        if mirror is not None and mirror.changed(values_N):
            step = self.lease.updates
            self.history.events.append(Event("parameters changed by a callback", step))
        return stops

    def show(self) -> None:
        """Show the user's model what was committed last, though the training has failed since."""
        mirror, tick = self.following.mirror, int(self.door[OPENED])
        if mirror is not None:
            updates = self.job.timetable(self.lease).at(tick).updates
            mirror.show(self.arena["values"], self.arena["scalars"][updates % 2])

    def _run_lease(self) -> list[EpochRecord]:
        """Run the next lease; the epochs that it completed."""
        left, agenda = self.job.rule.max_epochs - self.progress.epochs, self.following.agenda
        single = self.following.on_epoch or (agenda and agenda.changes)
        lease = replace(self.lease, n_epochs=min(left, 1 if single else LEASE_EPOCHS))
        if agenda is not None:
            self.arena["settings"][...] = agenda.settings(lease.first_epoch)
        self.ledger.begin(self.progress)
        self.door[LAST] = NEVER
        if self.keeper is not None:
            timetable = self.job.timetable(lease)
            self.keeper.begin(self.job, self.arena, timetable, list(self.history.records))
        self.session.run(lease, self._watch())
        if self.keeper is not None:
            self.keeper.look(self.arena)
        epochs, self.lease = after(self.job, self.arena, lease)
        self.progress = self.ledger.progress(len(epochs))
        self.history.spans += take_spans(self.arena, lease, len(epochs))
        return epochs

    def _watch(self) -> Watch | None:
        """Both who wants to see the arena and the keeper, if there is either."""
        watch, keeper = self.following.watch, self.keeper
        if keeper is None:
            return watch
        if watch is None:
            return keeper.look

        def both(arena: Arena) -> None:
            watch(arena)
            keeper.look(arena)

        return both


def after(job: Job, arena: Arena, lease: Lease) -> tuple[list[EpochRecord], Lease]:
    """The epochs that a lease completed, and where the next one begins."""
    door, timetable = arena["door"], job.timetable(lease)
    following = int(door[LAST]) + 1
    moment = timetable.at(following)
    epochs = Ledger(arena, job.n_validation > 0).records(0, moment.row)
    place = timetable.place_of(following)
    return epochs, Lease(moment.epoch, 0, int(door[OPENED]), moment.updates, place)


def take_spans(arena: Arena, lease: Lease, n_epochs: int) -> list[Span]:
    """Who did what in a lease, taken out of the arena."""
    spans_WE = arena["spans"][:, : n_epochs + 1]
    found = [
        Span(rank, lease.first_epoch + row, begun, compute, update, wait, int(shards))
        for rank, lines in enumerate(spans_WE.tolist())
        for row, (begun, compute, update, wait, shards) in enumerate(lines)
        if begun
    ]
    spans_WE[...] = 0
    return found


def record_run(
    job: Job, reached: State, history: History, seconds: float, reason: Reason, steps: int
) -> Run:
    """The record of a training that ended."""
    records, spans, events = history.records, history.spans, history.events
    if reason is Reason.INTERRUPTED:
        events.append(Event(reason.value, steps, at=monotonic()))
    n_workers = max([job.n_workers, *(span.worker + 1 for span in spans)])
    return Run(
        workers=n_workers,
        shards=job.plan.n_shards,
        blocks=len(job.blocks),
        parameters=job.model.n_parameters,
        steps=steps,
        samples=len(records) * job.plan.n_visited,
        seconds=seconds,
        losses=[r.loss for r in records],
        scores=[r.score for r in records if r.score is not None],
        rates=[r.rate for r in records],
        shares=shares_of(spans, n_workers),
        reason=reason.value,
        digest=digest(reached.params_N, reached.state_MN),
        strategies={
            "data_distribution": name_of(job.plan.distribution),
            "task_assignment": name_of(job.assignment),
            "aggregation": name_of(job.aggregation),
            "optimizer": name_of(job.optimizer).lower(),
            **({"sync_every": str(sync_every)} if (sync_every := job.sync_every) > 1 else {}),
        },
        events=sorted(events, key=lambda event: event.at or 0.0),
        spans=spans,
    )


def predict(
    model: ModelSpec,
    params_N: Array,
    samples: Samples,
    workers: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    measures: bool = False,
) -> Array:
    """The model's outputs [n_samples, *shape], or its sums for each chunk of samples; bit-equal
    for any number of workers.

    As many workers are used as have half a millisecond of arithmetic each.
    """
    flops = FLOPS_A_PARAMETER / 3 * model.n_parameters * samples.n_samples
    chunks = len(chunk_bounds(samples.n_samples))
    n_workers = max(1, min(workers, chunks, int(flops / MIN_FLOPS_A_WORKER)))
    work = Forward(model, samples.n_samples, n_workers, shape, dtype.str, measures)
    return np.asarray(cluster_of(model, n_workers, n_workers).predict(work, params_N, samples))

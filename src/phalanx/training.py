"""Training: the one place where job, samples, cluster and record meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic

import numpy as np

from phalanx.arena import Arena
from phalanx.arrays import Array
from phalanx.clusters.base import Cluster, Forward, Session, Tell, Watch
from phalanx.clusters.inprocess import InProcess
from phalanx.clusters.processes import Processes
from phalanx.control import Control
from phalanx.data.samples import Samples
from phalanx.exchange.board import HALT, INTERRUPT, LAST, NEVER, OPENED, REGROUP, processors
from phalanx.job import LEASE_EPOCHS, Job, Lease, chunk_bounds
from phalanx.ledger import Ledger
from phalanx.models.base import ModelSpec
from phalanx.plan import FLOPS_A_PARAMETER
from phalanx.registry import name_of
from phalanx.run import EpochRecord, Event, Run, Span, digest, shares_of
from phalanx.stopping import Progress, Reason

MIN_FLOPS_A_WORKER = 5e7  # of a prediction: half a millisecond, what handing it out costs
MIN_SEATS = 8  # so that a training on a small machine may still be given more workers
EPOCH_SUMS = ("losses", "weights", "penalties")

OnEpoch = Callable[[int, EpochRecord], bool | None]


@dataclass
class State:
    """What training changes: parameters [N], optimiser state [M, N], and what came before.

    place: ticks of the epoch that are over; where it is not 0, `sums` has what the epoch came to
    so far (losses [T], weights [T], penalties [T, K]). best_N: the best by score so far, if any.
    """

    params_N: Array
    state_MN: Array
    updates: int = 0
    epochs: int = 0
    place: int = 0
    best_N: Array | None = None
    sums: dict[str, Array] = field(default_factory=dict)


@dataclass
class Trained:
    """What training returns: the state it reached, how it got there, and the record."""

    state: State
    records: list[EpochRecord]
    progress: Progress
    reason: Reason
    run: Run


@dataclass
class Following:
    """Who follows a training.

    on_epoch: called after each epoch; stops the training by returning True. watch: called with
    the arena about twenty times a second. on_event: called for each event, at once. control:
    where wishes about the number of workers come from.
    """

    on_epoch: OnEpoch | None = None
    watch: Watch | None = None
    on_event: Tell | None = None
    control: Control | None = None


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


def cluster_of(n_seats: int, n_workers: int) -> Cluster:
    """Workers on this machine; where there is one seat, the caller's own process."""
    return InProcess() if n_seats == 1 else Processes(n_workers)


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
    history, begun = History(), monotonic()
    state, reason = start, None
    while reason is None:
        job = _regrouped(job, control.workers)
        tell = _telling(history, following)
        cluster = cluster_of(job.n_seats, job.n_workers)
        with cluster.session(job, training, validation, tell) as session:
            control.attach(session)
            try:
                course = _Course(job, session, state, progress, history, following)
                state, progress, reason = course.run()
            finally:
                control.attach(None)
    steps = state.updates - start.updates
    run = record_run(job, state, history, monotonic() - begun, reason, steps)
    return Trained(state, history.records, progress, reason, run)


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
    ) -> None:
        self.job, self.session, self.arena = job, session, session.arena
        self.progress, self.history, self.following = progress, history, following
        self.door = session.arena.words("door")
        self.ledger = Ledger(session.arena, job.n_validation > 0)
        self.lease = Lease(state.epochs, 0, 0, state.updates, state.place)
        load(session.arena, state)

    def run(self) -> tuple[State, Progress, Reason | None]:
        """Lease after lease until there is a reason to stop; None where the session is to change."""
        reason: Reason | None = None
        while reason is None and self.door[HALT] != REGROUP:
            epochs = self._run_lease()
            self.history.records += epochs
            if self.door[HALT] == INTERRUPT:
                reason = Reason.INTERRUPTED
            elif epochs:
                reason = epochs[-1].reason
                on_epoch = self.following.on_epoch
                if on_epoch and on_epoch(len(self.history.records), epochs[-1]):
                    reason = reason or Reason.CALLBACK
        is_final = reason is not None
        return reached(self.job, self.arena, self.lease, is_final), self.progress, reason

    def _run_lease(self) -> list[EpochRecord]:
        """Run the next lease; the epochs that it completed."""
        left = self.job.rule.max_epochs - self.progress.epochs
        n_epochs = min(left, 1 if self.following.on_epoch else LEASE_EPOCHS)
        lease = replace(self.lease, n_epochs=n_epochs)
        self.ledger.begin(self.progress)
        self.door[LAST] = NEVER
        self.session.run(lease, self.following.watch)
        epochs, self.lease = after(self.job, self.arena, lease)
        self.progress = self.ledger.progress(len(epochs))
        self.history.spans += take_spans(self.arena, lease, len(epochs))
        return epochs


def load(arena: Arena, state: State) -> None:
    """Put a state into an arena."""
    arena["values"][0] = state.params_N
    if state.updates:  # else it is all zeros, as the arena is
        arena["values"][1:] = state.state_MN
    if arena["best"].size:
        arena["best"][:] = state.params_N if state.best_N is None else state.best_N
    for name, sums in state.sums.items():
        arena[name][...] = sums


def after(job: Job, arena: Arena, lease: Lease) -> tuple[list[EpochRecord], Lease]:
    """The epochs that a lease completed, and a lease (of no epoch yet) that begins where it ended."""
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
        Span(rank, lease.first_epoch + row, *line[:-1], shards=int(line[-1]))
        for rank, lines in enumerate(spans_WE.tolist())
        for row, line in enumerate(lines)
        if line[0]
    ]
    spans_WE[...] = 0
    return found


def reached(job: Job, arena: Arena, lease: Lease, is_final: bool) -> State:
    """The state at the end of a lease. Where it is final, early stopping takes the best one."""
    values_XN = arena["values"].copy()
    best_N = arena["best"].copy() if job.rule.by_score else None
    params_N = best_N if is_final and best_N is not None else values_XN[0]
    sums = {name: arena[name].copy() for name in EPOCH_SUMS} if lease.place else {}
    return State(
        params_N, values_XN[1:], lease.updates, lease.first_epoch, lease.place, best_N, sums
    )


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
        samples=len(records) * job.plan.n_samples,
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
        },
        events=sorted(events, key=lambda event: event.at or 0.0),
        spans=spans,
    )


def predict(model: ModelSpec, params_N: Array, samples: Samples, workers: int) -> Array:
    """The model's outputs [n_samples, O]; bit-equal for any number of workers.

    As many workers are used as have half a millisecond of arithmetic each.
    """
    flops = FLOPS_A_PARAMETER / 3 * model.n_parameters * samples.n_samples
    chunks = len(chunk_bounds(samples.n_samples))
    n_workers = max(1, min(workers, chunks, int(flops / MIN_FLOPS_A_WORKER)))
    work = Forward(model, samples.n_samples, n_workers)
    outputs_BO: Array = cluster_of(n_workers, n_workers).predict(work, params_N, samples)
    return np.asarray(outputs_BO)

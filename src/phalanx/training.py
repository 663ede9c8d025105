"""Training: the one place where job, samples, cluster and record meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np

from phalanx.arena import Arena
from phalanx.arrays import Array
from phalanx.clusters.base import Cluster, Forward, Session, Watch
from phalanx.clusters.inprocess import InProcess
from phalanx.clusters.processes import Processes
from phalanx.data.samples import Samples
from phalanx.exchange.board import HALT
from phalanx.job import Job, Lease, chunk_bounds
from phalanx.models.base import ModelSpec
from phalanx.plan import FLOPS_A_PARAMETER
from phalanx.registry import name_of
from phalanx.run import EpochRecord, Event, Run, Span, digest, shares_of
from phalanx.stopping import Progress, Reason

LONG_LEASE = 1024  # epochs, where nobody asks to see each
MIN_FLOPS_A_WORKER = 5e7  # of a prediction: half a millisecond, what handing it out costs

OnEpoch = Callable[[int, EpochRecord], bool | None]


@dataclass
class State:
    """What training changes: parameters [N], optimiser state [M, N], and what came before."""

    params_N: Array
    state_MN: Array
    updates: int = 0
    epochs: int = 0


@dataclass
class Trained:
    """What training returns: the state it reached, how it got there, and the record."""

    state: State
    records: list[EpochRecord]
    progress: Progress
    reason: Reason
    run: Run


def useful_workers(asked: int, n_shards: int, n_blocks: int) -> int:
    """Workers that find something to do: more than there are shards and blocks would only wait."""
    return max(1, min(asked, max(n_shards, n_blocks)))


def cluster_of(n_workers: int) -> Cluster:
    """Workers on this machine; one of them is the caller's own process."""
    return InProcess() if n_workers == 1 else Processes(n_workers)


def train(
    job: Job,
    start: State,
    training: Samples,
    validation: Samples | None,
    progress: Progress,
    on_epoch: OnEpoch | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train until the job's rule says stop; `job.n_workers` workers share the work.

    `on_epoch` is called after each epoch, and stops the training by returning True. `watch` is
    called about twenty times a second while worker processes work.
    Raises what a worker raised, with a WorkerError as its cause, or WorkerLost.
    """
    begun = monotonic()
    records: list[EpochRecord] = []
    spans: list[Span] = []
    lease = Lease(start.epochs, 0, 0, start.updates, progress)
    reason: Reason | None = None
    with cluster_of(job.n_workers).session(job, training, validation) as session:
        _load(session.arena, start)
        while reason is None:
            left = job.rule.max_epochs - lease.progress.epochs
            n_epochs = min(left, 1 if on_epoch else LONG_LEASE)
            reports = session.run(replace(lease, n_epochs=n_epochs), watch)
            spans += [span for report in reports for span in report.spans]
            finished = reports[0]
            assert finished.lease is not None
            lease, reason = finished.lease, _reason(session, finished.epochs)
            records += finished.epochs
            if on_epoch and finished.epochs and on_epoch(len(records), finished.epochs[-1]):
                reason = reason or Reason.CALLBACK
        reached = _reached(session, job, lease)
    steps = reached.updates - start.updates
    run = record_run(job, reached, records, spans, monotonic() - begun, reason, steps)
    return Trained(reached, records, lease.progress, reason, run)


def _load(arena: Arena, start: State) -> None:
    arena["parameters"][:] = start.params_N
    if start.updates:  # else it is all zeros, as the arena is
        arena["state"][...] = start.state_MN
    if arena["best"].size:
        arena["best"][:] = start.params_N


def _reason(session: Session, epochs: list[EpochRecord]) -> Reason | None:
    if session.arena["door"][HALT]:
        return Reason.INTERRUPTED
    return epochs[-1].reason if epochs else None


def _reached(session: Session, job: Job, lease: Lease) -> State:
    source = "best" if job.rule.by_score else "parameters"
    arena = session.arena
    return State(arena[source].copy(), arena["state"].copy(), lease.updates, lease.first_epoch)


def record_run(
    job: Job,
    reached: State,
    records: list[EpochRecord],
    spans: list[Span],
    seconds: float,
    reason: Reason,
    steps: int,
) -> Run:
    """The record of a training that ended."""
    events = [Event(reason.value, steps)] if reason is Reason.INTERRUPTED else []
    return Run(
        workers=job.n_workers,
        shards=job.plan.n_shards,
        blocks=len(job.blocks),
        parameters=job.model.n_parameters,
        steps=steps,
        samples=len(records) * job.plan.n_samples,
        seconds=seconds,
        losses=[r.loss for r in records],
        scores=[r.score for r in records if r.score is not None],
        rates=[r.rate for r in records],
        shares=shares_of(spans, job.n_workers),
        reason=reason.value,
        digest=digest(reached.params_N, reached.state_MN),
        strategies={
            "data_distribution": name_of(job.plan.distribution),
            "task_assignment": name_of(job.assignment),
            "aggregation": name_of(job.aggregation),
            "optimizer": name_of(job.optimizer).lower(),
        },
        events=events,
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
    outputs_BO: Array = cluster_of(n_workers).predict(work, params_N, samples)
    return np.asarray(outputs_BO)

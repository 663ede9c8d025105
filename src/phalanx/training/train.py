"""Training: the one place where job, samples, cluster and record meet."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np

from phalanx.clusters.base import Forward
from phalanx.clusters.hosts.launched import Hosts, launched
from phalanx.clusters.interrupt import on_interrupt
from phalanx.data.samples import Samples
from phalanx.exchange.group import Group
from phalanx.job import Job, chunk_bounds
from phalanx.models.base import ModelSpec
from phalanx.pure.arrays import Array
from phalanx.pure.plan import FLOPS_A_PARAMETER
from phalanx.pure.registry import name_of
from phalanx.pure.rounding import EXACT
from phalanx.pure.stopping import Progress, Reason
from phalanx.run import EpochRecord, Event, Run, digest, shares_of
from phalanx.training.afterwards import late_interrupt
from phalanx.training.claim import claimed
from phalanx.training.course import History
from phalanx.training.following import Following
from phalanx.training.sessions import Sessions, in_one_thread, telling_others
from phalanx.training.staffing import cluster_of, for_hosts
from phalanx.training.state import Standing, State

MIN_FLOPS_A_WORKER = 5e7  # of a prediction: half a millisecond, what handing it out costs


@dataclass
class Trained:
    """What training returns: the state it reached, how it got there, and the record."""

    state: State
    records: list[EpochRecord]
    progress: Progress
    reason: Reason
    run: Run


def train(
    job: Job,
    start: State,
    training: Samples,
    validation: Samples | None,
    progress: Progress,
    following: Following | None = None,
) -> Trained:
    """Train until the job's rule says stop; `job.n_workers` workers begin, on this host.

    Raises what a worker raised, with a WorkerError as its cause; WorkerLost; where several hosts
    train together, HostsDiffer before anything is started, or HostLost.
    """
    following, history = following or Following(), History()
    if following.cluster is not None:
        cluster, following = following.cluster, replace(following, cluster=None)
        job = for_hosts(job, cluster.n_workers)
        arguments = job, start, training, validation, progress, following
        kept = following.checkpoints
        with nullcontext() if kept is None else claimed(kept.folder):
            trained: Trained = cluster.train(train, *arguments)
        trained.state = trained.state.own()  # what comes from elsewhere need not be writable
        return trained
    begun, first_update = monotonic(), 0 if following.resume else start.updates
    hosts = following.hosts or launched()
    group = hosts.join()
    with in_one_thread(group):
        with telling_others(group):
            job = replace(job, keeps_snapshots=following.checkpoints is not None)
            sessions = Sessions(job, start, training, validation, following, history)
        with on_interrupt(sessions.interrupt), closing(sessions):
            standing = run_through(sessions, Standing(start, progress), hosts, group)
            steps = standing.state.updates - first_update
            run = record_run(sessions.job, standing, history, monotonic() - begun, steps)
            if sessions.is_interrupted and standing.reason is not Reason.INTERRUPTED:
                late = late_interrupt(standing.state.updates)
                sessions.tell(late)
                run.events.append(late)
    assert standing.reason is not None
    return Trained(standing.state, standing.records, standing.progress, standing.reason, run)


def run_through(
    sessions: Sessions, standing: Standing, hosts: Hosts, group: Group | None
) -> Standing:
    """Session after session, until there is a reason to end; where it then stands."""
    standing, group = sessions.begin(standing, hosts, group)
    sessions.control.has_begun = True  # before workers are there, which may take long
    while standing.reason is None:
        with telling_others(group):
            standing, lost = sessions.run(standing, group)
        if lost is not None:
            sessions.keep(standing, group)
        if standing.reason is None:
            group, before = sessions.next_group(standing, hosts, group, lost), group
            if group is not before:
                standing, group = sessions.regroup(standing, hosts, group, lost)
    if sessions.history.spans:
        sessions.keep(standing, group)
    return standing


def record_run(job: Job, standing: Standing, history: History, seconds: float, steps: int) -> Run:
    """The record of a training that ended."""
    reached, records, reason = standing.state, standing.records, standing.reason
    spans, events = history.spans, history.events
    assert reason is not None
    if reason is Reason.INTERRUPTED:
        events.append(Event(reason.value, steps, at=monotonic()))
    n_workers = max([job.n_workers, *(span.worker + 1 for span in spans)])
    return Run(
        workers=n_workers,
        shards=job.plan.n_shards,
        blocks=len(job.blocks),
        parameters=job.model.n_parameters,
        steps=steps,
        samples=job.plan.visits(steps),
        seconds=seconds,
        losses=[r.loss for r in records],
        scores=[r.score for r in records if r.score is not None],
        rates=[r.rate for r in records],
        shares=shares_of(spans, n_workers),
        reason=reason.value,
        digest=standing.digest or digest(reached.params_N, reached.state_MN),
        strategies={
            "data_distribution": name_of(job.plan.distribution),
            "task_assignment": name_of(job.assignment),
            "aggregation": name_of(job.aggregation),
            "optimizer": name_of(job.optimizer).lower(),
            **({"sync_every": str(sync_every)} if (sync_every := job.sync_every) > 1 else {}),
            **({"wire": job.wire} if job.wire != EXACT else {}),
            **({} if job.exact else {"exact": "False"}),
        },
        hosts=job.place.count,
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

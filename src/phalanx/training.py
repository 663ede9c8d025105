"""Training: the one place where job, samples, cluster and record meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np

from phalanx.clusters.base import Cluster, Forward
from phalanx.clusters.hosts.launched import Hosts, launched
from phalanx.clusters.hosts.machine import fingerprint
from phalanx.clusters.hosts.talking import agree, gather
from phalanx.clusters.inprocess import InProcess
from phalanx.clusters.processes import Processes
from phalanx.control import Control
from phalanx.course import FLAG, Course, Following, History, telling
from phalanx.data.samples import Samples
from phalanx.errors import HostLost, HostsDiffer, NonFiniteLoss
from phalanx.exchange.board import processors
from phalanx.exchange.group import Group
from phalanx.handover import hand_over
from phalanx.job import Job, chunk_bounds
from phalanx.keeper import Keeper, identity_of, resume
from phalanx.models.base import ModelSpec
from phalanx.pure.arrays import Array
from phalanx.pure.hosts import ALONE
from phalanx.pure.plan import FLOPS_A_PARAMETER
from phalanx.pure.registry import name_of
from phalanx.pure.rounding import EXACT
from phalanx.pure.stopping import Progress, Reason
from phalanx.run import EpochRecord, Event, Run, digest, shares_of
from phalanx.state import Standing, State, reason_to_end

MIN_FLOPS_A_WORKER = 5e7  # of a prediction: half a millisecond, what handing it out costs
MIN_SEATS = 8  # so that a training on a small machine may still be given more workers


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


def seats_for(n_workers: int, n_shards: int, n_blocks: int) -> int:
    """How many workers may share a job; a single one needs no arena with seats for others."""
    if n_workers == 1:
        return 1
    return useful_workers(max(n_workers, processors(), MIN_SEATS), n_shards, n_blocks)


def cluster_of(
    model: ModelSpec, n_seats: int, n_workers: int, group: Group | None = None
) -> Cluster:
    """Workers on this machine; where there is one seat, the caller's own process, if it can.

    group: the hosts with which they train together.
    """
    is_here = n_seats == 1 and model.runs_here
    return InProcess(group) if is_here else Processes(n_workers, group)


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
        job = _for_hosts(job, cluster.n_workers)
        arguments = job, start, training, validation, progress, following
        trained: Trained = cluster.train(train, *arguments)
        trained.state = trained.state.own()  # what comes from elsewhere need not be writable
        return trained
    begun, first_update = monotonic(), 0 if following.resume else start.updates
    hosts = following.hosts or launched()
    group = hosts.join()
    with telling_others(group):
        job = replace(job, keeps_snapshots=following.checkpoints is not None)
        work = _Work(job, start, training, validation, following, history)
    standing, group = work.begin(Standing(start, progress), hosts, group)
    while standing.reason is None:
        with telling_others(group):
            standing, lost = work.run_session(standing, group)
        if lost is not None:
            work.keep(standing, group)
        if standing.reason is None:
            group, before = work.next_group(standing, hosts, group, lost), group
            if group is not before:
                standing, group = work.regroup(standing, hosts, group, lost)
    if history.spans:
        work.keep(standing, group)
    steps = standing.state.updates - first_update
    run = record_run(work.job, standing, history, monotonic() - begun, steps)
    assert standing.reason is not None
    return Trained(standing.state, standing.records, standing.progress, standing.reason, run)


class _Work:
    """What stays the same from session to session; the job changes with workers and hosts."""

    def __init__(
        self,
        job: Job,
        start: State,
        training: Samples,
        validation: Samples | None,
        following: Following,
        history: History,
    ) -> None:
        self.job, self.start = job, start
        self.training, self.validation = training, validation
        self.following, self.history = following, history
        self.control = following.control or Control(job.n_workers)
        self.tell = telling(history, following)
        self._has_resumed = False
        self._keeper: Keeper | None = None

    def begin(
        self, standing: Standing, hosts: Hosts, group: Group | None
    ) -> tuple[Standing, Group | None]:
        """Where to begin: at the start, or at a checkpoint that this host or another one has."""
        lost: HostLost | None = None
        try:
            with telling_others(group):
                if group is not None:
                    self.agree(group)
                self.keeper_of(group)  # whose folder is checked before any work starts
                standing = self._resumed(standing)
                return standing if group is None else hand_over(group, standing), group
        except HostLost as error:
            lost = error
        group = hosts.next(group, lost)
        with telling_others(group):
            self.keeper_of(group)
            standing = self._resumed(standing)
        return self.regroup(standing, hosts, group, lost)

    def _resumed(self, standing: Standing) -> Standing:
        """Where the checkpoint stands, if there is one and it has not been gone on from."""
        saved = self.following.resume
        if saved is None or self._has_resumed:
            return standing
        standing = resume(saved, identity_of(self.job, self.training, self.validation))
        standing.reason = reason_to_end(self.job.rule, standing)
        if standing.reason is not None:
            standing.state.take_best()
        self._has_resumed = True
        self.tell(Event("resumed", standing.state.updates, f"from {saved.path}", at=monotonic()))
        return standing

    def run_session(
        self, standing: Standing, group: Group | None
    ) -> tuple[Standing, HostLost | None]:
        """Train on with these workers and hosts; where it then stands, and who was lost."""
        job = self.job = _regrouped(self.job, self.control.workers)
        cluster = cluster_of(job.model, job.n_seats, job.n_workers, group)
        with cluster.session(job, self.training, self.validation, self.tell) as session:
            self.control.attach(session)
            keeper = self.keeper_of(group)
            course = Course(job, session, standing, self.history, self.following, keeper, group)
            try:
                standing = course.run()
            except NonFiniteLoss:  # raised before anybody can have begun to update
                course.show()
                raise
            except HostLost as lost:  # likewise: nobody updates before all has come
                course.show()
                return course.halted(), lost
            finally:
                self.control.attach(None)
        if group is not None and standing.reason is not None:
            try:  # nobody leaves before all have what they need to end
                gather(group, None)
            except HostLost as lost:
                group.failed(lost.brief)  # whoever still waits for me need not
        return standing, None

    def regroup(
        self, standing: Standing, hosts: Hosts, group: Group | None, lost: HostLost | None
    ) -> tuple[Standing, Group | None]:
        """Go on with other hosts, from where the furthest of them stands.

        Where one of these is lost before all know that, what this host has is what it had.
        """
        while True:
            place = ALONE if group is None else group.place
            why = "others have come" if lost is None else lost.brief
            what = f"{place.count} from now on; {why}"
            self.tell(Event("hosts changed", standing.state.updates, what, at=monotonic()))
            self.job = replace(self.job, place=place)
            if group is None:
                return standing, group
            try:
                with telling_others(group):
                    self.agree(group)
                    return hand_over(group, standing), group
            except HostLost as error:
                lost = error
            group = hosts.next(group, lost)

    def next_group(
        self, standing: Standing, hosts: Hosts, group: Group | None, lost: HostLost | None
    ) -> Group | None:
        """As Hosts.next of clusters/hosts/launched.py does. Where a host that was not the first is
        the one that is left at the end, it keeps what it has."""
        try:
            return hosts.next(group, lost)
        except HostLost:
            if self.following.hosts is not None:
                self.keep(standing, None)
            raise

    def agree(self, group: Group) -> None:
        """Make sure that all hosts train the same; a host that comes later does so as well."""
        job, start, following = self.job, self.start, self.following
        self.job, events = agreed(group, job, start, self.training, self.validation, following)
        self.history.events += events

    def keeper_of(self, group: Group | None) -> Keeper | None:
        """Who writes checkpoints, on the host that is to."""
        following = self.following
        if following.checkpoints is None or not (group is None or group.place.is_first):
            return None
        if self._keeper is None:
            self._keeper = Keeper(*following.checkpoints, self.tell)
            self._keeper.identity = identity_of(self.job, self.training, self.validation)
        return self._keeper

    def keep(self, standing: Standing, group: Group | None) -> None:
        """Write a checkpoint of where it stands, if there are to be any."""
        if keeper := self.keeper_of(group):
            keeper.close(standing)


@contextmanager
def telling_others(group: Group | None) -> Iterator[None]:
    """Let the other hosts know of what makes this one fail, unless they know by themselves."""
    try:
        yield
    except (HostLost, HostsDiffer):
        raise
    except BaseException as error:
        if group is not None:
            group.failed(f"{type(error).__name__}: {error}")
        raise


def agreed(
    group: Group,
    job: Job,
    start: State,
    training: Samples,
    validation: Samples | None,
    following: Following,
) -> tuple[Job, list[Event]]:
    """The job on this one of several hosts, if all are to train the same; what they differ in.

    Raises HostsDiffer.
    """
    facts = identity_of(job, training, validation) | {
        "max_epochs": job.rule.max_epochs,
        "loss_threshold": job.rule.loss_threshold,
    }
    if not any(gather(group, following.resume is not None)):
        facts["initial parameters"] = digest(start.params_N, start.state_MN)
    found = agree(group, fingerprint(), facts, following.mixed == FLAG)
    events = [Event("hosts differ", start.updates, text, at=monotonic()) for text in found]
    return replace(job, place=group.place, is_mixed=bool(found)), events


def _for_hosts(job: Job, n_workers: int | None) -> Job:
    """The job for hosts with so many workers each."""
    if n_workers is None:
        return job
    shards, blocks = job.plan.n_shards, len(job.blocks)
    useful = useful_workers(n_workers, shards, blocks)
    return replace(job, n_workers=useful, n_seats=seats_for(useful, shards, blocks))


def _regrouped(job: Job, n_workers: int) -> Job:
    """The job for another number of workers, where one seat has become too few."""
    return job if job.n_seats > 1 or n_workers == 1 else _for_hosts(job, n_workers)


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

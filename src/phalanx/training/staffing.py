"""How many workers a training is worth, and which cluster they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from phalanx.clusters.base import Cluster
from phalanx.clusters.inprocess import InProcess
from phalanx.clusters.processes import Processes
from phalanx.exchange.group import Group
from phalanx.exchange.processors import processors
from phalanx.job import Job
from phalanx.models.base import ModelSpec
from phalanx.pure.assignment import useful_workers
from phalanx.pure.layout import Region

MIN_SEATS = 8  # so that a training on a small machine may still be given more workers


def seats_for(n_workers: int, n_shards: int, blocks: Sequence[Region]) -> int:
    """How many workers may share a job; a single one needs no arena with seats for others."""
    if n_workers == 1:
        return 1
    return useful_workers(max(n_workers, processors(), MIN_SEATS), n_shards, blocks)


def cluster_of(
    model: ModelSpec, n_seats: int, n_workers: int, group: Group | None = None
) -> Cluster:
    """Workers on this machine; where there is one seat, the caller's own process, if it can.

    group: the hosts with which they train together.
    """
    is_here = n_seats == 1 and model.runs_here
    return InProcess(group) if is_here else Processes(n_workers, group)


def for_hosts(job: Job, n_workers: int | None) -> Job:
    """The job for hosts with so many workers each."""
    if n_workers is None:
        return job
    shards = job.plan.n_shards
    useful = useful_workers(n_workers, shards, job.blocks)
    return replace(job, n_workers=useful, n_seats=seats_for(useful, shards, job.blocks))


def regrouped(job: Job, n_workers: int) -> Job:
    """The job for another number of workers, where one seat has become too few."""
    return job if job.n_seats > 1 or n_workers == 1 else for_hosts(job, n_workers)

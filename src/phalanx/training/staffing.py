"""How many workers a training is worth, and which cluster they make."""

from __future__ import annotations

from dataclasses import replace

from phalanx.clusters.base import Cluster
from phalanx.clusters.inprocess import InProcess
from phalanx.clusters.processes import Processes
from phalanx.exchange.group import Group
from phalanx.exchange.processors import processors
from phalanx.job import Job
from phalanx.models.base import ModelSpec

MIN_SEATS = 8  # so that a training on a small machine may still be given more workers


def staffed(job: Job, asked: int) -> Job:
    """The job for as many of the workers asked for as are useful, and with seats for those that may
    come; a single one needs no arena with seats for others."""
    useful = job.useful_workers(asked)
    seats = job.useful_workers(max(useful, processors(), MIN_SEATS)) if useful > 1 else 1
    return replace(job, n_workers=useful, n_seats=seats)


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
    return job if n_workers is None else staffed(job, n_workers)


def regrouped(job: Job, n_workers: int) -> Job:
    """The job for another number of workers, where one seat has become too few."""
    return job if job.n_seats > 1 or n_workers == 1 else staffed(job, n_workers)

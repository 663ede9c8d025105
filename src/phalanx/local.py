"""A training in rounds of local steps: the job that comes of a plain one."""

from __future__ import annotations

from dataclasses import replace

from phalanx.job import UNCLIPPED, Job
from phalanx.models.local import LocalSpec
from phalanx.pure.rounds import Outer, Rounds


def in_rounds(job: Job, every: int) -> Job:
    """The job whose shards are replicas that meet after `every` steps; with 1, the job itself.

    Penalty and clipping go to the replicas' steps, where there are gradients.
    Raises InvalidInput where an epoch of the plan ends in mid-round, before the samples do.
    """
    if every == 1:
        return job
    rounds = Rounds.of(job.plan, every)
    max_rows = job.plan.max_shard_rows
    inner = job.model, job.optimizer, rounds, job.plan.n_shards, max_rows, job.alpha, job.clip
    return replace(
        job,
        model=LocalSpec(*inner),
        plan=rounds.plan(job.plan),
        optimizer=Outer(job.optimizer, every),
        alpha=0.0,
        clip=UNCLIPPED,
    )

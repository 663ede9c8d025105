"""L-BFGS: SciPy's, over a full-batch loss and gradient that the workers compute together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np

from phalanx.arrays import Array
from phalanx.clusters.base import Session
from phalanx.data.samples import Samples
from phalanx.job import Job, Lease
from phalanx.run import EpochRecord, Run, Span
from phalanx.stopping import Progress, Reason
from phalanx.training import State, Trained, cluster_of, record_run


@dataclass(frozen=True)
class Limits:
    """When SciPy's minimiser stops: iterations, evaluations, largest gradient component, loss."""

    max_iterations: int
    max_evaluations: int
    gradient_tolerance: float
    loss_threshold: float | None = None
    verbose: bool = False


@dataclass
class Minimum:
    """What the minimiser ended with. `status`: 0 converged, 1 a limit was reached, 2 other."""

    trained: Trained
    loss: float
    iterations: int
    status: int
    message: str


class _Interrupted(Exception):
    """Ctrl-C while the workers computed a gradient."""


def minimize(job: Job, start: State, training: Samples, limits: Limits) -> Minimum:
    """Train by L-BFGS-B. `job` has a plan of one step an epoch and the KeepGradient optimiser."""
    import scipy.optimize

    begun = monotonic()
    iterates: list[tuple[Array, float]] = [(start.params_N.astype(np.float64), float("nan"))]

    def after_iteration(intermediate_result: Any) -> None:
        iterates.append((intermediate_result.x.copy(), float(intermediate_result.fun)))
        if limits.verbose:
            print(f"Iteration {len(iterates) - 1}, loss = {intermediate_result.fun:.8f}")
        if limits.loss_threshold is not None and intermediate_result.fun <= limits.loss_threshold:
            raise StopIteration

    with cluster_of(job.n_workers).session(job, training, None) as session:
        objective = _Objective(session, job)
        options = {
            "maxfun": limits.max_evaluations,
            "maxiter": limits.max_iterations,
            "gtol": limits.gradient_tolerance,
        }
        try:
            found = scipy.optimize.minimize(
                objective,
                iterates[0][0],
                method="L-BFGS-B",
                jac=True,
                options=options,
                callback=after_iteration,
            )
            x, loss, status, message = found.x, float(found.fun), found.status, found.message
            reason = Reason.NO_IMPROVEMENT if status == 0 else Reason.MAX_EPOCHS
        except _Interrupted:
            (x, loss), status, message = iterates[-1], 2, "interrupted"
            reason = Reason.INTERRUPTED
    if limits.loss_threshold is not None and loss <= limits.loss_threshold:
        status, reason = 0, Reason.LOSS_THRESHOLD
    reached = State(x.astype(job.model.dtype), np.zeros((0, x.size), job.model.dtype))
    run = _record(job, reached, objective, [f for _, f in iterates[1:]], begun, reason)
    iterations = min(len(iterates) - 1, limits.max_iterations)
    trained = Trained(reached, [], objective.lease.progress, reason, run)
    return Minimum(trained, loss, iterations, status, message)


class _Objective:
    """x -> (loss, gradient), one evaluation a lease of one step."""

    def __init__(self, session: Session, job: Job) -> None:
        self.session, self.samples = session, job.plan.n_samples
        self.lease = Lease(0, 1, 0, 0, Progress(rate=0.0))
        self.spans: list[Span] = []

    def __call__(self, x_N: Array) -> tuple[float, Array]:
        arena = self.session.arena
        arena["parameters"][:] = x_N
        reports = self.session.run(self.lease, None)
        self.spans += [span for report in reports for span in report.spans]
        if not reports[0].epochs:
            raise _Interrupted
        assert reports[0].lease is not None
        self.lease = replace(reports[0].lease, n_epochs=1)
        return reports[0].epochs[-1].loss, arena["state"][0].astype(np.float64)


def _record(
    job: Job,
    reached: State,
    objective: _Objective,
    losses: list[float],
    begun: float,
    reason: Reason,
) -> Run:
    records = [EpochRecord(f, None, 0.0, 0.0, objective.lease.progress, None) for f in losses]
    seconds = monotonic() - begun
    return record_run(
        job, reached, records, objective.spans, seconds, reason, objective.lease.updates
    )

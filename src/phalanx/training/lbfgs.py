"""L-BFGS: SciPy's, over a full-batch loss and gradient that the workers compute together."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np

from phalanx.clusters.base import Session
from phalanx.clusters.hosts.launched import launched
from phalanx.clusters.interrupt import on_interrupt
from phalanx.clusters.threads import one_blas_thread
from phalanx.data.samples import Samples
from phalanx.engine.ledger import Ledger
from phalanx.exchange.board import LAST, NEVER, OPENED
from phalanx.exchange.group import Group
from phalanx.job import Job, Lease
from phalanx.pure.arrays import Array
from phalanx.pure.stopping import Progress, Reason
from phalanx.run import EpochRecord
from phalanx.training.afterwards import late_interrupt
from phalanx.training.course import History, after, take_spans
from phalanx.training.following import Following
from phalanx.training.sessions import (
    agree_on_point,
    agreed,
    compare_ends,
    in_one_thread,
    telling_others,
)
from phalanx.training.staffing import cluster_of
from phalanx.training.state import Standing, State
from phalanx.training.train import Trained, record_run


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
    begun = monotonic()
    path = _Path(limits, start.params_N.astype(np.float64))
    history, ctrl_c = History(), _CtrlC()
    group = launched().join()
    with in_one_thread(group), on_interrupt(ctrl_c), telling_others(group):
        if group is not None:
            job, history.events = agreed(group, job, start, training, None, Following())
        cluster = cluster_of(job.model, job.n_seats, job.n_workers, group)
        with (
            one_blas_thread(),  # of SciPy's own products too, or their bits depend on the cluster
            cluster.session(job, training, None, history.events.append) as session,
        ):
            ctrl_c.session = session
            objective = _Objective(job, session, history, group)
            status, message, reason = _descend(objective, path, limits)
        standing = path.standing(job.model.dtype, reason)
        if group is not None:
            compare_ends(group, standing, history.events.append)
        run = record_run(job, standing, history, monotonic() - begun, objective.evaluations)
        if ctrl_c.has_come and reason is not Reason.INTERRUPTED:
            run.events.append(late_interrupt(objective.evaluations))
    run.strategies["optimizer"] = "lbfgs"
    trained = Trained(standing.state, [], standing.progress, reason, run)
    iterations = min(len(path.losses), limits.max_iterations)
    return Minimum(trained, path.loss, iterations, status, message)


def _descend(objective: _Objective, path: _Path, limits: Limits) -> tuple[int, str, Reason]:
    """Follow SciPy's minimiser to where it ends: its status and message, and our reason."""
    import scipy.optimize

    options = {
        "maxfun": limits.max_evaluations,
        "maxiter": limits.max_iterations,
        "gtol": limits.gradient_tolerance,
    }
    try:
        found = scipy.optimize.minimize(
            objective, path.x_N, method="L-BFGS-B", jac=True, options=options, callback=path
        )
    except _Interrupted:
        return 2, "interrupted", Reason.INTERRUPTED
    path.x_N, path.loss = found.x, float(found.fun)
    if limits.loss_threshold is not None and path.loss <= limits.loss_threshold:
        return 0, "loss threshold reached", Reason.LOSS_THRESHOLD
    reason = Reason.MAX_EPOCHS if found.status == 1 else Reason.NO_IMPROVEMENT
    return int(found.status), str(found.message), reason


class _CtrlC:
    """Ends the training at the edge of an evaluation; at once, where there is no session yet."""

    session: Session | None = None
    has_come = False

    def __call__(self) -> None:
        if self.session is None:
            raise KeyboardInterrupt
        self.has_come = True
        self.session.interrupt()  # of no effect where it is closing


class _Path:
    """Where the minimiser has come: the last accepted point, and the loss of each."""

    def __init__(self, limits: Limits, x_N: Array) -> None:
        self.x_N, self.loss = x_N, float("nan")
        self.losses: list[float] = []
        self._limits = limits

    def __call__(self, intermediate_result: Any) -> None:
        self.x_N = intermediate_result.x.copy()
        self.loss = float(intermediate_result.fun)
        self.losses.append(self.loss)
        if self._limits.verbose:
            print(f"Iteration {len(self.losses)}, loss = {self.loss:.8f}")
        threshold = self._limits.loss_threshold
        if threshold is not None and self.loss <= threshold:
            raise StopIteration

    def standing(self, dtype: np.dtype[Any], reason: Reason) -> Standing:
        """Where the training stands at its end."""
        state = State(self.x_N.astype(dtype), np.zeros((0, self.x_N.size), dtype))
        records = [EpochRecord(loss, None, 0.0, 0.0, None) for loss in self.losses]
        return Standing(state, Progress(rate=0.0), records, reason)


class _Objective:
    """x -> (loss, gradient), one evaluation a lease of one step."""

    def __init__(self, job: Job, session: Session, history: History, group: Group | None) -> None:
        self.job, self.session, self.history, self._group = job, session, history, group
        self.door = session.arena["door"]
        self.ledger = Ledger(session.arena, is_scored=False)
        self.evaluations = 0

    def __call__(self, x_N: Array) -> tuple[float, Array]:
        if self._group is not None:
            agree_on_point(self._group, x_N, self.evaluations)
        arena = self.session.arena
        arena["values"][0] = x_N
        # epoch and update stay 0, so that dropout leaves out the same neurons in every evaluation
        lease = Lease(first_epoch=0, n_epochs=1, tick=int(self.door[OPENED]), updates=0)
        self.ledger.begin(Progress(rate=0.0))
        self.door[LAST] = NEVER
        self.session.run(lease, None)
        epochs, _ = after(self.job, arena, lease)
        self.history.spans += take_spans(arena, lease, len(epochs))
        if not epochs:
            raise _Interrupted
        self.evaluations += 1
        return epochs[-1].loss, arena["values"][1].astype(np.float64)

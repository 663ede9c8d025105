"""Recovery: how soon a fit goes on after one of its two workers is killed from outside."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from random import Random
from time import monotonic, sleep
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from cases import Case
from contestants import settings
from data import Data
from phalanx import MLPClassifier
from phalanx.clusters.pool import warm_pool
from phalanx.run import Event, Run

WORKERS = 2
SECONDS = 2.5  # of an undisturbed fit
EARLIEST, LATEST = 0.2, 0.5  # when the kill comes, as a part of that


@dataclass(frozen=True)
class Kill:
    """Seconds from a SIGKILL to the next committed step, and until the replacement computes.

    Infinite where the run tells of no such thing. same_bits: as without the kill.
    """

    to_step: float
    to_replacement: float
    same_bits: bool


@dataclass(frozen=True)
class Recovered:
    """A case, seconds that one of its shards takes, and what each kill cost."""

    case: Case
    shard: float
    kills: Sequence[Kill]


def recover(case: Case, kills: int, chance: Random) -> Recovered:
    """Fit the case over and over, each time with a worker killed at a random moment."""
    data = case.samples()
    epochs = max(1, round(case.epochs * SECONDS / fit(case, data, case.epochs).seconds))
    calm = fit(case, data, epochs)
    found = [kill_one(case, data, epochs, calm, chance) for _ in range(kills)]
    return Recovered(case, seconds_a_shard(calm), found)


def kill_one(case: Case, data: Data, epochs: int, calm: Run, chance: Random) -> Kill:
    """One fit with one kill, beside the run without."""
    victim = chance.choice(warm_pool().take(WORKERS))
    delay = chance.uniform(EARLIEST, LATEST) * calm.seconds
    with ThreadPoolExecutor(1) as executor:
        killed = executor.submit(kill_after, delay, victim.pid)
        run = fit(case, data, epochs)
    return judged(run.events, victim.rank, killed.result(), run.digest == calm.digest)


def kill_after(delay: float, pid: int) -> float:
    """Kill a process from outside; when that was, on the monotonic clock."""
    sleep(delay)
    now = monotonic()
    os.kill(pid, signal.SIGKILL)
    return now


def judged(events: Sequence[Event], worker: int, killed: float, same_bits: bool) -> Kill:
    """What the events say about the kill of a worker."""

    def seen(what: str, costs: bool) -> float:
        for event in events:
            if (event.what, event.worker) == (what, worker) and event.at is not None:
                return event.at - killed + (costs and (event.cost or 0.0) / 1e3)
        return inf

    return Kill(seen("worker lost", costs=True), seen("worker joined", costs=False), same_bits)


def fit(case: Case, data: Data, epochs: int) -> Run:
    """Train a new classifier; its run."""
    chosen: dict[str, Any] = settings(case, epochs)
    classifier = MLPClassifier(n_jobs=WORKERS, **chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(data.x, data.y)
    run: Run = classifier.run_
    return run


def seconds_a_shard(run: Run) -> float:
    """What a worker computes for one shard, on average."""
    return sum(span.compute for span in run.spans) / sum(span.shards for span in run.spans)

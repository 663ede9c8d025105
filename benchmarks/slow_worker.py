"""A slow worker: what a fit makes of two workers when one runs at a quarter of its speed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from cases import MNIST_SMALL, Case
from contestants import Contestant, Estimator
from data import Data
from figures import Finding, Spread, ratio, spread
from phalanx import MLPClassifier
from phalanx.testing import Slow, scripted
from section import Section
from table import ranged, table
from timing import Timed, Times, take_turns
from torch_peers import TorchProcesses

CASE = replace(
    MNIST_SMALL, title="MNIST, 784-256-128-10, batch 1024, 16 shards", batch=1024, epochs=16
)
SHARDS = 16
FACTOR = 4  # times as long for all its work
SUM_OF_SPEEDS = (1 + 1 / FACTOR) / 2  # of the slowed workers, over that of two at full speed
SHARE = 0.9
DDP = "torch DDP"
TARGETS = {  # share of the sum of the speeds to reach at least; none for some
    "round_robin": None,
    "load_balanced": SHARE,
    "dynamic": SHARE,
    DDP: None,
}

METHOD = """\
{case}.
Adam, float32, two workers, the second of which takes {factor} times as long for all its work: after
each piece of it, it rests three times what the piece took. For Phalanx that is
`phalanx.testing.scripted(Slow(worker=1, factor={factor}))`, for torch's DistributedDataParallel the
same in its loop, by the processor time of the rank's own thread, so that it does not rest for
waiting. Everybody also runs undisturbed; all take turns, {rounds} rounds, medians, the range in
brackets. Two workers of which one has a quarter of the speed v have 1.25 v together, where v is
half of the contestant's own throughput undisturbed; the share is the part of that sum that became
steps, taken round by round. It may exceed 100 %: a worker that rests leaves caches, memory and the
processor's clock to the other. A whole `fit` is timed, with the first steps before anything is
known of the speeds."""


def section(rounds: int, quick: bool) -> Section:
    """Measure, and say what came out."""
    timed = measure(CASE.quick() if quick else CASE, rounds)
    method = METHOD.format(case=timed.case.title, factor=FACTOR, rounds=rounds)
    return Section("A slow worker", [method, speed_table(timed)], findings(timed.times))


def measure(case: Case, rounds: int) -> Timed:
    """Let everybody train the case, undisturbed and slowed."""
    data = case.samples()
    everybody: dict[str, Contestant] = {}
    for name in TARGETS:
        for label, factor in ((name, 1), (slowed(name), FACTOR)):
            everybody[label] = contestant(name, case, data, factor)
    return take_turns(case, data.source, everybody, rounds)


def contestant(name: str, case: Case, data: Data, factor: int) -> Contestant:
    """Two workers, the second of which takes `factor` times as long."""
    if name == DDP:
        return TorchProcesses(case, 2, slowness=factor)
    pace: Callable[[], AbstractContextManager[Any]] = (
        nullcontext if factor == 1 else partial(scripted, Slow(worker=1, factor=factor))
    )
    make = partial(MLPClassifier, n_jobs=2, shards=SHARDS, task_assignment=name)
    return Estimator(case, data, make, pace)


def slowed(name: str) -> str:
    """The contestant with a slow worker."""
    return f"{name}, slowed"


def share(times: Times, name: str) -> Spread:
    """Throughput with the slow worker, over the sum of the two speeds.

    >>> share({"it": [2.0], "it, slowed": [4.0]}, "it").middle
    0.8
    """
    both = ratio(times[name], times[slowed(name)])
    return Spread(*(part / SUM_OF_SPEEDS for part in (both.middle, both.low, both.high)))


def findings(times: Times) -> list[Finding]:
    """The shares that have a target, in percent."""
    return [
        Finding(f"slow worker, {name}", share(times, name).middle * 100, goal * 100, " %", True)
        for name, goal in TARGETS.items()
        if goal
    ]


def speed_table(timed: Timed) -> str:
    """Samples a second, and the share of the sum of the speeds."""
    rows = []
    for name, goal in TARGETS.items():
        part = share(timed.times, name)
        percent = Spread(part.middle * 100, part.low * 100, part.high * 100)
        speeds = [samples_a_second(timed, label) for label in (name, slowed(name))]
        rows.append([name, *speeds, ranged(percent, " %", 0), f"{goal:.0%}" if goal else ""])
    header = ("task assignment", "undisturbed, samples/s", "slowed, samples/s", "share", "target")
    return table(header, rows)


def samples_a_second(timed: Timed, name: str) -> str:
    """The throughput of a contestant."""
    case = timed.case
    samples_a_step = case.n_samples / case.steps
    return ranged(spread([samples_a_step / seconds for seconds in timed.times[name]]), digits=0)

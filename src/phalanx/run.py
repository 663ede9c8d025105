"""The run: the record of a training."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from phalanx.pure.arrays import Array
from phalanx.pure.stopping import Reason


@dataclass
class Span:
    """What one worker did in one epoch. Times in seconds; `begun` on the host's monotonic clock."""

    worker: int
    epoch: int
    begun: float
    compute: float = 0.0
    update: float = 0.0
    wait: float = 0.0
    shards: int = 0


class EpochRecord(NamedTuple):
    """One epoch: mean loss, validation score if any, learning rate, seconds, and what followed.

    measures: sums over the training samples, as the model counts them. sums: over the validation
    samples, as the score counts them.
    """

    loss: float
    score: float | None
    rate: float
    seconds: float
    reason: Reason | None
    measures: tuple[float, ...] = ()
    sums: tuple[float, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    what: a kind such as "worker lost". step: optimiser steps made before it. worker: the seat that
    it happened to, where it was one. at: seconds on the clock of `Span.begun`, where known.
    cost: milliseconds that it kept the training from committing a step, where measured.
    """

    what: str
    step: int
    detail: str = ""
    worker: int | None = None
    at: float | None = None
    cost: float | None = None

    def __str__(self) -> str:
        """One line: what happened, to whom, at which step, what it cost."""
        whom = "" if self.worker is None else f" (worker {self.worker})"
        cost = "" if self.cost is None else f"; it cost {self.cost:.1f} ms"
        detail = f": {self.detail}" if self.detail else ""
        return f"step {self.step:,}: {self.what}{whom}{detail}{cost}"


@dataclass
class Run:
    """A training, once it has ended.

    losses: mean loss of each epoch. scores: validation score of each epoch, empty without one.
    workers: of this host, one of `hosts`. shares: for each of them, its part of the shards that
    this host has computed, summing to 1.
    history: figures of each epoch by name, where the model has such.
    digest: SHA-256 over parameters and optimiser state; equal for any number of workers.
    """

    workers: int
    shards: int
    blocks: int
    parameters: int
    steps: int
    samples: int
    seconds: float
    losses: list[float] = field(repr=False)
    scores: list[float] = field(repr=False)
    rates: list[float] = field(repr=False)
    shares: list[float]
    reason: str
    digest: str
    strategies: dict[str, str]
    hosts: int = 1
    events: list[Event] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list, repr=False)
    history: dict[str, list[float]] = field(default_factory=dict, repr=False)

    @property
    def epochs(self) -> int:
        """Epochs that were completed."""
        return len(self.losses)

    @property
    def samples_a_second(self) -> float:
        """Samples trained on a second, without those of before the run was resumed."""
        before = max((e.step for e in self.events if e.what == "resumed"), default=0)
        share = 1 - before / self.steps if self.steps else 1.0
        return self.samples * share / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, ready for JSON."""
        return {**asdict(self), "epochs": self.epochs, "samples_a_second": self.samples_a_second}


def tell_fewer_workers(run: Run, asked: int) -> None:
    """Let the run's events say why not all of the workers that were asked for had a part."""
    if run.workers >= asked:
        return
    detail = f"{asked} workers were asked for and {run.workers} took part: {_too_little(run)}"
    run.events.append(Event("fewer workers", 0, detail))


def _too_little(run: Run) -> str:
    """What work there was, and what makes more of it."""
    if run.shards == 1:
        return (
            "each batch is a single shard, which one worker computes, and the update of "
            f"{run.parameters:,} parameters alone is not worth more workers. Pass shards=N to "
            "let N of them work, or a larger batch_size with shards='auto'; both are part of the "
            "answer."
        )
    return (
        f"to share were the shards of a step ({run.shards}) and the blocks of {run.parameters:,} "
        f"parameters ({run.blocks}). More shards, or a larger batch, give work to more."
    )


def digest(params_N: Array, state_MN: Array) -> str:
    """SHA-256 over the bytes of the parameters and of each row of optimiser state, in hex."""
    sha = hashlib.sha256(params_N.data)
    for row_N in state_MN:
        sha.update(row_N.data)
    return sha.hexdigest()


def shares_of(spans: list[Span], workers: int) -> list[float]:
    """Each worker's part of the shards that were computed."""
    done = [0] * workers
    for span in spans:
        done[span.worker] += span.shards
    total = sum(done) or 1
    return [n / total for n in done]

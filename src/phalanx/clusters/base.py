"""What training asks of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from phalanx.arena import Arena
from phalanx.data.samples import Samples
from phalanx.job import Job, Lease, chunk_bounds
from phalanx.models.base import ModelSpec
from phalanx.pure.arrays import Array
from phalanx.run import Event

Watch = Callable[[Arena], None]  # called now and then while workers work
Tell = Callable[[Event], None]  # called for each event, at once


@dataclass(frozen=True)
class Forward:
    """A pass over samples without gradients: a model, and how many workers share its chunks.

    shape: of one row of what comes of it. measures: whether there is a row of the model's sums for
    each chunk, or else one of its outputs for each sample.
    """

    model: ModelSpec
    n_samples: int
    n_workers: int
    shape: tuple[int, ...]
    dtype: str
    measures: bool = False

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Of all rows."""
        rows = len(chunk_bounds(self.n_samples)) if self.measures else self.n_samples
        return rows, *self.shape


class Session(Protocol):
    """A job in the hands of workers."""

    arena: Arena

    def run(self, lease: Lease, watch: Watch | None) -> None:
        """Run a lease; what came of it lies in the arena.

        Raises what a worker raised, or WorkerLost; the session is then over.
        """

    def interrupt(self) -> None:
        """End the lease, or the next one, at a step's edge, on all hosts the same."""

    def in_callback(self) -> AbstractContextManager[None]:
        """Within it, between leases, the caller's code runs; it may wait for jobs of any thread."""

    def resize(self, n_workers: int) -> None:
        """Change the number of workers from the next step on; from any thread.

        A session that cannot halts its lease at a step's edge instead (door word REGROUP).
        """

    def pause(self) -> None:
        """Halt the lease at a step's edge, on all hosts the same; from any thread."""


class Cluster(Protocol):
    """A number of workers."""

    n_workers: int

    def session(
        self, job: Job, training: Samples, validation: Samples | None, tell: Tell
    ) -> AbstractContextManager[Session]:
        """Hand a job to the workers; leaving the context gives its memory back."""

    def predict(self, work: Forward, params_N: Array, samples: Samples) -> Array:
        """What comes of a pass over all samples, in a new array."""

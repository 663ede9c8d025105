"""One worker in the caller's process: no process is started, no sample is copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from phalanx.arena import Arena
from phalanx.clusters.base import Forward, Session, Tell, Watch
from phalanx.clusters.halting import Halting
from phalanx.clusters.heap import keep_freed_memory
from phalanx.clusters.threads import one_blas_thread
from phalanx.clusters.watching import watched
from phalanx.data.samples import Samples
from phalanx.engine.courier import Courier
from phalanx.engine.exchange import NOBODY
from phalanx.engine.worker import Worker
from phalanx.errors import UserFunctionError
from phalanx.exchange.board import HALT, REGROUP, WANTED
from phalanx.exchange.group import Group
from phalanx.exchange.seats import Seats
from phalanx.job import CHUNK_ROWS, Job, Lease, chunk_bounds
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.randomness import Key


class InProcess:
    """See clusters/base.py: Cluster."""

    n_workers = 1

    def __init__(self, group: Group | None = None) -> None:
        self.group = group

    @contextmanager
    def session(
        self, job: Job, training: Samples, validation: Samples | None, tell: Tell
    ) -> Iterator[Session]:
        # of the shards' slots a host touches its own rows, and its own part of the others'
        arena = Arena.private(job.fields, is_sparse=self.group is not None)
        arena["door"][WANTED] = Seats(arena).admitted[0] = 1
        courier = Courier(job, arena, self.group) if self.group else None
        keep_freed_memory()
        with one_blas_thread():
            exchange = courier or NOBODY
            with job.model.as_guest():
                worker = Worker(job, arena, training, validation, rank=0, exchange=exchange)
            yield _Session(arena, worker, courier)

    def predict(self, work: Forward, params_N: Array, samples: Samples) -> Array:
        outputs_BO = np.empty(work.out_shape, work.dtype)
        aligned_N = aligned_empty(params_N.shape, params_N.dtype)
        aligned_N[...] = params_N
        with one_blas_thread(), work.model.as_guest():
            predict_chunks(work, aligned_N, samples, outputs_BO, rank=0)
        return outputs_BO


class _Session(Halting):
    def __init__(self, arena: Arena, worker: Worker, courier: Courier | None) -> None:
        self.arena, self._worker, self._courier = arena, worker, courier

    def run(self, lease: Lease, watch: Watch | None) -> None:
        guest = self._worker.post.job.model.as_guest()
        with watched(self.arena, watch), guest:
            self._worker.run(lease)

    def resize(self, n_workers: int) -> None:
        useful = self._worker.post.job.useful_workers(n_workers)
        if useful > 1 and not self._worker.board.door[HALT]:
            self._halt(REGROUP)


def _fitting(rows_BO: Array, outputs_BO: Array, start: int) -> Array:
    """Raise UserFunctionError where the outputs of a chunk are of another shape than the first."""
    if rows_BO.shape[1:] != outputs_BO.shape[1:]:
        raise UserFunctionError(
            "outputs must be of one shape for all samples, so that they make one array; the first "
            f"ones are of shape {outputs_BO.shape[1:]}, those from sample {start} on of "
            f"{rows_BO.shape[1:]}. Pad all samples to one length, rather than those of a batch, or "
            "let the module return what does not depend on the length."
        )
    return rows_BO


def predict_chunks(
    work: Forward, params_N: Array, samples: Samples, outputs_BO: Array, rank: int
) -> None:
    """The chunks of one worker, written to their rows of `outputs_BO`."""
    model = work.model.build(params_N)
    gatherer = samples.gatherer(min(CHUNK_ROWS, samples.n_samples))
    with np.errstate(all="ignore"):
        chunks = list(enumerate(chunk_bounds(work.n_samples)))
        for v, (start, stop) in chunks[rank :: work.n_workers]:
            rows = gatherer.rows(np.arange(start, stop), Key.of_chunk(v))
            if work.measures:
                outputs_BO[v] = model.measures(rows)  # type: ignore[attr-defined]
            else:
                outputs_BO[start:stop] = _fitting(model.outputs(rows), outputs_BO, start)

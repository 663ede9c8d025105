"""One worker in the caller's process: no process is started, no sample is copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np

from phalanx.arena import Arena
from phalanx.arrays import Array, aligned_empty
from phalanx.clusters.base import Forward, Session, Tell, Watch
from phalanx.clusters.interrupt import on_interrupt
from phalanx.clusters.threads import one_blas_thread
from phalanx.clusters.watching import watched
from phalanx.data.samples import Samples
from phalanx.engine.worker import Worker
from phalanx.exchange.board import HALT, INTERRUPT, REGROUP, WANTED
from phalanx.exchange.seats import Seats
from phalanx.generators import undisturbed
from phalanx.job import CHUNK_ROWS, Job, Lease, chunk_bounds
from phalanx.models.base import ModelSpec


class InProcess:
    """See clusters/base.py: Cluster."""

    n_workers = 1

    @contextmanager
    def session(
        self, job: Job, training: Samples, validation: Samples | None, tell: Tell
    ) -> Iterator[Session]:
        arena = Arena.private(job.fields)
        arena["door"][WANTED] = Seats(arena).admitted[0] = 1
        with one_blas_thread():
            worker = Worker(job, arena, training, validation, rank=0)
            yield _Session(arena, worker, job.model)

    def predict(self, work: Forward, params_N: Array, samples: Samples) -> Array:
        outputs_BO = np.empty(work.out_shape, work.dtype)
        aligned_N = aligned_empty(params_N.shape, params_N.dtype)
        aligned_N[...] = params_N
        with one_blas_thread(), _own_generators(work.model):
            predict_chunks(work, aligned_N, samples, outputs_BO, rank=0)
        return outputs_BO


class _Session:
    def __init__(self, arena: Arena, worker: Worker, model: ModelSpec) -> None:
        self.arena, self._worker, self._model = arena, worker, model

    def run(self, lease: Lease, watch: Watch | None) -> None:
        def halt() -> None:
            self._worker.board.door[HALT] = INTERRUPT

        with on_interrupt(halt), watched(self.arena, watch), _own_generators(self._model):
            self._worker.run(lease)

    def resize(self, n_workers: int) -> None:
        if n_workers != 1 and not self._worker.board.door[HALT]:
            self._worker.board.door[HALT] = REGROUP


def _own_generators(model: ModelSpec) -> AbstractContextManager[None]:
    """Within it, a model of other libraries may draw from the process's generators: as when it
    does so in other processes, the caller's are left as they were."""
    return undisturbed() if model.libraries else nullcontext()


def predict_chunks(
    work: Forward, params_N: Array, samples: Samples, outputs_BO: Array, rank: int
) -> None:
    """The chunks of one worker, written to their rows of `outputs_BO`."""
    model = work.model.build(params_N)
    gatherer = samples.gatherer(min(CHUNK_ROWS, samples.n_samples))
    with np.errstate(all="ignore"):
        chunks = list(enumerate(chunk_bounds(work.n_samples)))
        for v, (start, stop) in chunks[rank :: work.n_workers]:
            rows = gatherer.rows(np.arange(start, stop))
            if work.measures:
                outputs_BO[v] = model.measures(rows)  # type: ignore[attr-defined]
            else:
                outputs_BO[start:stop] = model.outputs(rows)

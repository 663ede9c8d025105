"""A block of the parameters: its views into the arena, and its update."""

from __future__ import annotations

from phalanx.arena import Arena
from phalanx.engine.slots import Slots
from phalanx.job import Job
from phalanx.pure import kernels
from phalanx.pure.arrays import Array
from phalanx.pure.layout import Kind, Region
from phalanx.pure.optimizers import Slice
from phalanx.pure.timetable import Moment


class Block:
    """See the module."""

    def __init__(self, job: Job, arena: Arena, k: int, region: Region, scratch_n: Array) -> None:
        start, stop = region[:2]
        self.region, self.kind, self.alpha = region, region.kind, job.alpha
        self.is_trained = self.kind is Kind.TRAINED
        self.values_Xn = arena["values"][:, start:stop]
        self.slots = Slots(arena, start, stop)
        params_n, state_Mn = self.values_Xn[0], self.values_Xn[1:]
        scratch_n = scratch_n[: stop - start]
        self.scalars_2C, settings = arena["scalars"][:, k], arena["settings"]
        settings_TH = settings[:, region.group] if settings.size else None
        self.slice = Slice(
            params_n,
            state_Mn,
            scratch_n,
            scratch_n,
            self.scalars_2C,
            settings_TH,
            region,
        )
        if self.is_trained:
            self._update = job.optimizer.bind(self.slice)
        self.n_decayed = min(max(job.model.n_decayed - start, 0), stop - start)
        self.decayed = params_n[: self.n_decayed]

    def update(self, grad_n: Array, weight: float, moment: Moment, rate: float) -> float:
        """Apply one step; return the sum of squares of the decayed parameters before it."""
        if not self.is_trained:
            self.values_Xn[0] = grad_n
            return 0.0
        penalty = 0.0
        if self.alpha and weight > 0 and self.n_decayed:
            pulled_n = grad_n[: self.n_decayed]
            penalty = kernels.pull(pulled_n, self.alpha / weight, self.decayed)
        self.slice.grad_n = grad_n
        self._update(moment, rate)
        return penalty

    def skip(self, moment: Moment) -> None:
        """Make a step that changes nothing."""
        self.scalars_2C[(moment.updates + 1) % 2] = self.scalars_2C[moment.updates % 2]

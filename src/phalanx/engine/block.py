"""A block of the parameters: its views into the arena, its reduction and its update."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phalanx.arena import Arena
from phalanx.arrays import Array, aligned_empty, padded_rows
from phalanx.job import Job
from phalanx.layout import Kind, Region
from phalanx.optimizers import Slice
from phalanx.timetable import Moment


class Block:
    """See the module."""

    def __init__(self, job: Job, arena: Arena, k: int, region: Region) -> None:
        start, stop = self._bounds = region[:2]
        self.kind, self.alpha = region.kind, job.alpha
        self.values_Xn = arena["values"][:, start:stop]
        self._grads_Sn, self._away = arena["grads"][:, start:stop], arena["grads_away"]
        params_n, state_Mn = self.values_Xn[0], self.values_Xn[1:]
        scratch_n = aligned_empty((stop - start,), params_n.dtype)
        self.scalars_2C, settings = arena["scalars"][:, k], arena["settings"]
        settings_TH = settings[:, region.group] if settings.size else None
        self.slice = Slice(
            params_n, state_Mn, scratch_n, scratch_n, self.scalars_2C, settings_TH, region
        )
        if self.kind is Kind.TRAINED:
            self._update = job.optimizer.bind(self.slice)
        self.n_decayed = min(max(job.model.n_decayed - start, 0), stop - start)
        self.decayed, self.pull = params_n[: self.n_decayed], scratch_n[: self.n_decayed]

    def grads(self, live: int, doers: Sequence[int] | None, owners: Sequence[int]) -> Array:
        """The gradients [live, n] of the shards, from where their doers put them.

        With `doers` None all lie at home, side by side. Else they are gathered into rows that lie
        as those at home do, so that they are reduced to equal bits.
        """
        if doers is None:
            return self._grads_Sn[:live]
        start, stop = self._bounds
        gathered_Sn = padded_rows(live, stop - start, self._grads_Sn.dtype)
        for s, (doer, owner) in enumerate(zip(doers, owners[:live], strict=True)):
            home = doer == owner
            gathered_Sn[s] = self._grads_Sn[s] if home else self._away[doer, s, start:stop]
        return gathered_Sn

    def update(self, grad_n: Array, weight: float, moment: Moment, rate: float) -> float:
        """Apply one step; return the sum of squares of the decayed parameters before it."""
        if self.kind is not Kind.TRAINED:
            self.values_Xn[0] = grad_n
            return 0.0
        penalty = 0.0
        if self.alpha and weight > 0 and self.n_decayed:
            np.multiply(self.decayed, self.alpha / weight, out=self.pull)
            shrunk = grad_n[: self.n_decayed]
            shrunk += self.pull
            penalty = float(np.dot(self.decayed, self.decayed))
        self.slice.grad_n = grad_n
        self._update(moment, rate)
        return penalty

    def skip(self, moment: Moment) -> None:
        """Make a step that changes nothing."""
        self.scalars_2C[(moment.updates + 1) % 2] = self.scalars_2C[moment.updates % 2]

"""The lanes of the vector: runs of it that travel alike, cut by who reduces what.

There is one lane, unless gradients are rounded: what is not learnt travels as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from phalanx.arrays import Array, aligned_empty
from phalanx.exchange.group import Group, Look, Pending
from phalanx.hosts import elements
from phalanx.job import Job
from phalanx.layout import Kind
from phalanx.rounding import EXACT, ROUNDINGS, Rounding


class Lane:
    """Elements start..stop of the vector. bounds: those of each host's part of it."""

    def __init__(
        self, start: int, stop: int, bounds: Sequence[tuple[int, int]], rounding: Rounding, job: Job
    ) -> None:
        self.start, self.stop, self.rounding = start, stop, rounding
        clipped = [(min(max(a, start), stop), min(max(b, start), stop)) for a, b in bounds]
        self.sizes = [b - a for a, b in clipped]
        self.mine = slice(*clipped[job.place.host])
        self.size = self.sizes[job.place.host]
        self.count = job.place.count
        self.own = job.model.dtype
        self.dtype = self.own if rounding.dtype is None else rounding.dtype
        self._out_n = aligned_empty((stop - start,), self.dtype)
        self._copies_Hn = aligned_empty((self.count, self.size), self.dtype)

    def row(self, values_N: Array) -> Array:
        """The lane of a vector, as it travels."""
        if self.rounding.dtype is None:
            return values_N[self.start : self.stop]
        packed_n = np.empty(self.stop - self.start, self.dtype)
        self.rounding.pack(values_N[self.start : self.stop], packed_n)
        return packed_n

    def scatter(self, group: Group, grad_N: Array | None, has_row: Sequence[bool]) -> Arriving:
        """Send each host its part of a gradient; bring my part of the others'.

        grad_N: None where this host has none to send; has_row: whether each host has.
        """
        row_n = np.empty(0, self.dtype) if grad_N is None else self.row(grad_N)
        sizes = [0] * self.count if grad_N is None else self.sizes
        sizes_in = [self.size * has for has in has_row]
        into_n = np.empty(sum(sizes_in), self.dtype)
        pending = group.all_to_all(row_n, sizes, into_n, sizes_in)
        return Arriving(self, pending, row_n, into_n, has_row)

    def spread(self, group: Group, reduced_N: Array, look: Look) -> None:
        """Send all hosts my part of the reduced gradient, and bring theirs."""
        self.rounding.pack(reduced_N[self.mine], self._copies_Hn[0])
        self._copies_Hn[1:] = self._copies_Hn[0]
        lane_n = reduced_N[self.start : self.stop]
        into_n = lane_n if self.rounding.dtype is None else self._out_n
        sizes = [self.size] * self.count
        group.all_to_all(self._copies_Hn.reshape(-1), sizes, into_n, self.sizes).wait(look)
        if self.rounding.dtype is not None:
            self.rounding.unpack(into_n, lane_n)


class Arriving:
    """A row of each host that is on its way. The row that was sent is kept until it has left."""

    def __init__(
        self, lane: Lane, pending: Pending, sent_n: Array, into_n: Array, has_row: Sequence[bool]
    ) -> None:
        self.lane, self._pending, self._sent_n, self._into_n = lane, pending, sent_n, into_n
        self._has_row = has_row

    def land(self, slots: Sequence[Array | None], look: Look) -> None:
        """Wait, and write what has come into the slot [N] of each host that is given one."""
        self._pending.wait(look)
        lane, at = self.lane, 0
        for has, slot_N in zip(self._has_row, slots, strict=True):
            if has and slot_N is not None:
                lane.rounding.unpack(self._into_n[at : at + lane.size], slot_N[lane.mine])
            at += lane.size * has


def lanes_of(job: Job) -> list[Lane]:
    """See the module."""
    bounds = [elements(job.blocks, part) for part in job.block_parts]
    if job.wire == EXACT:
        return [Lane(0, job.model.size, bounds, ROUNDINGS[EXACT], job)]
    lanes = []
    for is_trained, group in groupby(job.model.regions, lambda r: r.kind is Kind.TRAINED):
        regions = list(group)
        rounding = ROUNDINGS[job.wire if is_trained else EXACT]
        lanes.append(Lane(regions[0].start, regions[-1].stop, bounds, rounding, job))
    return lanes

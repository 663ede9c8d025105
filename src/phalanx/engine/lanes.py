"""The lanes of the vector: runs of it that travel alike, cut by who reduces what.

There is one lane, unless gradients are rounded: what is not learnt travels as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from phalanx.exchange.group import Group, Look, Pending
from phalanx.job import Job
from phalanx.pure.arrays import Array
from phalanx.pure.hosts import elements
from phalanx.pure.layout import Kind
from phalanx.pure.rounding import EXACT, ROUNDINGS, Rounding


class Lane:
    """Elements start..stop of the vector. bounds: those of each host's part of it."""

    def __init__(
        self, start: int, stop: int, bounds: Sequence[tuple[int, int]], rounding: Rounding, job: Job
    ) -> None:
        self.start, self.stop, self.rounding = start, stop, rounding
        clipped = [(min(max(a, start), stop), min(max(b, start), stop)) for a, b in bounds]
        self.parts = [slice(a, b) for a, b in clipped]
        self.here = job.place.host
        self.mine = self.parts[self.here]
        self._is_packed = rounding.dtype is not None
        self._nothing_n = np.empty(0, rounding.dtype or job.model.dtype)

    def scatter(self, group: Group, rows_H: Sequence[Array | None]) -> Arriving:
        """Send each host its part of my row, and bring my part of theirs.

        rows_H: mine to be sent, and where those [N] of the others belong; None for who has none.
        """
        pieces, row_N = [self._nothing_n] * len(self.parts), rows_H[self.here]
        if row_N is not None:
            pieces = self._pieces(self._packed(row_N, slice(self.start, self.stop)))
        places = [
            None if row_N is None or host == self.here else row_N[self.mine]
            for host, row_N in enumerate(rows_H)
        ]
        return self._begun(group, pieces, places)

    def spread(self, group: Group, reduced_N: Array) -> Arriving:
        """Send all hosts my part of the reduced gradient, and bring theirs."""
        pieces = [self._packed(reduced_N, self.mine)] * len(self.parts)
        places = [
            None if host == self.here else reduced_N[part] for host, part in enumerate(self.parts)
        ]
        return self._begun(group, pieces, places)

    def _packed(self, values_N: Array, part: slice) -> Array:
        """A part of the vector as it travels."""
        if not self._is_packed:
            return values_N[part]
        packed_n = np.empty(part.stop - part.start, self.rounding.dtype)
        self.rounding.pack(values_N[part], packed_n)
        return packed_n

    def _pieces(self, row_n: Array) -> list[Array]:
        """The part of each host, of a row that begins where the lane does."""
        at = self.start
        return [row_n[part.start - at : part.stop - at] for part in self.parts]

    def _begun(self, group: Group, pieces: list[Array], places: Sequence[Array | None]) -> Arriving:
        pieces[self.here] = self._nothing_n  # what is mine is here
        comes = [self._nothing_n if place_n is None else place_n for place_n in places]
        if self._is_packed:
            comes = [np.empty(len(place_n), self.rounding.dtype) for place_n in comes]
        return Arriving(self.rounding, group.all_to_all(pieces, comes), comes, places)


class Arriving:
    """What comes from each host, and the place where it belongs."""

    def __init__(
        self,
        rounding: Rounding,
        pending: Pending,
        comes: Sequence[Array],
        places: Sequence[Array | None],
    ) -> None:
        self._rounding, self._pending, self._comes, self._places = rounding, pending, comes, places

    def land(self, look: Look) -> None:
        """Wait until all of it is in its place."""
        self._pending.wait(look)
        for come_n, place_n in zip(self._comes, self._places, strict=True):
            if place_n is not None and come_n is not place_n:
                self._rounding.unpack(come_n, place_n)


def lanes_of(job: Job) -> list[Lane]:
    """Of the vector; see the module."""
    bounds = [elements(job.blocks, part) for part in job.block_parts]
    if job.wire == EXACT:
        return [Lane(0, job.model.size, bounds, ROUNDINGS[EXACT], job)]
    lanes = []
    for is_trained, group in groupby(job.model.regions, lambda r: r.kind is Kind.TRAINED):
        regions = list(group)
        rounding = ROUNDINGS[job.wire if is_trained else EXACT]
        lanes.append(Lane(regions[0].start, regions[-1].stop, bounds, rounding, job))
    return lanes


def shard_lanes_of(job: Job) -> list[Lane]:
    """Of what a shard leaves: those of the vector; or one of factors, which go to every host."""
    if job.model.factors is None:
        return lanes_of(job)
    end = job.model.factors.parcel_size
    return [Lane(0, end, [(0, end)] * job.place.count, ROUNDINGS[EXACT], job)]

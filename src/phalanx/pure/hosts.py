"""The hosts of a training: which of its tasks fall to which of them. Pure.

Each host holds a copy of the state. It computes a part of the shards, scores a part of the chunks,
and reduces a part of the blocks where that pays; the rest the other hosts send it. Parts are
contiguous, so that what travels between two hosts is one piece of memory. The answer never depends
on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from phalanx.pure.layout import Region


@dataclass(frozen=True)
class Place:
    """Host number `host` of `count`."""

    host: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the host that prints, reports and writes checkpoints."""
        return self.host == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to exchange anything with."""
        return self.count == 1


ALONE = Place()
MESSAGE_BYTES = 65_536  # what a host may as well send as wait for one message more


def parts(n_tasks: int, n_hosts: int) -> list[range]:
    """The tasks of each host: contiguous, and of nearly equal number.

    >>> parts(5, 2)
    [range(0, 2), range(2, 5)]
    """
    edges = [n_tasks * host // n_hosts for host in range(n_hosts + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]


def dividing_pays(n_shards: int, n_hosts: int, n_bytes: int) -> bool:
    """Whether each host should reduce a part of the blocks and send it to all; else each reduces
    all of them, from all the shards of all.

    Divided, a host sends its shards by parts, then its reduced part: with s shards a host,
    s N (H-1)/H and N (H-1)/H bytes, one after the other. Undivided it sends s N (H-1), at once.
    n_bytes: those of a gradient, N.

    >>> dividing_pays(2, 2, 10**9), dividing_pays(4, 2, 10**9), dividing_pays(4, 2, 1000)
    (False, True, False)
    """
    shards = -(-n_shards // n_hosts)
    more = (n_hosts - 1) * n_bytes * (shards - (shards + 1) / n_hosts)
    return more > MESSAGE_BYTES


def block_parts(blocks: Sequence[Region], n_hosts: int) -> list[range]:
    """The blocks that each host reduces: contiguous, and of nearly as many elements as can be.

    >>> [*map(list, block_parts([Region(0, 9), Region(9, 10), Region(10, 20)], 2))]
    [[0, 1], [2]]
    """
    stops = [0, *(block.stop for block in blocks)]
    ideal = [stops[-1] * host / n_hosts for host in range(n_hosts + 1)]
    edges = [min(range(len(stops)), key=lambda k: abs(stops[k] - at)) for at in ideal]
    return [range(start, stop) for start, stop in pairwise(edges)]


def elements(blocks: Sequence[Region], part: range) -> tuple[int, int]:
    """First and past-the-last element of a part of the blocks; equal where it is empty."""
    if not part:
        at = blocks[part.start].start if part.start < len(blocks) else blocks[-1].stop
        return at, at
    return blocks[part[0]].start, blocks[part[-1]].stop

"""How fast each worker is, by what it has done since the last look. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from phalanx.pure.arrays import Array


def estimated(before_W: Sequence[float], done_W2: Array, owners: Collection[int]) -> list[float]:
    """Shards a second of each worker; 0 for those that were never measured.

    before_W: what was known. done_W2: shards computed since, and the seconds that they took.
    owners: ranks to whom shards were assigned. Whoever had none is taken for quicker each time,
    up to the quickest, so that in the end it gets one and is measured: it may have been slow for a
    moment only. Of one who had some and is still at the first, there is nothing new.

    >>> import numpy as np
    >>> estimated([8.0, 1.0, 2.0], np.array([[4, 0.5], [0, 0], [0, 0]]), owners=[0, 2])
    [8.0, 2.0, 2.0]
    """
    measured = {
        rank: float(shards / seconds)
        for rank, (shards, seconds) in enumerate(done_W2)
        if shards > 0 and seconds > 0
    }
    quickest = max(measured.values(), default=0.0)
    speeds = []
    for rank, before in enumerate(before_W):
        guess = min(2 * before, max(before, quickest)) if rank not in owners else before
        speeds.append(measured.get(rank, guess))
    return speeds

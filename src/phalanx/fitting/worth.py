"""Which sizes of shards occur often enough to prepare for (models/pytorch/tape.py)."""

from __future__ import annotations

from collections import Counter

from phalanx.pure.plan import Plan
from phalanx.pure.rounds import Rounds

WORTHWHILE = 100  # steps; recording and its trial take as long as five, and some milliseconds
LARGEST = 4_000_000  # parameters: with more, what is saved is little, and the trial takes memory


def counts_of(plan: Plan, epochs: int, sync_every: int) -> tuple[int, ...]:
    """Rows of a step of a shard that occur often enough to prepare for."""
    times = times_of(plan, epochs, sync_every)
    return tuple(size for size, n_steps in times.items() if n_steps >= WORTHWHILE)


def times_of(plan: Plan, epochs: int, sync_every: int) -> Counter[int]:
    """How often steps of shards have so many rows, at most."""
    rounds = Rounds.of(plan, sync_every)
    whole, steps = rounds.plan(plan), Counter[int]()
    for nth, times in ((0, (rounds.count - 1) * epochs), (rounds.count - 1, epochs)):
        for rows in {stop - start for start, stop in whole.shards(nth)}:
            for first, last in rounds.batches(rows, nth):
                steps[last - first] += times
    return steps


def taped(counts: tuple[int, ...], n_parameters: int) -> tuple[int, ...]:
    """Those of them for which the gradient of so many parameters is worth a tape."""
    return counts if n_parameters <= LARGEST else ()

"""Task assignment: which worker computes which shard and updates which block. Pure.

An assignment is a function `(n_tasks, speeds_W) -> owners`, one rank a task. Speeds are in tasks
a second as measured, relative to each other; they are all 1 until something was measured.
The answer of a training never depends on it, only its duration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from phalanx.errors import UserFunctionError
from phalanx.pure.layout import Region
from phalanx.pure.registry import name_of

FEWEST_UPDATED = 32_768  # parameters: an update of 60 microseconds, a few times a step's waits
PLAN_EVERY = 16  # ticks; long enough to measure, short enough to follow a worker that slows down

Assignment = Callable[[int, Sequence[float]], Sequence[int]]


def useful_workers(asked: int, n_shards: int, blocks: Sequence[Region], multiply: bool) -> int:
    """Workers that find something to do: more than there are shards and blocks would only wait.

    multiply: whether gradients are made of factors, by all who update. Else a single shard is one
    worker's: the others would wait for it in every step, to share no more than the update.

    >>> halves = [Region(0, 50_000), Region(50_000, 100_000)]
    >>> useful_workers(5, 4, halves[:1], False), useful_workers(2, 2, halves, False)
    (4, 2)
    >>> useful_workers(5, 1, halves, True), useful_workers(5, 1, halves, False)
    (2, 1)
    >>> useful_workers(2, 1, [Region(0, 5_000), Region(5_000, 10_000)], True)
    1
    """
    updating = len(blocks)
    if n_shards == 1:
        updating = min(updating, blocks[-1].stop // FEWEST_UPDATED) if multiply else 1
    return max(1, min(asked, max(n_shards, updating)))


def round_robin(n_tasks: int, speeds_W: Sequence[float]) -> list[int]:
    """Task i to worker i modulo W.

    >>> round_robin(5, [1, 1])
    [0, 1, 0, 1, 0]
    """
    return [task % len(speeds_W) for task in range(n_tasks)]


def load_balanced(n_tasks: int, speeds_W: Sequence[float]) -> list[int]:
    """Contiguous shares proportional to speed: the next task goes where it would end soonest.

    The greedy rule minimises the time of the slowest worker for tasks of equal size.

    >>> load_balanced(4, [3, 1])
    [0, 0, 0, 1]
    """
    counts = [0] * len(speeds_W)
    for _ in range(n_tasks):
        ends = [(n + 1) / max(v, 1e-12) for n, v in zip(counts, speeds_W, strict=True)]
        counts[ends.index(min(ends))] += 1
    return [rank for rank, n in enumerate(counts) for _ in range(n)]


def dynamic(n_tasks: int, speeds_W: Sequence[float]) -> list[int]:
    """As load_balanced; and whoever has done its shards takes those that nobody has begun, where
    that ends sooner (see is_sooner).

    When all have been begun it computes once more what another is late with: whichever result
    comes first serves, they are equal to the bit. Blocks stay with their owners.
    """
    return load_balanced(n_tasks, speeds_W)


def is_sooner(n_waiting: int, n_owned: int, n_mine: int) -> bool:
    """Whether a shard that nobody has begun ends sooner with me than with its owner.

    The owner is in the middle of one, and has `n_waiting` to go with this one; how many each of us
    owns by the plan says how fast we are.

    >>> is_sooner(n_waiting=1, n_owned=8, n_mine=8)
    True
    >>> is_sooner(n_waiting=1, n_owned=13, n_mine=3)
    False
    """
    return n_mine * (n_waiting + 0.5) > n_owned


ASSIGNMENTS: dict[str, Assignment] = {
    "round_robin": round_robin,
    "load_balanced": load_balanced,
    "dynamic": dynamic,
}


def assign(assignment: Assignment, n_tasks: int, speeds_W: Sequence[float]) -> list[int]:
    """Owners of `n_tasks` tasks, checked.

    Raises UserFunctionError unless the function returned one rank of 0..W-1 for each task.
    """
    try:
        owners = assignment(n_tasks, speeds_W)
    except Exception as error:
        raise UserFunctionError(
            f"the task assignment {name_of(assignment)} raised {type(error).__name__}: {error}. "
            f"It is called with n_tasks={n_tasks} and {len(speeds_W)} speeds, and returns a rank "
            "for each task."
        ) from error
    ranks = np.asarray(owners)
    n_workers = len(speeds_W)
    fits = ranks.shape == (n_tasks,) and ranks.dtype.kind in "iu"
    if not fits or ranks.min() < 0 or ranks.max() >= n_workers:
        raise UserFunctionError(
            f"a task assignment must return {n_tasks} ranks, each in 0..{n_workers - 1}; "
            f"{name_of(assignment)} returned {owners!r}."
        )
    return [int(rank) for rank in ranks]


def follows_speed(assignment: Assignment) -> bool:
    """Whether shares are worth planning again when the measured speeds change."""
    return assignment is not round_robin


def is_time_to_plan(tick: int) -> bool:
    """Whether shares are planned by speed before this tick: often at first, when next to nothing is
    known of the speeds, and then now and then.

    >>> [tick for tick in range(1, 50) if is_time_to_plan(tick)]
    [2, 4, 8, 16, 32, 48]
    """
    return tick % PLAN_EVERY == 0 or tick in (2, 4, 8)


def is_dynamic(assignment: Assignment) -> bool:
    """Whether the idle take shards that another has not begun."""
    return assignment is dynamic

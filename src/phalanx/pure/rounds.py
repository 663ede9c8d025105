"""Local SGD: how the steps of an epoch make rounds, and the step that ends a round. Pure.

In a round each shard is a replica that makes steps of its own, from the same parameters; what the
replicas changed is then put together and applied by an outer step (DiLoCo, Douillard et al.,
arXiv 2311.08105; with H steps a round, parameters and gradients travel once in H steps).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np

from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array
from phalanx.pure.layout import MAX_BLOCK
from phalanx.pure.optimizers import Optimizer, Slice, Update
from phalanx.pure.plan import Plan
from phalanx.pure.registry import name_of
from phalanx.pure.timetable import Moment

OUTER_RATE = 0.7  # DiLoCo's
OUTER_MOMENTUM = 0.3  # not its 0.9, which needs thousands of rounds: see docs/models.md


@dataclass(frozen=True)
class Rounds:
    """An epoch of `n_steps` steps in rounds of `every` steps; the last takes what is left."""

    every: int
    n_steps: int

    @classmethod
    def of(cls, plan: Plan, every: int) -> Rounds:
        """The rounds of a plan of single steps.

        Raises InvalidInput where the plan ends an epoch before the samples do, in mid-round.
        """
        if plan.n_visited < plan.n_samples and plan.n_steps % every:
            raise InvalidInput(
                "steps_per_epoch must be a multiple of sync_every, so that every round is whole; "
                f"got {plan.n_steps} and {every}. Use {plan.n_steps // every * every or every}."
            )
        return cls(every, plan.n_steps)

    @property
    def count(self) -> int:
        """Rounds of an epoch."""
        return -(-self.n_steps // self.every)

    def plan(self, plan: Plan) -> Plan:
        """The plan in which a step is a round: the same order, so many batches at once."""
        most = None if plan.max_steps is None else self.count
        return replace(plan, batch_size=plan.batch_size * self.every, max_steps=most)

    def steps(self, nth: int) -> int:
        """Steps of the nth round of an epoch."""
        return min(self.every, self.n_steps - nth * self.every)

    def batches(self, rows: int, nth: int) -> list[tuple[int, int]]:
        """First and past-the-last row of each step of a shard of so many rows.

        Sizes differ by at most one, larger ones first; with fewer rows than steps, fewer steps.

        >>> Rounds(every=4, n_steps=7).batches(10, 1)
        [(0, 4), (4, 7), (7, 10)]
        """
        steps = self.steps(nth)
        small, larger = divmod(rows, steps)
        sizes = [small + (h < larger) for h in range(min(rows, steps))]
        return list(pairwise([0, *accumulate(sizes)]))

    def folded(self, table_TGX: Array) -> Array:
        """Settings [steps, G, X] by round, [rounds, G, every * X]; the last ones are repeated."""
        n_steps, groups, width = table_TGX.shape
        missing = self.count * self.every - n_steps
        whole_TGX = np.concatenate([table_TGX, np.repeat(table_TGX[-1:], missing, axis=0)])
        by_round = whole_TGX.reshape(self.count, self.every, groups, width)
        return by_round.transpose(0, 2, 1, 3).reshape(self.count, groups, self.every * width)

    def unfolded(self, settings_GX: Array) -> Array:
        """The settings of one round [G, every * X] by step, [every, G, X]."""
        groups = len(settings_GX)
        return settings_GX.reshape(groups, self.every, -1).transpose(1, 0, 2)


@dataclass(frozen=True)
class Outer:
    """v <- mu v + d; p <- p - rate (d + mu v), for what a round changed, d = before - after.

    Nesterov's momentum as PyTorch writes it. `inner` is the optimiser of the replicas; its settings
    for each step of a round are part of what is given from outside. The learning rate that comes
    with an update is the replicas' too, and passed by here.
    """

    inner: Optimizer
    every: int
    rate: float = OUTER_RATE
    momentum: float = OUTER_MOMENTUM
    slots: ClassVar[tuple[str, ...]] = ("outer_velocity",)
    n_scalars: ClassVar[int] = 0
    largest_block: ClassVar[int] = MAX_BLOCK

    @property
    def __name__(self) -> str:
        """How a run's record calls it."""
        return f"local {name_of(self.inner)}"

    @property
    def settings_shape(self) -> tuple[int, int]:
        groups, width = self.inner.settings_shape
        return groups, self.every * width

    def fresh(self, at: Slice) -> None:
        at.state_Mn[...] = 0

    def bind(self, at: Slice) -> Update:
        velocity_n = at.state_Mn[0]

        def update(moment: Moment, rate: float) -> None:
            velocity_n[...] *= self.momentum
            velocity_n[...] += at.grad_n
            np.multiply(velocity_n, self.momentum, out=at.scratch_n)
            at.scratch_n += at.grad_n
            at.scratch_n *= self.rate
            at.params_n -= at.scratch_n

        return update

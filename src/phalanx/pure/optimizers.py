"""Optimisers as updates of one block. Pure: arrays in, the same arrays changed.

Every optimiser works element by element, so a block can be updated by any worker. `step` counts
from 1, `rate` is the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from typing import ClassVar, Protocol

import numpy as np

from phalanx.pure import kernels
from phalanx.pure.arrays import Array
from phalanx.pure.layout import MAX_BLOCK, Region
from phalanx.pure.timetable import Moment

Update = Callable[[Moment, float], None]  # of one block, at a moment, with a learning rate


@dataclass(slots=True)
class Slice:
    """One block of n parameters as an optimiser sees it; all arrays are of one floating dtype.

    `state_Mn` has a row for each of the optimiser's `slots`, zero before the first step; `grad_n`
    and `scratch_n` may be overwritten. An optimiser with scalars finds those that u updates made
    in row u % 2 of `scalars_2C`, and writes the next ones to the other row. Where the settings
    come from outside, `settings_TH` has them for each step of the epoch.
    """

    params_n: Array
    state_Mn: Array
    scratch_n: Array
    grad_n: Array
    scalars_2C: Array | None = None
    settings_TH: Array | None = None
    block: Region | None = None
    rows_M: list[Array] = field(init=False)

    def __post_init__(self) -> None:
        """Take the rows of the state apart, which costs a microsecond."""
        self.rows_M = list(self.state_Mn)


class Optimizer(Protocol):
    """One rule for turning a gradient into new parameters."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state rows."""

    @property
    def n_scalars(self) -> int:
        """C, how many numbers a block has beside its rows."""

    @property
    def settings_shape(self) -> tuple[int, int]:
        """Groups and settings a group, [G, H], that are given from outside for every step."""

    @property
    def largest_block(self) -> int:
        """Elements of a block, at most."""

    def bind(self, at: Slice) -> Update:
        """What updates a block in place from `at.grad_n`."""

    def fresh(self, at: Slice) -> None:
        """Put the state of a block, its rows and the scalars that no update has made yet, to what
        a new optimiser has."""


class ElementWise:
    """What the optimisers of this module have in common."""

    n_scalars: ClassVar[int] = 0
    settings_shape: ClassVar[tuple[int, int]] = (0, 0)
    largest_block: ClassVar[int] = MAX_BLOCK

    def bind(self, at: Slice) -> Update:
        """See Optimizer."""

        def update(moment: Moment, rate: float) -> None:
            self.update(at, moment.updates + 1, rate)

        return update

    def fresh(self, at: Slice) -> None:
        """See Optimizer."""
        at.state_Mn[...] = 0

    def update(self, at: Slice, step: int, rate: float) -> None:
        """Change `at.params_n` and `at.state_Mn` in place."""
        raise NotImplementedError


@cache
def least(dtype: np.dtype[np.floating]) -> float:
    """The least number whose square is no subnormal one, with which processors take a hundred times
    as long; what is smaller is taken for zero.

    Weights of a feature that is always zero are moved by the L2 penalty alone, towards zero for
    ever, and so their gradients and the moments of these would become subnormal sooner or later.

    >>> least(np.dtype(np.float32)) == 2.0**-63
    True
    """
    return sqrt(np.finfo(dtype).tiny)


@dataclass(frozen=True)
class SGD(ElementWise):
    """p <- p - lr g."""

    slots: ClassVar[tuple[str, ...]] = ()

    def update(self, at: Slice, step: int, rate: float) -> None:
        kernels.add_scaled(at.params_n, -rate, at.grad_n)


@dataclass(frozen=True)
class Momentum(ElementWise):
    """v <- mu v - lr g; p <- p + v (Polyak 1964)."""

    momentum: float = 0.9
    slots: ClassVar[tuple[str, ...]] = ("velocity",)

    def update(self, at: Slice, step: int, rate: float) -> None:
        velocity_n = at.rows_M[0]
        kernels.shrink(velocity_n, self.momentum, least(velocity_n.dtype) ** 2)
        kernels.add_scaled(velocity_n, -rate, at.grad_n)
        at.params_n += velocity_n


@dataclass(frozen=True)
class Nesterov(ElementWise):
    """v <- mu v - lr g; p <- p + mu v - lr g (Sutskever et al., ICML 2013)."""

    momentum: float = 0.9
    slots: ClassVar[tuple[str, ...]] = ("velocity",)

    def update(self, at: Slice, step: int, rate: float) -> None:
        velocity_n = at.rows_M[0]
        kernels.shrink(velocity_n, self.momentum, least(velocity_n.dtype) ** 2)
        kernels.add_scaled(velocity_n, -rate, at.grad_n)
        kernels.add_scaled(at.params_n, self.momentum, velocity_n)
        kernels.add_scaled(at.params_n, -rate, at.grad_n)


@dataclass(frozen=True)
class Adam(ElementWise):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; p <- p - lr_t m / (sqrt(v) + eps), where
    lr_t = lr sqrt(1 - b2^t) / (1 - b1^t) (Kingma & Ba 2015, end of section 2)."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def update(self, at: Slice, step: int, rate: float) -> None:
        first_n, second_n = at.rows_M
        rate *= sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        kernels.adam(
            at.params_n,
            first_n,
            second_n,
            at.grad_n,
            self.beta_1,
            self.beta_2,
            self.epsilon,
            -rate,
            least(first_n.dtype),
        )


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam, and p <- p - lr wd p, apart from the gradient (Loshchilov & Hutter 2019)."""

    weight_decay: float = 0.01

    def update(self, at: Slice, step: int, rate: float) -> None:
        at.params_n *= 1 - rate * self.weight_decay
        super().update(at, step, rate)


@dataclass(frozen=True)
class RMSprop(ElementWise):
    """v <- rho v + (1 - rho) g^2; p <- p - lr g / (sqrt(v) + eps) (Tieleman & Hinton 2012)."""

    rho: float = 0.9
    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("mean_square",)

    def update(self, at: Slice, step: int, rate: float) -> None:
        square_n, tiny = at.rows_M[0], least(at.grad_n.dtype)
        kernels.shrink(at.grad_n, 1.0, tiny)
        np.multiply(at.grad_n, at.grad_n, out=at.scratch_n)
        kernels.shrink(square_n, self.rho, tiny**2)
        kernels.add_scaled(square_n, 1 - self.rho, at.scratch_n)
        np.sqrt(square_n, out=at.scratch_n)
        at.scratch_n += self.epsilon
        np.divide(at.grad_n, at.scratch_n, out=at.scratch_n)
        kernels.add_scaled(at.params_n, -rate, at.scratch_n)


@dataclass(frozen=True)
class Adagrad(ElementWise):
    """v <- v + g^2; p <- p - lr g / (sqrt(v) + eps) (Duchi et al., JMLR 2011)."""

    epsilon: float = 1e-8
    slots: ClassVar[tuple[str, ...]] = ("sum_of_squares",)

    def update(self, at: Slice, step: int, rate: float) -> None:
        squares_n = at.rows_M[0]
        kernels.shrink(at.grad_n, 1.0, least(squares_n.dtype))
        np.multiply(at.grad_n, at.grad_n, out=at.scratch_n)
        squares_n += at.scratch_n
        np.sqrt(squares_n, out=at.scratch_n)
        at.scratch_n += self.epsilon
        np.divide(at.grad_n, at.scratch_n, out=at.scratch_n)
        kernels.add_scaled(at.params_n, -rate, at.scratch_n)


@dataclass(frozen=True)
class KeepGradient(ElementWise):
    """Changes nothing and keeps the gradient: for a driver that optimises by itself (L-BFGS)."""

    slots: ClassVar[tuple[str, ...]] = ("gradient",)

    def update(self, at: Slice, step: int, rate: float) -> None:
        at.state_Mn[0] = at.grad_n


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
}

"""What a shard of a torch model leaves: gradients of its parameters, or factors of them.

Either way it is computed as `[loss, what comes with it, *results]`, and the results go into slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from phalanx.errors import UserFunctionError
from phalanx.models.pytorch.uses import Factoring, Tensors, Uses
from phalanx.pure.arrays import Array

Run = Callable[[], tuple[torch.Tensor, Any]]


class Leaving(Protocol):
    """params: those that are trained."""

    params: Tensors

    def of(self, run: Run, count: int) -> list[Any]:
        """Of what is `() -> (loss, output)` of so many rows: both, and the results, in the order of
        the slots; None for what is zero."""

    def shapes(self, count: int) -> list[tuple[int, ...]]:
        """Of the slots of so many rows."""


class LeftGradients:
    """One of each parameter; zero, where the loss does not depend on it."""

    def __init__(self, params: Tensors) -> None:
        self.params = params

    def of(self, run: Run, count: int) -> list[Any]:
        loss, output = run()
        return [loss, output, *torch.autograd.grad(loss, self.params, allow_unused=True)]

    def shapes(self, count: int) -> list[tuple[int, ...]]:
        return [tuple(param.shape) for param in self.params]


class LeftFactors:
    """Those that the gradients are products of; see pure/factors.py."""

    def __init__(self, params: Tensors, factoring: Factoring) -> None:
        self.params, self._factoring = params, factoring
        self._views: dict[tuple[int, int], _Views] = {}

    def of(self, run: Run, count: int) -> list[Any]:
        with Uses(self.params, count) as uses:
            loss, output = run()
        return [loss, output, *uses.factors(loss, self._factoring)]

    def shapes(self, count: int) -> list[tuple[int, ...]]:
        return [(count, factor.size) for factor in self._factoring.layout.factors]

    def slots(self, factors: Sequence[Array], count: int) -> list[torch.Tensor]:
        """Where `count` rows of a shard leave what, in its columns of the batch's factors."""
        return self._of(factors, count).slots

    def finish(self, factors: Sequence[Array], count: int, share: float) -> None:
        """What was left there is of the shard's mean loss; make it of that times `share`."""
        views = self._of(factors, count)
        if share != 1.0:
            torch._foreach_mul_(views.deltas, share)
        for rest in views.rests:
            rest.zero_()

    def _of(self, factors: Sequence[Array], count: int) -> _Views:
        key = id(factors), count
        if key not in self._views:
            self._views[key] = _Views(factors, count, self._factoring)
        return self._views[key]


class _Views:
    """Into a shard's columns, of which it has rows for the first. factors: by whose identity they
    are known, so they must live on."""

    def __init__(self, factors: Sequence[Array], count: int, factoring: Factoring) -> None:
        self.factors = factors
        tensors = [torch.from_numpy(factor.T) for factor in factors]
        self.slots = [tensor[:count] for tensor in tensors]
        self.rests = [tensor[count:] for tensor in tensors if count < len(tensor)]
        self.deltas = [
            slot
            for slot, (_, is_delta) in zip(self.slots, factoring.sources, strict=True)
            if is_delta
        ]


def put(results: Sequence[torch.Tensor | None], slots: Tensors) -> None:
    """Copy results into their slots. Raises UserFunctionError for a sparse one."""
    with torch.no_grad():
        torch._foreach_copy_(tuple(slots), tuple(map(_dense, slots, results)))


def _dense(slot: torch.Tensor, result: torch.Tensor | None) -> torch.Tensor:
    """A result as it goes into the slot: zero where there is none."""
    if result is None:
        return torch.zeros_like(slot)
    if result.layout is not torch.strided:
        raise UserFunctionError(
            "gradients must be dense, since they are added coordinate by coordinate; got "
            f"{result.layout}. Create the Embedding with sparse=False."
        )
    return result

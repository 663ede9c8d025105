"""What a torch model does with its parameters: where they do no more than to multiply a batch's
rows, or to be added to them, their gradients are products of factors (pure/factors.py).

The gradient of weights is the deltas, which are the gradient of what the layer puts out, times the
rows that it is given; so these two are all that is asked of autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from phalanx.errors import UserFunctionError
from phalanx.models.pytorch.tape import memory_of
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.factors import Factor, FactorLayout, Product

Tensors = Sequence[torch.Tensor]


class Use(NamedTuple):
    """Of parameter `place`, in a layer whose output has this edge in autograd's graph. rows: what
    is multiplied by it, [B, F]; None if it is added. is_turned: weights are [O, F], not [F, O]."""

    place: int
    edge: GradientEdge
    rows: torch.Tensor | None = None
    is_turned: bool = False


@dataclass(frozen=True)
class Factoring:
    """How the gradients of a model's parameters are made of factors.

    used: the parameters in the order of their uses. sources: of each factor, the use that it comes
    of, and whether it is its deltas or its rows. layout: where the factors of a batch lie.
    """

    used: tuple[int, ...]
    sources: tuple[tuple[int, bool], ...]
    layout: FactorLayout


class Uses(TorchFunctionMode):
    """Within it, linear layers are noted, each parameter of theirs as a use, and autograd does not
    follow what they do with it.

    count: rows of the batch.
    """

    def __init__(self, params: Tensors, count: int) -> None:
        super().__init__()
        self.all: list[Use] = []
        self._places = {id(param): place for place, param in enumerate(params)}
        self._count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = _KNOWN.get(func)
        if known is not None and torch.is_grad_enabled():
            return known(self, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def linear(self, input: Any, weight: Any, bias: Any = None) -> Any:
        if not (self._is_of_rows(input, weight, 2) and (bias is None or self._knows(bias, 1))):
            return functional.linear(input, weight, bias)
        rows = _followed(input)
        made = functional.linear(rows, weight.detach(), None if bias is None else bias.detach())
        edge = get_gradient_edge(made)
        self._note(weight, edge, rows, is_turned=True)
        if bias is not None:
            self._note(bias, edge)
        return made

    def matmul(self, input: Any, other: Any, **others: Any) -> Any:
        if others or not self._is_of_rows(input, other, 2):
            return torch.matmul(input, other, **others)
        rows = _followed(input)
        made = torch.matmul(rows, other.detach())
        self._note(other, get_gradient_edge(made), rows)
        return made

    def add(self, input: Any, other: Any, **others: Any) -> Any:
        if others or not self._is_of_rows(input, other, 1) or input.shape[1:] != other.shape:
            return torch.add(input, other, **others)
        made = torch.add(_followed(input), other.detach())
        self._note(other, get_gradient_edge(made))
        return made

    def _is_of_rows(self, input: Any, param: Any, ndim: int) -> bool:
        """Whether an operation is of the batch's rows and a parameter of so many dimensions."""
        if not (isinstance(input, torch.Tensor) and self._knows(param, ndim)):
            return False
        return input.ndim == 2 and len(input) == self._count and input.dtype is param.dtype

    def _knows(self, param: Any, ndim: int) -> bool:
        return id(param) in self._places and param.ndim == ndim

    def _note(self, param: torch.Tensor, *use: Any, **more: Any) -> None:
        self.all.append(Use(self._places[id(param)], *use, **more))

    def factors(self, loss: torch.Tensor, factoring: Factoring) -> list[torch.Tensor | None]:
        """What a shard leaves, [B, size] each. None for what is zero. Raises UserFunctionError."""
        used = tuple(use.place for use in self.all)
        if used != factoring.used:
            raise UserFunctionError(
                "a model must do the same with its parameters in every step, as it did in a trial; "
                f"it used {len(used)} of {len(factoring.used)} of them, or others, or in another "
                "order. Let no random number and no sample decide which layers are called."
            )
        wanted = sorted({use for use, is_delta in factoring.sources if is_delta})
        edges = [self.all[use].edge for use in wanted]
        deltas = dict(zip(wanted, torch.autograd.grad(loss, edges, allow_unused=True), strict=True))
        return [
            deltas[use] if is_delta else self.all[use].rows for use, is_delta in factoring.sources
        ]


_KNOWN: dict[Any, Any] = {
    functional.linear: Uses.linear,
    torch.matmul: Uses.matmul,
    torch.add: Uses.add,
}


def _followed(rows: torch.Tensor) -> torch.Tensor:
    """The same rows, which autograd follows: else what comes of them would have no gradient."""
    return rows if rows.requires_grad else rows.detach().requires_grad_()


def factoring_of(
    uses: Uses, loss: torch.Tensor, params: Tensors, vector: Vector, batch_size: int, n_shards: int
) -> Factoring | None:
    """How the gradients are made of factors; None where some of them are not.

    uses, loss: of some rows. vector: where the parameters lie.
    """
    used = tuple(use.place for use in uses.all)
    if sorted(used) != [*range(len(params))]:
        return None
    edges = [use.edge for use in uses.all]
    wanted: list[Any] = [*edges, *params]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    deltas, others = grads[: len(edges)], grads[len(edges) :]
    if any(grad is not None for grad in others) or any(delta is None for delta in deltas):
        return None
    found = _Found()
    products = []
    for number, (use, delta) in enumerate(zip(uses.all, deltas, strict=True)):
        left, right = found.factor(delta, number, True), None
        if use.rows is not None:
            right = found.factor(use.rows, number, False)
            left, right = (left, right) if use.is_turned else (right, left)
        products.append(Product(vector.params[use.place][0], left, right))
    layout = FactorLayout(
        tuple(found.factors), tuple(sorted(products)), batch_size, n_shards, vector.dtype.itemsize
    )
    return Factoring(used, tuple(found.sources), layout)


class _Found:
    """The factors that were found, each tensor once."""

    def __init__(self) -> None:
        self.factors: list[Factor] = []
        self.sources: list[tuple[int, bool]] = []
        self._places: dict[Any, int] = {}

    def factor(self, tensor: torch.Tensor, use: int, is_delta: bool) -> int:
        """The place of a tensor among the factors."""
        where = memory_of(tensor), tensor.storage_offset(), tensor.stride(), tensor.shape
        key = where, is_delta  # views that begin alike may end apart
        if key not in self._places:
            self._places[key] = len(self.factors)
            self.factors.append(Factor(tensor.shape[1], is_by_sample=True))
            self.sources.append((use, is_delta))
        return self._places[key]

"""A model's loss and gradient, or an update, as the bare operations of torch that they come to.

Between two operations of torch, Keras spends many times what they take on small batches, and
torch's autograd as much as they do. A tape (tape.py) is recorded once for each batch size, and
played only where a trial gives the same bits as the model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from phalanx.errors import UserFunctionError
from phalanx.models.pytorch.playing import played
from phalanx.models.pytorch.tape import Tape
from phalanx.pure.arrays import Array

Loss = Callable[..., tuple[torch.Tensor, Any]]
Tensors = Sequence[torch.Tensor]
Gradient = Callable[[Tensors, Tensors], tuple[torch.Tensor, Any]]
Update = Callable[[torch.Tensor], Any]


def gradient_of(loss_of: Loss, params: Tensors) -> Gradient:
    """`(tensors, slots) -> (loss, output)` of what is `(tensors...) -> (loss, output)`. The
    gradient of each parameter goes into its slot; zero, where the loss does not depend on it."""

    def gradient(tensors: Tensors, slots: Tensors) -> tuple[torch.Tensor, Any]:
        loss, output, *grads = _loss_and_grads(loss_of, params, tensors)
        put(grads, params, slots)
        return loss.detach(), output

    return gradient


def put(grads: Sequence[torch.Tensor | None], params: Tensors, slots: Tensors) -> None:
    """Copy gradients into their slots. Raises UserFunctionError for a sparse one."""
    with torch.no_grad():
        torch._foreach_copy_(tuple(slots), tuple(map(_dense, params, grads)))


def _loss_and_grads(loss_of: Loss, params: Tensors, tensors: Tensors) -> list[Any]:
    loss, output = loss_of(*tensors)
    return [loss, output, *torch.autograd.grad(loss, params, allow_unused=True)]


def _dense(param: torch.Tensor, grad: torch.Tensor | None) -> torch.Tensor:
    """A gradient as it goes into the slot: zero for a parameter that was not used."""
    if grad is None:
        return torch.zeros_like(param)
    if grad.layout is not torch.strided:
        raise UserFunctionError(
            "gradients must be dense, since they are added coordinate by coordinate; got "
            f"{grad.layout}. Create the Embedding with sparse=False."
        )
    return grad


def faster_gradient(
    loss_of: Loss, params: Tensors, tensors: Tensors
) -> tuple[Gradient, bool] | None:
    """The same by a tape, and whether it draws random numbers; None if there is no tape that is
    exact for tensors of these shapes. With the same samples, every process decides alike.

    It is tried with other parameters; theirs stay, and stay where they are.
    """
    state, gradient = torch.get_rng_state(), gradient_of(loss_of, params)
    generator = torch.Generator().manual_seed(0)
    try:
        with lent(params):
            _set(params, [0.1 * _random_like(param, generator) for param in params])
            tape = Tape(lambda *given: _loss_and_grads(loss_of, params, given), _copies(tensors))
            for _ in range(2):  # what a tape holds of the recording differs in the second
                ways = gradient, played(tape, n_kept=2, holds_still=True)
                if not _are_equal(*(_outcome(way, params, tensors, state) for way in ways)):
                    return None
                _set(params, [0.1 * _random_like(param, generator) for param in params])
                tensors = _others_of(tensors, generator)
        return played(tape, n_kept=2, holds_still=True), tape.draws
    except Exception:  # whatever cannot be recorded is left to autograd
        return None
    finally:
        torch.set_rng_state(state)


def _outcome(way: Gradient, params: Tensors, tensors: Tensors, state: torch.Tensor) -> list[Any]:
    """What a way makes of samples, random numbers being the same: loss, measures, gradients."""
    torch.set_rng_state(state)
    slots = [torch.zeros_like(param, requires_grad=False) for param in params]
    return [*tree_leaves(way(_copies(tensors), slots)), *slots]


def _copies(tensors: Tensors) -> list[torch.Tensor]:
    """The same for each way, though it may change them."""
    return [tensor.clone() for tensor in tensors]


def _others_of(tensors: Tensors, generator: torch.Generator) -> list[torch.Tensor]:
    """Other samples of the same kind: some of the rows, some of them twice, and other numbers,
    which are not larger."""
    count = len(tensors[0])
    places = torch.randint(count, (count,), generator=generator)
    return [
        part[places] * (0.5 + 0.5 * torch.rand(part.shape, generator=generator)).to(part.dtype)
        if part.is_floating_point()
        else part[places]
        for part in tensors
    ]


def faster_update(update: Update, tensors: list[torch.Tensor], grad: torch.Tensor) -> Update:
    """An update of `tensors` in place by a gradient, by a tape if there is one that is exact.

    tensors: all that it reads and changes. It is tried on other values; theirs stay.
    """
    generator = torch.Generator().manual_seed(0)

    def without_result(grad_n: torch.Tensor) -> None:
        update(grad_n)

    try:
        with lent(tensors):
            _set(tensors, _others_like(tensors, generator))
            tape = Tape(without_result, [_random_like(grad, generator)])
            play = played(tape, n_kept=0, holds_still=False)

            def faster(grad_n: torch.Tensor) -> None:
                play((grad_n,))

            for _ in range(2):
                before, step = _others_like(tensors, generator), _random_like(grad, generator)
                ways = update, faster
                if not _are_equal(*(_updated(way, tensors, before, step) for way in ways)):
                    return update
    except Exception:  # whatever cannot be recorded is left to Keras
        return update
    return faster


def _updated(
    way: Update, tensors: Tensors, before: Tensors, step: torch.Tensor
) -> list[torch.Tensor]:
    """What a way makes of values and a gradient."""
    _set(tensors, _copies(before))
    way(step.clone())
    return [tensor.data for tensor in tensors]


@contextmanager
def lent(tensors: Tensors) -> Iterator[None]:
    """Within it, the same tensors may have other memory."""
    values = [tensor.data for tensor in tensors]
    try:
        yield
    finally:
        _set(tensors, values)


def _random_like(grad: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(grad.shape, generator=generator, dtype=grad.dtype)


def _others_like(values: list[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """Positive numbers, since some states are sums of squares, and counts."""
    return [
        torch.rand(value.shape, generator=generator).to(value.dtype)
        if value.is_floating_point()
        else torch.randint(1, 9, value.shape, generator=generator, dtype=value.dtype)
        for value in values
    ]


def signature(tensors: Sequence[Any]) -> tuple[Any, ...]:
    """What a tape is good for: a loader may pad sequences to another length in every batch, or
    turn images."""
    return tuple((tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors)


def repeated(example: Sequence[Array], count: int) -> list[torch.Tensor]:
    """So many samples, made of a few."""
    places = np.arange(count) % len(example[0])
    return [torch.from_numpy(part[places]) for part in example]


def _set(tensors: Tensors, values: Tensors) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.data = value


def _are_equal(these: Sequence[Any], those: Sequence[Any]) -> bool:
    return all(
        one is other or (one is not None and other is not None and _is_equal(one, other))
        for one, other in zip(these, those, strict=True)
    )


def _is_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To the bit, but that a NaN equals nothing."""
    return torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())

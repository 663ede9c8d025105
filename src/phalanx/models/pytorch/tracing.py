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

from phalanx.models.pytorch.leaving import Leaving, put
from phalanx.models.pytorch.playing import played
from phalanx.models.pytorch.tape import Tape
from phalanx.models.pytorch.uses import Tensors
from phalanx.pure.arrays import Array

Loss = Callable[..., tuple[torch.Tensor, Any]]
Pass = Callable[[Tensors, Tensors], tuple[torch.Tensor, Any]]
Update = Callable[[torch.Tensor], Any]


def pass_of(loss_of: Loss, leaving: Leaving) -> Pass:
    """`(tensors, slots) -> (loss, output)` of what is `(tensors...) -> (loss, output)`. What it
    leaves goes into the slots."""
    left = _left(loss_of, leaving)

    def through(tensors: Tensors, slots: Tensors) -> tuple[torch.Tensor, Any]:
        loss, output, *results = left(*tensors)
        put(results, slots)
        return loss.detach(), output

    return through


def _left(loss_of: Loss, leaving: Leaving) -> Callable[..., list[Any]]:
    return lambda *tensors: leaving.of(lambda: loss_of(*tensors), len(tensors[0]))


def faster_pass(loss_of: Loss, leaving: Leaving, tensors: Tensors) -> tuple[Pass, bool] | None:
    """The same by a tape, and whether it draws random numbers; None if there is no tape that is
    exact for tensors of these shapes. With the same samples, every process decides alike.

    It is tried with other parameters; theirs stay, and stay where they are.
    """
    state, through, params = torch.get_rng_state(), pass_of(loss_of, leaving), leaving.params
    generator = torch.Generator().manual_seed(0)
    try:
        with lent(params):
            _set(params, [0.1 * _random_like(param, generator) for param in params])
            tape = Tape(_left(loss_of, leaving), _copies(tensors))
            for _ in range(2):  # what a tape holds of the recording differs in the second
                ways = through, played(tape, n_kept=2, holds_still=True)
                if not _are_equal(*(_outcome(way, leaving, tensors, state) for way in ways)):
                    return None
                _set(params, [0.1 * _random_like(param, generator) for param in params])
                tensors = _others_of(tensors, generator)
        return played(tape, n_kept=2, holds_still=True), tape.draws
    except Exception:  # whatever cannot be recorded is left to autograd
        return None
    finally:
        torch.set_rng_state(state)


def _outcome(way: Pass, leaving: Leaving, tensors: Tensors, state: torch.Tensor) -> list[Any]:
    """What a way makes of samples, random numbers being the same: loss, measures, and what it
    leaves."""
    torch.set_rng_state(state)
    dtype = leaving.params[0].dtype
    slots = [torch.zeros(shape, dtype=dtype) for shape in leaving.shapes(len(tensors[0]))]
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

"""A Keras model's loss and gradient, or an update, as one graph of torch's operations.

Between two operations of torch, Keras spends many times what they take on small batches, and
torch's autograd as much as they do. A graph is recorded once for each batch size, and calls the
same operations without what is in between. It is used only where a trial gives the same bits as
Keras itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

Loss = Callable[..., tuple[torch.Tensor, torch.Tensor]]
Gradient = Callable[..., Sequence[Any]]
Update = Callable[[torch.Tensor], Any]

LEAVING = {torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist}
NUMBERS = {
    torch.Tensor.item, torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__bool__,
    torch.Tensor.__index__,
}  # fmt: skip


def gradient_of(loss_of: Loss, params: list[torch.Tensor]) -> Gradient:
    """`(tensors...) -> [loss, output, a gradient for each parameter]`, None for one that the loss
    does not depend on, of what is `(tensors...) -> (loss, output)`."""

    def gradient(*tensors: torch.Tensor) -> Sequence[Any]:
        loss, output = loss_of(*tensors)
        return [loss, output, *torch.autograd.grad(loss, params, allow_unused=True)]

    return gradient


def faster_gradient(gradient: Gradient, tensors: list[torch.Tensor]) -> Gradient:
    """The same by a graph, if there is one that is exact for tensors of these shapes; with the same
    samples, every process comes to the same decision."""
    state = torch.get_rng_state()
    try:
        graph = _without_autograd(recorded(gradient, tensors))
        for _ in range(2):  # a graph that holds a value of the first call differs in the second
            found = []
            for way in (gradient, graph):
                torch.set_rng_state(state)
                found.append(way(*tensors))
            if not _are_equal(*found):
                return gradient
            tensors = [part.flip(0) for part in tensors]
    except Exception:  # whatever cannot be recorded is left to Keras
        return gradient
    finally:
        torch.set_rng_state(state)
    return graph


def _without_autograd(graph: Any) -> Gradient:
    """A graph that has the gradient in itself, with parameters that autograd does not follow."""
    for name, param in list(graph.named_parameters()):
        delattr(graph, name)
        setattr(graph, name, param.detach())
    forward: Gradient = graph.forward
    return forward


def faster_update(update: Update, tensors: list[torch.Tensor], grad: torch.Tensor) -> Update:
    """An update of `tensors` in place by a gradient, by a graph if there is one that is exact.

    tensors: all that it reads and changes. It is tried on other values; theirs stay.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        with lent(tensors):
            _set(tensors, _others_like(tensors, generator))
            graph = recorded(update, [_random_like(grad, generator)])
            for _ in range(2):
                before, step = _others_like(tensors, generator), _random_like(grad, generator)
                found = []
                for way in (update, graph):
                    _set(tensors, [value.clone() for value in before])
                    way(step.clone())
                    found.append([tensor.data for tensor in tensors])
                if not _are_equal(*found):
                    return update
    except Exception:  # whatever cannot be recorded is left to Keras
        return update
    return graph


@contextmanager
def lent(tensors: list[torch.Tensor]) -> Iterator[None]:
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


def _set(tensors: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.data = value


def recorded(function: Callable[..., Any], tensors: list[torch.Tensor]) -> Callable[..., Any]:
    """The operations that a function calls, as a function of the same arguments."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def plain(*arguments: torch.Tensor) -> Any:  # a method's `self` would count as an argument
        with _Closed():
            return function(*arguments)

    graph: Callable[..., Any] = make_fx(plain)(*tensors)
    return graph


class _Closed(torch.overrides.TorchFunctionMode):
    """Nothing may leave torch: what comes back would be a constant of the graph. Of tensors that
    are recorded, torch itself says so when a single number is asked for; of parameters it does not.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LEAVING or (func in NUMBERS and isinstance(args[0], torch.nn.Parameter)):
            raise RuntimeError(f"{func} of a tensor cannot be recorded")
        return func(*args, **(kwargs or {}))


def _are_equal(these: Sequence[Any], those: Sequence[Any]) -> bool:
    return all(
        one is other or (one is not None and other is not None and torch.equal(one, other))
        for one, other in zip(these, those, strict=True)
    )

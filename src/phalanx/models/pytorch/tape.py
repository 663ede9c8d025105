"""A tape: the operations of torch that a function calls, to be called again without the function.

`torch.fx` records as well, but takes a second and 800 modules to import.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
LEAVING_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
LEAVING = {
    torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.__dlpack__,
    torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__bool__, torch.Tensor.__index__,
    torch.Tensor.new, torch.Tensor.tensor_split, torch.tensor_split, torch.Tensor.to_sparse,
    torch.sparse_coo_tensor,
}  # fmt: skip
MAKING = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor}


class Unrecordable(Exception):
    """A number left torch: what came of it would be a constant of the tape."""


@dataclass
class Call:
    """One operation. result: a tensor, several, or None."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def changes_something(self) -> bool:
        """Whether it does more than to return a result: it writes, draws random numbers, or checks
        something, and so returns nothing."""
        schema = self.operation._schema
        return bool(schema.is_mutable) or not schema.returns or self.draws

    @property
    def changed(self) -> set[int]:
        """The memory that it writes into, as `memory_of` names it."""
        arguments = self.operation._schema.arguments
        written = [
            self.kwargs.get(argument.name) if i >= len(self.args) else self.args[i]
            for i, argument in enumerate(arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        return {memory_of(tensor) for tensor in tree_leaves(written)}

    @property
    def draws(self) -> bool:
        return torch.Tag.nondeterministic_seeded in self.operation.tags


def memory_of(tensor: torch.Tensor) -> int:
    """A name for a tensor's memory, which its views have as well."""
    return int(tensor.untyped_storage()._cdata)


class Tape:
    """What `function(*tensors)` calls, and what it returns: a list of tensors, nests of
    them, and None."""

    def __init__(self, function: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> None:
        self.tensors, self.calls = list(tensors), list[Call]()
        before = _drawn_elsewhere()
        with _Closed(), _Recorder(self.calls):
            self.results = list(function(*self.tensors) or ())
        if _drawn_elsewhere() != before:
            raise Unrecordable("a number was drawn by Python or NumPy")

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return any(call.draws for call in self.calls)


def _drawn_elsewhere() -> Any:
    """What changes when Python's generator or NumPy's is drawn from."""
    of_numpy: Any = np.random.get_state()
    return random.getstate(), of_numpy[1].tobytes(), of_numpy[2:]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, calls: list[Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nobody compiles this; to tell torch's compiler so takes a second, to import it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if LEAVING_TAGS & set(func.tags):
            raise Unrecordable(f"{func} takes a number, or a shape, out of a tensor's values")
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is aten.lift_fresh.default:  # of a number, which may be changed in place later
            args = (result.clone(),)
        self._calls.append(Call(func, args, kwargs, result))
        return result


class _Closed(torch.overrides.TorchFunctionMode):
    """Within it, nothing leaves torch without an operation that tells."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LEAVING or (func in MAKING and _has_listed_tensors(args, kwargs or {})):
            raise Unrecordable(f"{func} takes numbers out of a tensor")
        return func(*args, **(kwargs or {}))


def _has_listed_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether there are tensors in a list: of these, numbers are taken."""
    lists = [value for value in (*args, *kwargs.values()) if isinstance(value, (list, tuple))]
    return any(isinstance(value, torch.Tensor) for value in tree_leaves(lists))

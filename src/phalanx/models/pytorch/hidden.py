"""What an optimiser keeps outside of its state, which no worker would see of another: found by
trying it."""

from __future__ import annotations

import pickle
from operator import sub
from typing import Any

import torch

from phalanx import references
from phalanx.errors import InvalidInput
from phalanx.models.pytorch import byvalue
from phalanx.models.pytorch.optimizers import NOT_KEPT, bare, trial_step

TORCHS = (
    "_need_device_dtype_check_for_fused", "_step_count", "_opt_called",
    "_warned_capturable_if_run_uncaptured",
)  # fmt: skip
STEPS = 2
PARAMS = 2  # of a trial's group: what rises with each of them is no count of steps
LARGEST = 8  # rows and columns of a trial's parameters: what is kept does not depend on how many


def counts_of(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """Names of what an optimiser's groups keep count of steps in: a number that each step raises
    by one, and that may be missing before the first.

    Raises InvalidInput for one of which a step changes more than these, parameters and state: each
    worker would have a count of its own, of steps on the blocks that it happens to have.
    """
    kept, found = _kept_by(optimizer), set[str]()
    _check_no_optimizer_in(kept, type(optimizer).__name__)
    for group in optimizer.param_groups:
        settings = {name: value for name, value in group.items() if name != "params"}
        body = _packed((kept, settings), type(optimizer).__name__)
        for shape in {tuple(min(n, LARGEST) for n in param.shape) for param in group["params"]}:
            after = _after_steps(type(optimizer), body, shape)
            kept_before, settings_before = references.loads(body)
            counts = _counted(settings_before, [settings_after for _, settings_after in after])
            for kept_after, settings_after in after:
                others = {k: v for k, v in settings_after.items() if k not in counts}
                _check_same(optimizer, settings_before, others, "in its param_groups")
                _check_same(optimizer, kept_before, kept_after, "as an attribute of its own")
            found |= counts
    return tuple(sorted(found))


def _counted(before: dict[str, Any], after: list[dict[str, Any]]) -> set[str]:
    """What is a whole number, and one more after each step."""
    by_name = {n: [before.get(n, 0), *(settings.get(n) for settings in after)] for n in after[0]}
    return {
        name
        for name, numbers in by_name.items()
        if {*map(type, numbers)} == {int} and {*map(sub, numbers[1:], numbers)} == {1}
    }


def _kept_by(optimizer: Any) -> dict[str, Any]:
    """Attributes, but for those that torch has, and knows how to share."""
    return {k: v for k, v in vars(optimizer).items() if k not in (*NOT_KEPT, *TORCHS)}


def _packed(kept: Any, kind: str) -> bytes:
    try:
        return byvalue.dumps(kept)
    except Exception as error:
        raise InvalidInput(
            f"an optimizer must be one that can be pickled, since workers get a copy; {kind} "
            f"raised {type(error).__name__}: {error}. Leave that attribute out, or make it in "
            "step() where it is needed."
        ) from error


def _after_steps(
    kind: type, body: bytes, shape: tuple[int, ...]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Attributes and settings after each step of a copy, which has them from the pickle `body`."""
    kept, settings = references.loads(body)
    generator = torch.Generator().manual_seed(0)
    # that require gradients, so that one which asks autograd for more of them says so
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(PARAMS)]
    group = {**settings, "params": params}
    trial, after = bare(kind, kept, [group]), []
    for _ in range(STEPS):
        for param in params:
            param.grad = torch.randn(shape, generator=generator)
        trial_step(trial)
        settings_after = {name: value for name, value in group.items() if name != "params"}
        after.append((_kept_by(trial), settings_after))
    return after


def _check_same(optimizer: Any, before: dict[str, Any], after: dict[str, Any], where: str) -> None:
    for name, value in after.items():
        if name not in before or not are_same(before[name], value):
            raise InvalidInput(
                "an optimizer must keep what a step changes in its state, which workers share; "
                f"{type(optimizer).__name__} keeps {name!r} {where}, and a step changes it. Keep "
                f"it in optimizer.state[param][{name!r}], a number or a tensor of the parameter's "
                "shape; leave it out, if it serves a log alone; or use one of torch.optim."
            )


def _check_no_optimizer_in(kept: dict[str, Any], kind: str) -> None:
    inner = [name for name, value in kept.items() if isinstance(value, torch.optim.Optimizer)]
    if inner:
        raise InvalidInput(
            "an optimizer must update each block by itself, from its own state; "
            f"{kind} has another one inside, {inner[0]!r}, which knows of whole parameters "
            "alone. Pass that one, or write both as one optimizer."
        )


def are_same(one: Any, other: Any) -> bool:
    """Whether two values hold the same, though they are different objects."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and bool(
            ((one == other) | ((one != one) & (other != other))).all()  # noqa: PLR0124  (NaN)
        )
    if isinstance(one, dict):
        return are_same([*one.items()], [*other.items()])
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(are_same, one, other))
    try:
        return pickle.dumps(one) == pickle.dumps(other)
    except Exception:  # what it is cannot be told; most likely a function
        return True

"""What an optimiser keeps outside of its state, which no worker would see of another: found by
trying it."""

from __future__ import annotations

import pickle
from typing import Any

import torch

from phalanx.errors import InvalidInput
from phalanx.models.pytorch import byvalue
from phalanx.models.pytorch.optimizers import NOT_KEPT, bare, trial_step

TORCHS = (
    "_need_device_dtype_check_for_fused", "_step_count", "_opt_called",
    "_warned_capturable_if_run_uncaptured",
)  # fmt: skip
STEPS = 2
LARGEST = 8  # rows and columns of a trial's parameters: what is kept does not depend on how many


def check_state_alone(optimizer: torch.optim.Optimizer) -> None:
    """Raise InvalidInput for an optimiser of which a step changes more than parameters and state:
    each worker would have a count of its own, of steps on the blocks that it happens to have."""
    kept = _kept_by(optimizer)
    _check_no_optimizer_in(kept, type(optimizer).__name__)
    for group in optimizer.param_groups:
        settings = {name: value for name, value in group.items() if name != "params"}
        body = _packed((kept, settings), type(optimizer).__name__)
        for shape in {tuple(min(n, LARGEST) for n in param.shape) for param in group["params"]}:
            kept_after, settings_after = _after_steps(type(optimizer), body, shape)
            kept_before, settings_before = pickle.loads(body)
            _check_same(optimizer, settings_before, settings_after, "in its param_groups")
            _check_same(optimizer, kept_before, kept_after, "as an attribute of its own")


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
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and settings after steps on a copy, which has them from the pickle `body`."""
    kept, settings = pickle.loads(body)
    generator = torch.Generator().manual_seed(0)
    param = torch.nn.Parameter(torch.randn(shape, generator=generator), requires_grad=False)
    group = {**settings, "params": [param]}
    trial = bare(kind, kept, [group])
    for _ in range(STEPS):
        param.grad = torch.randn(shape, generator=generator)
        trial_step(trial)
    return _kept_by(trial), {name: value for name, value in group.items() if name != "params"}


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

"""What can be said of a user's module, loss and optimiser; see fitting/told.py."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch

from phalanx.fitting.told import ADDRESS, digest_of, name_of, texts_of
from phalanx.models.pytorch.describing import Described
from phalanx.models.pytorch.network import dense_parts
from phalanx.models.pytorch.objective import Objective
from phalanx.models.pytorch.parameters import named_parameters_of
from phalanx.models.pytorch.vector import Vector
from phalanx.models.pytorch.weighing import opened

KERNELS = ("fused", "foreach", "capturable", "differentiable")  # how, and not what, is computed
UNTOLD = ("training", "inplace")


def told_of(
    module: torch.nn.Module, objective: Objective, described: Described, vector: Vector
) -> dict[str, dict[str, str]]:
    """By kind and name. What a schedule or a callback may have changed is told of an optimiser
    that has not begun alone, so that one that has can go on.

    vector: where all that training changes lies, which is not told.
    """
    trained = {id(param) for param in described.params}
    told = {
        "module": _parts("itself", module),
        "constants": _constants(module, trained, {*vector.averaged, *vector.copied}),
        "objective": _objective(objective, trained),
    }
    if not described.live.state:
        groups = enumerate(described.live.param_groups)
        told["settings"] = {
            f"{name} of group {g}": text
            for g, group in groups
            for name, text in _settings(group).items()
            if name not in described.counts
        }
    return told


def _parts(name: str, module: torch.nn.Module) -> dict[str, str]:
    """The classes of a module's parts, and what each was created with."""
    found: dict[str, str] = {}
    for inner, part in module.named_modules():
        path = inner or name
        found[path] = _kind(part)
        if type(part).__module__.startswith("torch.nn."):
            found |= {f"{path}.{key}": text for key, text in _created_with(part).items()}
    return found


def _kind(part: torch.nn.Module) -> str:
    """The class, and what a user's says of itself, without figures that training changes."""
    kind = type(part)
    if kind.__module__.startswith("torch.nn."):
        return kind.__name__
    try:
        text = ADDRESS.sub("", part.extra_repr())
    except Exception:  # it is the user's, and for people to read
        text = ""
    return f"{kind.__name__}({'' if 'tensor(' in text else text})"


def _created_with(part: torch.nn.Module) -> dict[str, str]:
    return {k: v for k, v in texts_of(vars(part)).items() if k[0] != "_" and k not in UNTOLD}


def _constants(
    module: torch.nn.Module, trained: Container[int], changing: Container[str] = ()
) -> dict[str, str]:
    """Digests of parameters and buffers that training leaves as they are.

    trained: ids of parameters. changing: names of buffers.
    """
    named = {**dict(named_parameters_of(module)), **dict(module.named_buffers())}
    return {
        name: _digest(tensor)
        for name, tensor in named.items()
        if id(tensor) not in trained and name not in changing
    }


def _objective(objective: Objective, trained: Container[int]) -> dict[str, str]:
    found: dict[str, str] = {}
    functions = {"loss": objective.loss, "step": objective.step, **objective.metrics}
    for name, function in functions.items():
        found |= {} if function is None else _function(name, function, trained)
    return found


def _function(name: str, function: Any, trained: Container[int]) -> dict[str, str]:
    bare, keywords = opened(function)
    digests = {k: _digest(v) for k, v in keywords.items() if isinstance(v, torch.Tensor)}
    if isinstance(bare, torch.nn.Module):
        found, digests = _parts(name, bare), digests | _constants(bare, trained)
    else:
        found = {name: name_of(function)}
    return found | {f"{name}.{k}": digest for k, digest in digests.items()}


def _digest(tensor: torch.Tensor) -> str:
    """Of weights of classes, say; the text of what shows no bytes, as quantized ones."""
    try:
        return digest_of(
            part.detach().cpu().resolve_conj().resolve_neg().reshape(-1).view(torch.uint8).numpy()
            for part in dense_parts(tensor)
        )
    except RuntimeError:
        return str(tensor)


def _settings(group: dict[str, Any]) -> dict[str, str]:
    """As the user gave them: a scheduler keeps the rate that it found."""
    given = {k: v for k, v in group.items() if k not in ("params", "initial_lr", *KERNELS)}
    if "initial_lr" in group:
        given["lr"] = group["initial_lr"]
    numbers = {k: float(v) if _is_number(v) else v for k, v in given.items()}
    return texts_of(numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1

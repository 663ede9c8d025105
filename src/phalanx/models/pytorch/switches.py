"""torch's switches for a whole process that have a part in the result: the caller's are carried to
the workers.

Each is known by its name in torch.backends, as far as it has one. What a version of torch does not
have is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch

MIXED = "mixed"  # what torch has no word for: each backend multiplies by a precision of its own
MATMULS = ("mkldnn.matmul.fp32_precision", "cuda.matmul.fp32_precision")
Changed = tuple[tuple[str, Any], ...]


class Switch(NamedTuple):
    """default: as a process has it that nobody has told otherwise."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    default: Any


def changed_switches(device: str) -> Changed:
    """Names and values of those that concern the device and are not as in a new process."""
    is_mixed = matmul_precision() == MIXED
    found = {name: switch.read() for name, switch in _concerning(device).items()}
    return tuple(
        (name, value)
        for name, value in found.items()
        if value != _switches()[name].default and (is_mixed or name not in MATMULS)
    )


def matmul_precision() -> str:
    """torch.get_float32_matmul_precision(), which raises where backends have different ones."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return MIXED


def set_switches(device: str, matmul: str, changed: Changed) -> None:
    """Set all that concern the device: those that are named, and the others as in a new process. In
    the caller's own there is nothing to set."""
    wanted, switches = dict(changed), _concerning(device)
    matmuls = [name for name in MATMULS if name in switches]
    for name, switch in switches.items():
        if name not in matmuls:
            _set(switch, wanted.get(name, switch.default))
    if matmul_precision() != matmul:
        torch.set_float32_matmul_precision("highest" if matmul == MIXED else matmul)
    for name in matmuls if matmul == MIXED else []:
        _set(switches[name], wanted.get(name, switches[name].default))


def _set(switch: Switch, value: Any) -> None:
    if switch.read() != value:
        switch.write(value)


def _concerning(device: str) -> dict[str, Switch]:
    is_cpu = torch.device(device).type == "cpu"
    return {n: s for n, s in _switches().items() if not (is_cpu and n.startswith("cu"))}


@cache
def _switches() -> dict[str, Switch]:
    """By name; a precision that others inherit comes before theirs."""
    debug_mode = torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
    found = {
        "deterministic": Switch(*debug_mode, 0),
        "mkldnn.enabled": _attribute(torch.backends.mkldnn, "enabled", True),
        "cudnn.enabled": _attribute(torch.backends.cudnn, "enabled", True),
        "cudnn.deterministic": _attribute(torch.backends.cudnn, "deterministic", False),
    }
    return {**found, **_attention(torch.backends.cuda), **_precisions()}


def _attention(cuda: Any) -> dict[str, Switch]:
    """Which kernels scaled_dot_product_attention may choose from, on a CPU too."""
    kinds = [f"{kind}_sdp" for kind in ("flash", "mem_efficient", "math", "cudnn")]
    return {
        kind: Switch(getattr(cuda, f"{kind}_enabled"), getattr(cuda, f"enable_{kind}"), True)
        for kind in kinds
        if hasattr(cuda, f"enable_{kind}")
    }


def _attribute(owner: Any, name: str, default: Any) -> Switch:
    return Switch(partial(getattr, owner, name), partial(setattr, owner, name), default)


def _precisions() -> dict[str, Switch]:
    """Those of torch.backends.*.fp32_precision, since torch 2.9."""
    read = getattr(torch._C, "_get_fp32_precision_getter", None)
    write = getattr(torch._C, "_set_fp32_precision_setter", None)
    if read is None or write is None:
        return {}
    found = {"fp32_precision": _precision(read, write, "generic", "all")}
    for backend in ("mkldnn", "cuda"):
        for part in ("all", "conv", "rnn", "matmul"):
            name = f"{backend}.{part}.fp32_precision"
            found[name] = _precision(read, write, backend, part)
    return found


def _precision(read: Any, write: Any, backend: str, part: str) -> Switch:
    is_faster = backend == "cuda" and part in ("conv", "rnn")
    default = "tf32" if is_faster else "none"
    return Switch(partial(read, backend, part), partial(write, backend, part), default)

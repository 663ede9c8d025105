"""Straight code: a user's `forward`, or loss, that does the same whenever it is called.

A tape, and factors, stand for what a forward pass did in a trial; so it may not keep anything, nor
decide anything by numbers. Looked at is the bytecode, which is what runs, whatever has become of
the file: calls of the module's own parts and of torch, one after another, with no branch but on
attributes that are constants and no loop but over a list of parts. What is not known here, to be
one of these, counts as something else.
"""

from __future__ import annotations

import builtins
import dis
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch

PLAIN = {
    "RESUME", "NOP", "CACHE", "EXTENDED_ARG", "PUSH_NULL", "POP_TOP", "COPY", "SWAP", "NOT_TAKEN",
    "LOAD_CONST", "LOAD_SMALL_INT", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW",
    "LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW", "STORE_FAST",
    "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST", "PRECALL", "KW_NAMES", "CALL", "CALL_KW",
    "BINARY_OP", "BINARY_SLICE", "UNARY_NEGATIVE", "COMPARE_OP", "IS_OP", "TO_BOOL", "BUILD_TUPLE",
    "BUILD_LIST", "BUILD_SLICE", "UNPACK_SEQUENCE", "FOR_ITER", "END_FOR", "POP_ITER",
    "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_FORWARD", "RETURN_VALUE", "RETURN_CONST",
}  # fmt: skip
CONSTANTS = bool, int, float, str, type(None), torch.dtype
BANNED = "_", "get_", "set_"  # beginnings of others that do
LISTS = torch.nn.ModuleList, torch.nn.Sequential
LEAVING = {  # attributes that lead out of what operations of torch do with tensors
    "data", "grad", "autograd", "func", "item", "tolist", "numpy", "backward", "register_hook",
    "requires_grad_", "apply_", "map_", "save", "load", "seed", "manual_seed", "compile", "cond",
    "default_generator", "initial_seed", "jit", "ops", "random", "utils", "vmap",
}  # fmt: skip
OF_MODULES = {*dir(torch.nn.Module)} - {*dir(torch.Tensor), "forward"}
OF_EVERY_CLASS = {
    "__module__", "__qualname__", "__doc__", "__annotations__", "__annotate_func__",
    "__annotations_cache__", "__firstlineno__", "__static_attributes__", "__dict__", "__weakref__",
    "__init__", "forward", "extra_repr",
}  # fmt: skip


def is_straight(part: torch.nn.Module, parts: Sequence[torch.nn.Module]) -> bool:
    """Whether `part`, one of the parts of a module, has a class of the user's on one of torch's,
    and a forward pass that does the same whenever it is called."""
    own, base = _classes(part)
    if not own or any(kind.__module__.startswith("torch.") for kind in own):
        return False
    overridden = {name for kind in own for name in vars(kind) if hasattr(base, name)}
    if not overridden <= OF_EVERY_CLASS or "forward" in vars(part):
        return False
    if base is not torch.nn.Module and not all(map(is_data_or_torchs, vars(part).values())):
        return False
    forward = type(part).forward
    return _is_torchs(forward) or is_straight_function(forward, parts)


def is_data_or_torchs(value: Any) -> bool:
    """Whether an attribute is no function of the user's, such as an activation."""
    origin = getattr(value, "__module__", None) or "torch"  # torch's own in C have none
    return not callable(value) or origin.startswith("torch")


def is_straight_function(function: Any, parts: Sequence[torch.nn.Module] = ()) -> bool:
    """Whether a function, which may be called with these parts of a module, is straight."""
    return _Look(parts).takes(function)


def _classes(part: torch.nn.Module) -> tuple[list[type], type]:
    """Those that are none of torch's modules, and the first one that is."""
    kinds = type(part).__mro__[:-1]
    torchs = [kind for kind in kinds if kind.__module__.startswith("torch.nn.modules.")]
    return [kind for kind in kinds if kind not in torchs], torchs[0]


@dataclass
class _Look:
    """At functions that are called with a module's parts; seen: so far, since they may call each
    other."""

    parts: Sequence[torch.nn.Module]
    seen: set[int] = field(default_factory=set)

    def takes(self, function: Any) -> bool:
        """Whether it is a straight one."""
        if not isinstance(function, FunctionType):
            return False
        if id(function) in self.seen:
            return True
        self.seen.add(id(function))
        code = list(dis.get_instructions(function))
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        return all(map(_is_constant, defaults)) and all(
            self._is_plain(code, i, function) for i in range(len(code))
        )

    def _is_plain(self, code: Sequence[dis.Instruction], i: int, function: FunctionType) -> bool:
        this, name = code[i], code[i].opname
        if name == "LOAD_GLOBAL":
            return self._is_known(_global(function, this.argval))
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            return self._may_load(this.argval)
        if name == "BINARY_SUBSCR" or (name == "BINARY_OP" and this.argrepr == "[]"):
            return _constant_before(code, i) is not None  # a number could choose a layer
        if name == "GET_ITER":
            return all(isinstance(held, LISTS) for held in self._loaded(code, i) or [None])
        if "JUMP" in name and "_IF_" in name:
            return self._is_settled(code, i)
        return name in PLAIN

    def _is_settled(self, code: Sequence[dis.Instruction], i: int) -> bool:
        """Whether a branch is on an attribute that stays what it is, or asks what there is none
        of: no number decides that."""
        if code[i].opname.endswith("NONE"):
            return code[i - 1].opname.startswith(("LOAD_FAST", "LOAD_ATTR"))
        held = self._loaded(code, i - 1 if code[i - 1].opname == "TO_BOOL" else i)
        return bool(held) and all(map(_is_constant, held))

    def _loaded(self, code: Sequence[dis.Instruction], end: int) -> list[Any]:
        """What parts have by the attribute that is loaded just before; nothing, if that is none."""
        last = code[end - 1]
        return list(self._held(last.argval)) if last.opname == "LOAD_ATTR" else []

    def _held(self, name: str) -> Iterable[Any]:
        """What parts have by a name that torch's classes do not give them."""
        for part in self.parts:
            own, _ = _classes(part)
            holders: list[Any] = [part._parameters, part._modules, vars(part), *map(vars, own)]
            yield from [holder[name] for holder in holders if name in holder][:1]

    def _may_load(self, name: str) -> bool:
        """Whether all that goes by an attribute's name may be used: whose it is, is not known."""
        held = list(self._held(name))
        if not held and (name.startswith(BANNED) or name in OF_MODULES):
            return False
        return name not in LEAVING and all(map(self._is_known, held))

    def _is_known(self, value: Any) -> bool:
        """Whether it is of the module's, or of torch's, or the same for ever, or straight."""
        if isinstance(value, (torch.nn.Parameter, torch.nn.Module)):
            return any(
                value is held for part in self.parts for held in (part, *part._parameters.values())
            )
        if isinstance(value, ModuleType):
            return value is math or value.__name__.split(".")[0] == "torch"
        return _is_constant(value) or value is len or _is_torchs(value) or self.takes(value)


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return isinstance(value, CONSTANTS)


def _is_torchs(value: Any) -> bool:
    """Whether it is a function of torch's; of those in C some do not say where they are from."""
    if not isinstance(value, (FunctionType, BuiltinFunctionType)):
        return False
    is_from_torch = (value.__module__ or "").startswith("torch")
    return is_from_torch or getattr(torch, value.__name__, None) is value


def _global(function: FunctionType, name: str) -> Any:
    """What a name stands for in a function; `...`, which nothing takes, where that is nothing."""
    return function.__globals__.get(name, getattr(builtins, name, ...))


def _constant_before(code: Sequence[dis.Instruction], end: int) -> int | None:
    """Where the constant begins that is loaded just before; None, if it is none."""
    last = code[end - 1]
    if last.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
        return end - 1
    if last.opname not in ("BUILD_SLICE", "BUILD_TUPLE"):
        return None
    begin: int | None = end - 1
    for _ in range(last.argval):
        begin = None if begin is None else _constant_before(code, begin)
    return begin

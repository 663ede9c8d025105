"""Functions and classes of imported modules, which travel by their names.

What a script or a notebook defines travels by value, and with it the global values that it uses. Of
what is imported the name travels, and a worker imports the module itself. Of a module of the user's
own it may find something else than the caller has: another file, if it was edited since, or other
values of global names, if they were set since. So what the caller has is told along, as far as it
can be said in texts, and looked at where it arrives.
"""

from __future__ import annotations

import dis
import importlib
import inspect
import io
import pickle
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from hashlib import sha256
from types import CodeType, FunctionType, ModuleType, NoneType
from typing import Any, NamedTuple

import cloudpickle

from phalanx.errors import UserFunctionError

LONGEST = 80  # characters of a value that are told as they are
PLAIN = (bool, int, float, complex, str, bytes, NoneType)

_latest: dict[str, str] = {}  # what was told last, of each name,
_specs: dict[str, Any] = {}  # and by which the modules were loaded
_changes = 0


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Of one value. Takes account of what travels by name."""

    def __init__(self) -> None:
        self._file, self._account = io.BytesIO(), _Account()
        super().__init__(self._file, protocol=pickle.HIGHEST_PROTOCOL)

    @property
    def told(self) -> dict[str, str]:
        """What each name stands for."""
        return self._account.facts

    def pickled(self, value: object) -> bytes:
        """The pickle of a value behind what is told of it, for `opened`."""
        self.dump(value)
        _remember(self.told)
        return pickle.dumps(self.told) + self._file.getbuffer()

    def reducer_override(self, part: Any) -> Any:
        reduced = super().reducer_override(part)
        if reduced is NotImplemented and isinstance(part, (FunctionType, type)):
            self._account.note(part)
        elif isinstance(part, FunctionType):
            self._account.note_used(part)
        return reduced


def dumps(value: object) -> bytes:
    """The pickle of a value, for `loads`."""
    return Pickler().pickled(value)


def loads(body: bytes) -> Any:
    """What `dumps` was given. Raises UserFunctionError where a name stands for something else."""
    return pickle.load(opened(body))


def opened(body: bytes) -> io.BytesIO:
    """What a Pickler has made, as a file that stands at the pickle.

    Raises UserFunctionError where a name stands for something else here.
    """
    file = io.BytesIO(body)
    for name, there in pickle.load(file).items():
        here = _fact(_found(name))
        if here != there:
            raise UserFunctionError(
                f"what is imported must be the same in every process; {name.replace(':', '.')} is "
                f"{there} for the caller and {here} for a worker, which imports the module itself. "
                "Reload a module after its file was edited; instead of "
                "setting a module's values, pass them as arguments (functools.partial), or define "
                "the function in the main script or notebook, from where it travels as it is."
            )
    return file


def changes() -> int:
    """How often something was told that had been something else before: whoever has imported it
    then has it no more as it is."""
    return _changes


def _remember(told: Mapping[str, str]) -> None:
    global _changes
    specs = {name: sys.modules[name].__spec__ for name in {n.partition(":")[0] for n in told}}
    is_new = any(_latest.get(name, fact) != fact for name, fact in told.items())
    is_reloaded = any(_specs.get(name, spec) is not spec for name, spec in specs.items())
    _changes += is_new or is_reloaded
    _latest.update(told)
    _specs.update(specs)


class _Account:
    """What functions and classes of the user's modules stand for, and the values that they read."""

    def __init__(self) -> None:
        self._facts: dict[str, str] = {}
        self._set: set[str] = set()  # by the codes themselves, to count or to collect something

    @property
    def facts(self) -> dict[str, str]:
        return {name: fact for name, fact in self._facts.items() if name not in self._set}

    def note(self, part: Any) -> None:
        """Take account of a function or a class, if it is the user's, and of what it uses."""
        module = getattr(part, "__module__", None) or ""
        name = f"{module}:{part.__qualname__}"
        if _is_own(module) and name not in self._facts and _found(name) is part:
            self._facts[name] = _fact(part)
            self.note_used(part)

    def note_used(self, part: Any) -> None:
        """Take account of the global names that are read, and of those of modules."""
        for code, around in _used(part):
            module, names = around.get("__name__", ""), _Names.of(code)
            self._set |= {f"{module}:{name}" for name in names.stored}
            for name in names.read & around.keys():
                value = around[name]
                self._note_value(module, name, value)
                if isinstance(value, ModuleType):
                    for attribute in names.attributes & vars(value).keys():
                        self._note_value(value.__name__, attribute, vars(value)[attribute])

    def _note_value(self, module: str, name: str, value: Any) -> None:
        if isinstance(value, (FunctionType, type)):
            self.note(value)
        elif _is_own(module) and _is_plain(value):
            self._facts[f"{module}:{name}"] = _fact(value)


class _Names(NamedTuple):
    """Names in a code: global ones that it reads and stores, and attributes that it reads."""

    read: set[str]
    stored: set[str]
    attributes: set[str]

    @classmethod
    @cache
    def of(cls, code: CodeType) -> _Names:
        by_kind = (("LOAD_GLOBAL", "LOAD_NAME"), ("STORE_GLOBAL",), ("LOAD_ATTR", "LOAD_METHOD"))
        steps = [*dis.get_instructions(code)]
        return cls(*({step.argval for step in steps if step.opname in kind} for kind in by_kind))


def _used(part: Any) -> Iterator[tuple[CodeType, dict[str, Any]]]:
    """The codes of a function, or of a class's methods, each with the global names around it."""
    for function in [_innermost(part)] if isinstance(part, FunctionType) else _methods(part):
        for code in _codes(function.__code__):
            yield code, function.__globals__


def _innermost(function: FunctionType) -> FunctionType:
    """What wrappers were put around, if that is a function."""
    inner = inspect.unwrap(function)
    return inner if isinstance(inner, FunctionType) else function


def _methods(kind: type) -> list[FunctionType]:
    """What is written in a class; libraries put wrappers around it, and other things beside it."""
    found = []
    for _, held in sorted(vars(kind).items()):
        for part in (held.fget, held.fset) if isinstance(held, property) else (held,):
            bare = part.__func__ if isinstance(part, (staticmethod, classmethod)) else part
            if isinstance(bare, FunctionType) and bare.__module__ == kind.__module__:
                function = _innermost(bare)
                found += [function] * function.__qualname__.startswith(f"{kind.__qualname__}.")
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _fact(value: Any) -> str:
    """A value in a text that is the same in every process."""
    if isinstance(value, (FunctionType, type)):
        return f"the code {_digest(_text(value))}"
    text = _text(value)
    return text if len(text) <= LONGEST else f"a value {_digest(text)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    if isinstance(value, CodeType):
        parts = value.co_code, value.co_names, value.co_varnames, value.co_consts
        return f"({', '.join(map(_text, parts))})"
    if isinstance(value, FunctionType):
        function = _innermost(value)
        return _text((function.__code__, function.__defaults__, function.__kwdefaults__))
    if isinstance(value, type):
        return _text([(method.__qualname__, method) for method in _methods(value)])
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))})"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"
    return repr(value) if _is_plain(value) else type(value).__name__


def _is_plain(value: Any) -> bool:
    """Whether it cannot change in itself, and says all of itself."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return type(value) in PLAIN


def _found(name: str) -> Any:
    """What a name stands for in this process; None for nothing."""
    module, _, path = name.partition(":")
    return reduce(lambda part, n: getattr(part, n, None), path.split("."), _imported(module))


def _imported(module: str) -> Any:
    known = sys.modules.get(module)
    return importlib.import_module(module) if known is None else known


def _is_own(module: str) -> bool:
    """Whether a module is the user's: neither of Python, nor installed, nor of ours."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return (
        file is not None
        and module != "__main__"
        and module.partition(".")[0] != "phalanx"
        and not file.startswith(_installed())
        and "site-packages" not in file
        and "dist-packages" not in file
    )


@cache
def _installed() -> tuple[str, ...]:
    """Folders of what is nobody's own."""
    paths = sysconfig.get_paths()
    return tuple({paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")})

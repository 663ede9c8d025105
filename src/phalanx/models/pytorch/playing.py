"""A tape, played: a function that calls the recorded operations with other tensors.

Between two operations a module, its autograd or Keras spend more than small operations take. The
tape is played as plain Python, a line an operation. It leaves out what only autograd needed, and
lets a gradient be made where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from phalanx.models.pytorch.tape import Call, Tape, memory_of

aten = torch.ops.aten
VIEWS = {
    aten.detach.default, aten.t.default, aten.view.default, aten.transpose.int,
    aten.permute.default, aten.unsqueeze.default, aten.squeeze.dim, aten.expand.default,
    aten.slice.Tensor, aten.select.int,
}  # fmt: skip
Played = Callable[..., Any]  # (tensors, slots) -> the results that are not written into slots


def played(tape: Tape, n_kept: int, holds_still: bool) -> Played:
    """A function that calls the same operations with other tensors of the same shapes.

    n_kept: so many results are returned, and the others written into slots. holds_still: whether
    tensors of neither the arguments nor the tape always have the same memory.
    """
    return _Score(tape, n_kept, holds_still).function()


@dataclass
class _Line:
    """A statement. makes, takes: names of the tensors that it makes, and of those it takes.
    is_kept: whether it does more than to make them."""

    text: str
    makes: list[str]
    takes: list[str]
    is_kept: bool
    call: Call | None = None


class _Score:
    """The tape as lines of Python.

    Names: x0 ... the arguments, r... what a line makes, g... what lies outside. What detaches a
    tensor, or turns it twice, gives it no other name.
    """

    def __init__(self, tape: Tape, n_kept: int, holds_still: bool) -> None:
        self._tape, self._holds_still = tape, holds_still
        self._names = {id(tensor): f"x{i}" for i, tensor in enumerate(tape.tensors)}
        self._globals: dict[str, Any] = {"aten": aten}
        self._turned: dict[str, torch.Tensor] = {}  # by the name of a turned one: what it is of
        self._lines: list[_Line] = []
        self._numbers: set[int] = set()  # ids of results that are constants
        self._changed = {place for call in tape.calls for place in call.changed}
        for call in tape.calls:
            self._take(call)
        self._kept: list[str] = []
        results = [self._text(result, self._kept) for result in tape.results[:n_kept]]
        self._end = f"return {', '.join(results)}"
        written: list[str] = []
        self._text(tape.results[n_kept:], written)
        self._lines = _needed(self._lines, {*self._kept, *written})
        self._writes = [self._writing(i, r) for i, r in enumerate(tape.results[n_kept:])]

    def function(self) -> Played:
        """The lines as a function."""
        arguments = "".join(f"x{i}, " for i in range(len(self._tape.tensors)))
        head = [f"{arguments}= tensors"] if arguments else []
        lines = ["def play(tensors, slots=()):", *head, *self._body(), self._end]
        exec("\n    ".join(lines), self._globals)
        play: Played = self._globals.pop("play")  # which refers to them: no cycle
        for name in self._globals.keys() - {*play.__code__.co_names, "__builtins__"}:
            del self._globals[name]
        return play

    def _take(self, call: Call) -> None:
        if call.operation is aten.detach.default:
            self._names[id(call.result)] = self._text(call.args[0], [])
        elif self._is_constant(call):
            self._names[id(call.result)] = self._global(self._once(call))
            if call.operation not in VIEWS:
                self._numbers.add(id(call.result))
        elif call.operation is aten.t.default and (name := self._text(call.args[0], [])) in (
            self._turned
        ):
            self._names[id(call.result)] = self._text(self._turned[name], [])
        else:
            self._add(call)

    def _add(self, call: Call) -> None:
        takes: list[str] = []
        texts = [self._text(value, takes) for value in call.args]
        texts += [f"{key}={self._text(value, takes)}" for key, value in call.kwargs.items()]
        is_number = call.operation is aten.lift_fresh.default
        operation = aten.clone.default if is_number else call.operation
        text = f"{self._global(operation)}({', '.join(texts)})"
        makes = ["_" if name in takes else name for name in self._made(call.result)]
        if set(makes) - {"_"}:
            several = "" if isinstance(call.result, torch.Tensor) else ","
            text = f"{', '.join(makes)}{several} = {text}"
        self._lines.append(_Line(text, makes, takes, call.changes_something, call))
        if call.operation is aten.t.default:
            self._turned[self._names[id(call.result)]] = call.args[0]

    def _is_constant(self, call: Call) -> bool:
        """Whether a result is the same every time: one that comes of numbers alone, the 1 that a
        gradient begins with, and a view of what lies outside and does not move."""
        if call.changes_something or not isinstance(call.result, torch.Tensor):
            return False
        inputs = [v for v in tree_leaves((call.args, call.kwargs)) if isinstance(v, torch.Tensor)]
        is_one = call.operation is aten.ones_like.default and call.result.ndim == 0
        is_number = call.operation is aten.lift_fresh.default or is_one
        if is_number or all(id(tensor) in self._numbers for tensor in inputs):
            return memory_of(call.result) not in self._changed
        if not (self._holds_still and call.operation in VIEWS):
            return False
        return all(self._is_outside(tensor) for tensor in inputs)

    def _is_outside(self, tensor: torch.Tensor) -> bool:
        """Whether it is neither an argument nor made by a line."""
        name = self._names.get(id(tensor))
        return name is None or name in self._globals

    def _once(self, call: Call) -> torch.Tensor:
        """What a call makes; a view is taken now, as parameters may have other memory by now."""
        if call.operation not in VIEWS:
            return call.result  # type: ignore[no-any-return]
        args = [
            self._globals[self._text(value, [])] if isinstance(value, torch.Tensor) else value
            for value in call.args
        ]
        made: torch.Tensor = call.operation(*args, **call.kwargs)
        return made

    def _made(self, result: Any) -> list[str]:
        """Names for what a call makes, which are those of what it takes if it changes that."""
        parts = result if isinstance(result, (list, tuple)) else [result]
        for part in parts:
            if isinstance(part, torch.Tensor):
                self._names.setdefault(id(part), f"r{id(part)}")
        return [self._names.get(id(part), "_") for part in parts]

    def _text(self, value: Any, takes: list[str]) -> str:
        """How a value is written; the names in it are added to `takes`."""
        if isinstance(value, torch.Tensor):
            if id(value) not in self._names:
                is_followed = self._holds_still and value.requires_grad
                self._names[id(value)] = self._global(value.detach() if is_followed else value)
            takes.append(self._names[id(value)])
            return takes[-1]
        if isinstance(value, (list, tuple)):
            parts = "".join(f"{self._text(part, takes)}, " for part in value)
            return f"[{parts}]" if isinstance(value, list) else f"({parts})"
        if isinstance(value, dict):
            parts = "".join(f"{key!r}: {self._text(part, takes)}, " for key, part in value.items())
            return f"{{{parts}}}"
        return repr(value) if value is None or type(value) in (int, bool) else self._global(value)

    def _global(self, value: Any) -> str:
        name = f"g{len(self._globals)}"
        self._globals[name] = value
        return name

    def _writing(self, i: int, result: torch.Tensor | None) -> _Line | None:
        """The line that writes a result into slot i; None where the one that makes it can."""
        if result is None:
            return _Line(f"slots[{i}].zero_()", [], [], True)
        takes: list[str] = []
        name = self._text(result, takes)
        uses = [name in line.takes for line in self._lines].count(True) + self._kept.count(name)
        uses += [self._names.get(id(result)) for result in self._tape.results].count(name)
        makers = [line for line in self._lines if name in line.makes]
        if uses == len(makers) == 1 and self._redirects(makers[0], i):
            return None
        return _Line(f"slots[{i}].copy_({name})", [], takes, True)

    def _redirects(self, line: _Line, i: int) -> bool:
        """Let a line write into slot i instead of making something new, if it can. The bits are the
        same since slots, like what torch makes, begin on a cache line."""
        operation = line.call.operation if line.call else None
        if operation is aten.mm.default:
            line.text = f"aten.mm.out({', '.join(line.takes)}, out=slots[{i}])"
        elif operation is aten.view.default and (rows := self._summed(line)) is not None:
            line.text, line.takes = f"aten.sum.IntList_out({rows}, [0], out=slots[{i}])", [rows]
        else:
            return False
        line.makes, line.is_kept = [], True
        return True

    def _summed(self, view: _Line) -> str | None:
        """Of what a view has the sum over the rows, as the gradient of a bias is made."""
        for line in self._lines:
            call = line.call
            if call and view.takes[0] in line.makes and call.operation is aten.sum.dim_IntList:
                is_over_rows = call.args[1:] == ([0], True) and call.args[0].ndim == 2
                return line.takes[0] if is_over_rows and not call.kwargs else None
        return None

    def _body(self) -> list[str]:
        """The lines in order, each result forgotten after its last use."""
        wanted, body = set(self._kept), list[str]()
        writes = [line for line in self._writes if line is not None]
        made = {name for line in self._lines for name in line.makes}
        for line in reversed(_needed(self._lines + writes, set(self._kept))):
            last = made.intersection(line.takes) - wanted
            wanted |= set(line.takes)
            body += [f"del {', '.join(sorted(last))}"] if last else []
            body.append(line.text)
        return body[::-1]


def _needed(lines: list[_Line], wanted: set[str]) -> list[_Line]:
    """The lines that something comes of."""
    found = []
    for line in reversed(lines):
        if line.is_kept or wanted & set(line.makes):
            wanted |= set(line.takes)
            found.append(line)
    return found[::-1]

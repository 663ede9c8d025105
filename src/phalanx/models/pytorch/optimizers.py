"""torch's own optimisers, on blocks of the flat vector.

A block becomes a parameter of its own in a copy of the user's optimiser, with its state in the
arena. Optimisers that work element by element take any slice of a vector; others (Muon, Adafactor)
get each of the module's parameters as one block, in its own shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch

from phalanx import references
from phalanx.errors import InvalidInput
from phalanx.models.pytorch.fused import Direct
from phalanx.pure.arrays import Array
from phalanx.pure.optimizers import Slice, Update
from phalanx.pure.timetable import Moment

LARGEST_BLOCK = 65_536  # elements: a call of an optimiser costs what 50,000 of them do
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
NO_SETTINGS = (  # of a group: parameters, and what schedulers note there
    "params", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum",
)  # fmt: skip
BEGUN = 0  # the scalar that says whether the optimiser has made a block's state


@dataclass(frozen=True)
class TorchOptimizer:
    """packed: the pickle of (class, attributes, groups) without parameters and state.

    slots: names of the state that has a row. scalars: names of the state that is a number, each
    with its type: int, float, bool, or the dtype of a tensor. settings: (name, place in a tuple or
    None) of what a schedule may change. shapes: where the blocks are whole parameters, the shape of
    each by its start. is_direct: whether the fused kernel may be called in place of `step`.
    counts: names of the counts of steps that a group keeps, which follow a block's scalars.
    """

    packed: bytes
    slots: tuple[str, ...]
    scalars: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, int | None], ...]
    n_groups: int
    shapes: dict[int, tuple[int, ...]] | None
    name: str
    is_direct: bool = False
    counts: tuple[str, ...] = ()

    largest_block: ClassVar[int] = LARGEST_BLOCK

    @property
    def n_scalars(self) -> int:
        return 1 + len(self.scalars) + len(self.counts)

    @property
    def settings_shape(self) -> tuple[int, int]:
        return self.n_groups, len(self.settings)

    def parted(self, scalars_C: Array) -> tuple[list[float], dict[str, int]]:
        """Numbers of the state, and counts by name, out of a block's scalars."""
        _, *numbers = scalars_C.tolist()
        place = len(self.scalars)
        return numbers[:place], dict(zip(self.counts, map(int, numbers[place:]), strict=True))

    def __repr__(self) -> str:
        """What a checkpoint knows it by; the groups' settings come from the driver."""
        return f"{self.name}({', '.join(self.slots)}; {self.n_groups} groups)"

    def bind(self, at: Slice) -> Update:
        return BlockOptimizer(self, at).update

    def fresh(self, at: Slice) -> None:
        assert at.scalars_2C is not None
        at.state_Mn[...] = 0
        at.scalars_2C[...] = 0


class BlockOptimizer:
    """The user's optimiser over one block."""

    def __init__(self, described: TorchOptimizer, at: Slice) -> None:
        assert at.block is not None
        assert at.settings_TH is not None
        self._at, self._described = at, described
        self._shape = described.shapes[at.block.start] if described.shapes else None
        self._param = torch.nn.Parameter(self._shaped(at.params_n), requires_grad=False)
        kind, attributes, groups = references.loads(described.packed)
        self._group = {**groups[at.block.group], "params": [self._param]}
        self._begun_with = {k: v for k, v in self._group.items() if k in described.counts}
        self._optimizer = bare(kind, attributes, [self._group])
        self._step = unhooked_step(self._optimizer)
        self._rows = self._rows_of(at, described.slots)
        self._direct: Direct | None = None
        if described.is_direct:
            self._direct = Direct(kind, self._param.data, list(self._rows.values()))
        self._known: bytes | None = None
        self._is_bound = False

    def update(self, moment: Moment, rate: float) -> None:
        """One step, with the settings of the moment."""
        at = self._at
        assert at.scalars_2C is not None
        before_C, after_C = at.scalars_2C[moment.updates % 2], at.scalars_2C[1 - moment.updates % 2]
        self._take_settings(moment)
        if self._direct and self._direct.is_ready and before_C[BEGUN]:
            self._direct.update(at.grad_n, before_C, after_C)
            return
        if before_C[BEGUN]:
            self._bind_state(before_C)
        else:
            self._forget_state()
        self._param.grad = self._shaped(at.grad_n)
        self._step()
        self._keep_state(after_C)

    def _shaped(self, flat_n: Array) -> torch.Tensor:
        tensor = torch.from_numpy(flat_n)
        return tensor if self._shape is None else tensor.reshape(self._shape)

    def _take_settings(self, moment: Moment) -> None:
        assert self._at.settings_TH is not None
        row_H = self._at.settings_TH[moment.step]
        if row_H.tobytes() != self._known:
            self._known = row_H.tobytes()
            set_numbers(self._group, self._described.settings, row_H.tolist())
            if self._direct:
                self._direct.take_settings(self._group)

    def _rows_of(self, at: Slice, slots: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """The state that lies in the arena; of a whole parameter, what it has by its shape."""
        rows = {name: torch.from_numpy(row) for name, row in zip(slots, at.state_Mn, strict=True)}
        if self._shape is None:
            return rows
        shapes = state_shapes(self._optimizer, self._group, self._shape)
        return {name: rows[name][: prod(own)].reshape(own) for name, own in shapes.items()}

    def _forget_state(self) -> None:
        """As before the optimiser's first step."""
        self._optimizer.state.clear()
        self._is_bound = False
        for name in self._described.counts:
            self._group.pop(name, None)
        self._group |= self._begun_with

    def _bind_state(self, scalars_C: Array) -> None:
        """Give the optimiser the state that lies in the arena."""
        state = self._optimizer.state[self._param]
        if not self._is_bound:
            state.update(self._rows)
            self._is_bound = True
        numbers, counted = self._described.parted(scalars_C)
        self._group |= counted
        for (name, kind), number in zip(self._described.scalars, numbers, strict=True):
            if kind in _NUMBERS:
                state[name] = _NUMBERS[kind](number)
            elif name in state:
                state[name].fill_(number)
            else:
                state[name] = torch.tensor(number, dtype=getattr(torch, kind))

    def _keep_state(self, after_C: Array) -> None:
        """Take what the optimiser made of its state; rows that it made itself go to the arena."""
        state = self._optimizer.state[self._param]
        if not self._is_bound:
            for name, row in self._rows.items():
                if isinstance(state.get(name), torch.Tensor):
                    row.copy_(state[name])
        after_C[BEGUN] = 1.0
        for c, (name, _) in enumerate(self._described.scalars, 1):
            after_C[c] = float(state.get(name, 0.0))
        for c, name in enumerate(self._described.counts, 1 + len(self._described.scalars)):
            after_C[c] = self._group[name]


# What a copy has of its own; a scheduler binds the `step` of the optimiser that it is for.
NOT_KEPT = ("state", "param_groups", "step")
_NUMBERS: dict[str, Callable[[float], Any]] = {"int": int, "float": float, "bool": bool}


def bare(kind: type, attributes: dict[str, Any], groups: list[dict[str, Any]]) -> Any:
    """An optimiser of a class over other parameters, without state."""
    from collections import defaultdict

    optimizer: Any = object.__new__(kind)
    kept = {name: value for name, value in attributes.items() if name not in NOT_KEPT}
    optimizer.__dict__.update(kept, state=defaultdict(dict), param_groups=groups)
    return optimizer


def unhooked_step(optimizer: Any) -> Callable[[], Any]:
    """Its `step` without the profiler's wrapper, which costs more than a small block."""
    plain = getattr(type(optimizer).step, "__wrapped__", None)
    if plain is None:
        return optimizer.step  # type: ignore[no-any-return]
    return lambda: plain(optimizer)


def state_after_a_step(
    optimizer: Any, group: dict[str, Any], shape: tuple[int, ...] | None
) -> dict[str, Any]:
    """The state that an optimiser makes for a parameter of a shape, found by trying."""
    param = torch.nn.Parameter(torch.zeros((4,) if shape is None else shape), requires_grad=False)
    trial = bare(type(optimizer), optimizer.__dict__, [{**group, "params": [param]}])
    param.grad = torch.zeros_like(param)
    trial_step(trial)
    return dict(trial.state[param])


def trial_step(optimizer: Any) -> None:
    """A step of an optimiser that has a few blocks. Raises InvalidInput where it cannot go."""
    try:
        optimizer.step()
    except Exception as error:
        raise InvalidInput(
            "an optimizer must update a block from its gradient and its state, by step() without "
            f"arguments; a trial of {type(optimizer).__name__} on some parameters alone raised "
            f"{type(error).__name__}: {error}. Bring it to where it can step, or use one of "
            "torch.optim."
        ) from error


def state_shapes(
    optimizer: Any, group: dict[str, Any], shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the state that has a row, of a parameter that is updated as a whole: they may
    differ from the parameter's, and from one parameter's to another's."""
    state = state_after_a_step(optimizer, group, shape)
    return {name: tuple(value.shape) for name, value in state.items() if has_row(value)}


def has_row(value: Any) -> bool:
    """Whether a part of an optimiser's state is more than one number."""
    return isinstance(value, torch.Tensor) and bool(value.ndim)


def set_numbers(
    group: dict[str, Any], settings: tuple[tuple[str, int | None], ...], numbers: list[float]
) -> None:
    """Set the numbers that a schedule may change in a group, each of its former type."""
    for (name, place), number in zip(settings, numbers, strict=True):
        old = group[name] if place is None else group[name][place]
        whole = isinstance(old, int) and not isinstance(old, bool) and number.is_integer()
        value = int(number) if whole else number
        if place is None:
            group[name] = value
        else:
            values = list(group[name])
            values[place] = value
            group[name] = type(group[name])(values)


def numbers_of(group: dict[str, Any], settings: tuple[tuple[str, int | None], ...]) -> list[float]:
    """The numbers that a schedule may change."""
    found = (group[name] if place is None else group[name][place] for name, place in settings)
    return [float(value) for value in found]


def settings_of(group: dict[str, Any]) -> tuple[tuple[str, int | None], ...]:
    """Names of all numbers in a group, those in tuples with their place."""
    found: list[tuple[str, int | None]] = []
    for name, value in group.items():
        if name in NO_SETTINGS:
            continue
        if _is_number(value):
            found.append((name, None))
        elif isinstance(value, (tuple, list)) and value and all(map(_is_number, value)):
            found += [(name, place) for place in range(len(value))]
    return tuple(found)


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)

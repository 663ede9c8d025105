"""Keras' own optimisers, on blocks of the flat vector.

A copy of the user's optimiser over one variable updates all blocks of a shape, one after the other:
the variable and its slots are views of the arena, of one block at a time. Optimisers that work
element by element take any slice of the vector; others get each of the model's variables as one
block, in its own shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import numpy as np

from phalanx import references
from phalanx.pure.optimizers import Slice, Update
from phalanx.pure.timetable import Moment

LARGEST_BLOCK = 65_536  # elements: with its state and what is in between, near a core's cache
ELEMENT_WISE = (
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion",
)  # fmt: skip
RATE = "_learning_rate"
UNDECAYED = 1  # the group of the variables that are excluded from the decay of weights
NO_SLOTS = ("_variables", "_trainable_variables")


@dataclass(frozen=True)
class KerasOptimizer:
    """packed: the pickle of (class, its config, constraints and names of variables). slots: names
    of the attributes that hold a variable for each of the model's. scalars: of those that are one
    number. shapes: where the blocks are whole variables, the shape of each by its start.
    is_recorded: whether updates are worth a tape (tracing.py), which takes 50 ms for a shape.
    """

    packed: bytes
    slots: tuple[str, ...]
    scalars: tuple[str, ...]
    n_groups: int
    shapes: dict[int, tuple[int, ...]] | None
    name: str
    is_recorded: bool = False

    largest_block: ClassVar[int] = LARGEST_BLOCK

    @property
    def n_scalars(self) -> int:
        return len(self.scalars)

    @property
    def settings_shape(self) -> tuple[int, int]:
        return self.n_groups, 1

    def __repr__(self) -> str:
        """What a checkpoint knows it by; the learning rate comes from the driver."""
        return f"keras.{self.name}({', '.join(self.slots)}; {self.n_groups} groups)"

    def bind(self, at: Slice) -> Update:
        machine = self._machine(at)
        return (BlockUpdate if machine.fused is None else FusedUpdate)(machine, at).update

    def fresh(self, at: Slice) -> None:
        self._machine(at).begin(at)

    def _machine(self, at: Slice) -> Machine:
        assert at.block is not None
        whole = at.block.start if self.shapes else None
        shape = self.shapes[at.block.start] if self.shapes else at.params_n.shape
        group = at.block.group
        known = self._fused.get(group) or self._machines.get((shape, group, whole))
        if known is None:
            known = self._machines[shape, group, whole] = Machine(self, at, shape)
            if known.fused is not None:
                self._fused[group] = known
        return known

    @cached_property
    def _machines(self) -> dict[Any, Machine]:
        """One for all blocks of a shape, since each of them takes time to make."""
        return {}

    @cached_property
    def _fused(self) -> dict[int, Machine]:
        """By group: those whose kernel of torch takes blocks of any shape."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Machine:
    """The user's optimiser over one variable, whose values are those of any block of its shape."""

    def __init__(self, described: KerasOptimizer, at: Slice, shape: tuple[int, ...]) -> None:
        os.environ["KERAS_BACKEND"] = "torch"
        import keras
        import torch

        assert at.block is not None
        self.torch, self.shape = torch, shape
        self.variable = keras.Variable(at.params_n.reshape(shape), dtype=at.params_n.dtype)
        kind, config, constraints, paths = references.loads(described.packed)
        place = at.block.start
        self.variable.constraint = constraints.get(place)
        self.variable._path = paths.get(place, self.variable.path)  # some are treated by name
        self.optimizer = kind.from_config(config)
        if at.block.group == UNDECAYED:
            self.optimizer.weight_decay = self.optimizer.adam_weight_decay = None
        self.optimizer.build([self.variable])
        self.slots = [getattr(self.optimizer, name)[0] for name in described.slots]
        self.scalars = [getattr(self.optimizer, name) for name in described.scalars]
        self.rate = getattr(self.optimizer, RATE)
        self._first_slots = [None if slot is None else _brief(slot) for slot in self.slots]
        self._first_scalars = [float(scalar._value.detach()) for scalar in self.scalars]
        self.fused = self._fused(described)
        is_recorded = described.is_recorded and self.fused is None
        self.apply = self._recorded() if is_recorded else self.by_keras

    def begin(self, at: Slice) -> None:
        """Give a block the state that the optimiser was built with, which need not be zero."""
        assert at.scalars_2C is not None
        at.state_Mn[...] = 0
        for row_n, first in zip(at.state_Mn, self._first_slots, strict=True):
            if first is not None:
                row_n[: first.size if first.size > 1 else None] = first
        at.scalars_2C[...] = self._first_scalars

    def by_keras(self, grad: Any) -> None:
        """One step of the values that the variables have."""
        self.optimizer.apply([grad], [self.variable])

    def _fused(self, described: KerasOptimizer) -> Any:
        """The kernel of torch for Keras' rule, if there is one."""
        from phalanx.models.keras3.fused import fused_adam

        if described.shapes:
            return None
        with self.torch.no_grad():
            return fused_adam(self, described.name, described.slots, described.scalars)

    def _recorded(self) -> Callable[[Any], Any]:
        """What updates the values, by a tape if there is one that is exact."""
        from phalanx.models.pytorch.tracing import faster_update

        several = [self.variable, *self.optimizer.variables, *self.scalars]
        variables = {id(variable): variable for variable in several}
        tensors = [variable._value for variable in variables.values()]
        with self.torch.no_grad():
            return faster_update(self.by_keras, tensors, tensors[0])


class FusedUpdate:
    """One block, updated by the machine's kernel."""

    def __init__(self, machine: Machine, at: Slice) -> None:
        from_numpy = machine.torch.from_numpy
        self._machine, self._at = machine, at
        self._tensors = [from_numpy(row_n) for row_n in (at.params_n, *at.state_Mn)]

    def update(self, moment: Moment, rate: float) -> None:
        """One step, with the learning rate of the moment."""
        at = self._at
        scalars_2C, settings_TH = at.scalars_2C, at.settings_TH
        assert scalars_2C is not None
        assert settings_TH is not None
        count, rate = scalars_2C[moment.updates % 2, 0], settings_TH[moment.step, 0]
        grad = self._machine.torch.from_numpy(at.grad_n)
        self._machine.fused.update(self._tensors, grad, float(count), float(rate))
        scalars_2C[1 - moment.updates % 2, 0] = count + 1


class BlockUpdate:
    """One block, updated by a machine through Keras."""

    def __init__(self, machine: Machine, at: Slice) -> None:
        self._machine, self._at = machine, at
        rows = [at.params_n, *at.state_Mn]
        variables = [machine.variable, *machine.slots]
        self._views = [
            (variable._value, machine.torch.from_numpy(row_n[: prod(shape)]).reshape(shape))
            for variable, row_n in zip(variables, rows, strict=True)
            if variable is not None
            for shape in [tuple(variable.shape)]
        ]

    def update(self, moment: Moment, rate: float) -> None:
        """One step, with the learning rate of the moment."""
        at, machine = self._at, self._machine
        assert at.scalars_2C is not None
        assert at.settings_TH is not None
        before_C, after_C = at.scalars_2C[moment.updates % 2], at.scalars_2C[1 - moment.updates % 2]
        with machine.torch.no_grad():
            for value, view in self._views:
                value.data = view
            for variable, number in zip(machine.scalars, before_C.tolist(), strict=True):
                variable._value.fill_(number)
            machine.rate._value.fill_(float(at.settings_TH[moment.step, 0]))
            machine.apply(machine.torch.from_numpy(at.grad_n).reshape(machine.shape))
            for c, variable in enumerate(machine.scalars):
                after_C[c] = float(variable._value)


def _brief(slot: Any) -> Any:
    """The values of a new slot, flat; of equal ones, as nearly always, one alone."""
    values_n = slot._value.detach().reshape(-1).numpy()
    return np.array(values_n[:1] if (values_n == values_n[:1]).all() else values_n)


class OptimizerKind:
    """An optimiser's class; of Keras' own, the name, so that each backend takes its own."""

    def __init__(self, name: str, kind: Any) -> None:
        self.name, self.kind = name, kind

    @classmethod
    def of(cls, optimizer: Any) -> OptimizerKind:
        """Of an optimiser of this process."""
        kind = type(optimizer)
        return cls(kind.__name__, None if is_own(optimizer) else kind)

    def from_config(self, config: dict[str, Any]) -> Any:
        """A new optimiser."""
        import keras

        return (self.kind or getattr(keras.optimizers, self.name)).from_config(config)


def is_own(optimizer: Any) -> bool:
    """Whether an optimiser is one of Keras' own."""
    return type(optimizer).__module__.split(".")[0] == "keras"


def slot_names(optimizer: Any, n_variables: int) -> tuple[str, ...]:
    """Attributes of a built optimiser that hold one variable for each of the model's, or for some
    of them."""
    import keras

    return tuple(
        name
        for name, value in vars(optimizer).items()
        if isinstance(value, list)
        and name not in NO_SLOTS
        and len(value) == n_variables
        and all(part is None or isinstance(part, keras.Variable) for part in value)
        and any(part is not None for part in value)
    )


def scalar_names(optimizer: Any) -> tuple[str, ...]:
    """Attributes of a built optimiser that are one number, but for the learning rate."""
    import keras

    return tuple(
        name
        for name, value in vars(optimizer).items()
        if isinstance(value, keras.Variable) and name != RATE and tuple(value.shape) == ()
    )

"""Keras' own optimisers, on blocks of the flat vector.

A block becomes a variable of its own, with a copy of the user's optimiser over it, whose slot
variables are views of the arena. Optimisers that work element by element take any slice of the
vector; others get each of the model's variables as one block, in its own shape.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from phalanx.arrays import Array
from phalanx.optimizers import Slice, Update
from phalanx.timetable import Moment

LARGEST_BLOCK = 262_144  # elements: a call of an optimiser of Keras costs what 200,000 of them do
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
    is_recorded: whether updates are worth a graph (tracing.py), which takes 50 ms a block.
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
        return BlockOptimizer(self, at).update


class BlockOptimizer:
    """The user's optimiser over one block."""

    def __init__(self, described: KerasOptimizer, at: Slice) -> None:
        os.environ["KERAS_BACKEND"] = "torch"
        import keras
        import torch

        assert at.block is not None
        self._at, self._torch = at, torch
        self._shape = described.shapes[at.block.start] if described.shapes else at.params_n.shape
        self._variable = keras.Variable(at.params_n.reshape(self._shape), dtype=at.params_n.dtype)
        self._view(self._variable, at.params_n)
        kind, config, constraints, paths = pickle.loads(described.packed)
        place = at.block.start
        if constraints.get(place) is not None:
            self._variable.constraint = keras.saving.deserialize_keras_object(
                constraints[place], safe_mode=False
            )
        self._variable._path = paths.get(place, self._variable.path)  # some are treated by name
        self._optimizer = kind.from_config(config)
        if at.block.group == UNDECAYED:
            self._optimizer.weight_decay = self._optimizer.adam_weight_decay = None
        self._optimizer.build([self._variable])
        for name, row_n in zip(described.slots, at.state_Mn, strict=True):
            slot = getattr(self._optimizer, name)[0]
            if slot is not None:
                self._view(slot, row_n)
        self._scalars = [getattr(self._optimizer, name) for name in described.scalars]
        self._rate = getattr(self._optimizer, RATE)
        self._apply = self._recorded() if described.is_recorded else self._by_keras

    def _recorded(self) -> Callable[[Any], Any]:
        """What updates the block, by a graph if there is one that is exact."""
        from phalanx.models.keras3.tracing import faster_update

        several = [self._variable, *self._optimizer.variables, *self._scalars]
        variables = {id(variable): variable for variable in several}
        tensors = [variable._value for variable in variables.values()]
        with self._torch.no_grad():
            return faster_update(self._by_keras, tensors, tensors[0])

    def _by_keras(self, grad: Any) -> None:
        self._optimizer.apply([grad], [self._variable])

    def _view(self, variable: Any, row_n: Array) -> None:
        """Make a variable's value a view of the arena."""
        shape = tuple(variable.shape)
        variable._value.data = self._torch.from_numpy(row_n[: prod(shape)]).reshape(shape)

    def update(self, moment: Moment, rate: float) -> None:
        """One step, with the learning rate of the moment."""
        at = self._at
        assert at.scalars_2C is not None
        assert at.settings_TH is not None
        before_C, after_C = at.scalars_2C[moment.updates % 2], at.scalars_2C[1 - moment.updates % 2]
        with self._torch.no_grad():
            for variable, number in zip(self._scalars, before_C.tolist(), strict=True):
                variable._value.fill_(number)
            self._rate._value.fill_(float(at.settings_TH[moment.step, 0]))
            grad = self._torch.from_numpy(at.grad_n).reshape(self._shape)
            self._apply(grad)
            for c, variable in enumerate(self._scalars):
                after_C[c] = float(variable._value)


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

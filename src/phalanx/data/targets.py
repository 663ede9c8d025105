"""The target column: classes to tell apart, or values to estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from phalanx.data.bools import spelt_as
from phalanx.data.inputs import mean_and_scale, numbers
from phalanx.data.lookalikes import as_number, resemblance
from phalanx.data.plain import field, finite, texts
from phalanx.data.table import Table, as_text, is_text, label_of, missing, shown
from phalanx.errors import InvalidInput, unknown_name
from phalanx.pure.arrays import Array

MAX_INTEGER_CLASSES = 20  # whole numbers with more distinct values are taken for measurements


@dataclass(frozen=True)
class ClassTarget:
    """Classes by their labels, in order; a sample's target is its class's index."""

    column: str
    labels: tuple[str, ...]
    task: str = "classification"

    @property
    def known(self) -> tuple[str, ...] | None:
        """The labels, if one of them cannot have come from a number."""
        return None if all(map(_is_of_number, self.labels)) else self.labels

    def encode(self, table: Table) -> Array:
        """Class indices [n]. Raises InvalidInput for a missing or an unknown label."""
        cells_B = spelt_as(self.labels, as_text(known_target(table, self.column)))
        index = {label: c for c, label in enumerate(self.labels)}
        for label in sorted(set(cells_B) - set(index)):
            raise InvalidInput(
                f"{table.source}: the target {self.column!r} may only have the classes of the "
                f"training data, {', '.join(map(shown, self.labels[:12]))}; got {shown(label)}. "
                "Leave those samples out, or train again with samples of that class."
            )
        return np.array([index[cell] for cell in cells_B], np.intp)

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "classes", "column": self.column, "labels": list(self.labels)}


@dataclass(frozen=True)
class ValueTarget:
    """A number; the network sees (value - mean) / scale."""

    column: str
    mean: float
    scale: float
    task: str = "regression"
    known: ClassVar[None] = None

    def encode(self, table: Table) -> Array:
        """Standardised values [n]. Raises InvalidInput for a missing one."""
        known_target(table, self.column)
        standard_B: Array = (numbers(table, self.column) - self.mean) / self.scale
        return standard_B

    def restore(self, standard_B: Array) -> Array:
        """Values [n] in the target's own unit."""
        return np.asarray(standard_B, np.float64) * self.scale + self.mean

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "values", "column": self.column, "mean": self.mean, "scale": self.scale}


Target = ClassTarget | ValueTarget


def _is_of_number(label: str) -> bool:
    """Whether a number's label comes back where the number is read from it."""
    value = as_number(label)
    return value is not None and label_of(value) == label


def known_target(table: Table, name: str) -> Array:
    """The target column. Raises InvalidInput where one of its cells is empty."""
    column = table[name]
    gone_B = missing(column)
    if gone_B.any():
        first = table.sample(int(gone_B.argmax()))
        raise InvalidInput(
            f"{table.source}: every sample must have a target; {int(gone_B.sum())} of "
            f"{len(column)} have none in {name!r}, the first is sample {first}. "
            f"Leave those samples out. {table.gaps}".rstrip()
        )
    return column


def task_of(table: Table, name: str) -> str:
    """'classification' for text, bools and few distinct whole numbers, else 'regression'."""
    column = known_target(table, name)
    if is_text(column) or column.dtype.kind == "b":
        return "classification"
    values = np.unique(column)
    whole = bool((np.isfinite(values) & (values == np.floor(values))).all())
    return "classification" if whole and len(values) <= MAX_INTEGER_CLASSES else "regression"


def learn_classes(table: Table, name: str) -> ClassTarget:
    """The classes of the target column. Raises InvalidInput unless there are two at least."""
    column = known_target(table, name)
    labels = tuple(dict.fromkeys(as_text(np.unique(column)).tolist()))
    if len(labels) < 2:
        raise InvalidInput(
            f"{table.source}: a classification needs two classes at least; all samples have "
            f"{name} = {shown(labels[0])}. Add samples of another class, or choose another "
            "--target."
        )
    return ClassTarget(name, labels)


def learn_values(table: Table, name: str) -> ValueTarget:
    """Mean and scale of the target column. Raises InvalidInput for text or infinity."""
    column = known_target(table, name)
    if is_text(column):
        raise InvalidInput(
            f"{table.source}: a regression needs a target of numbers; {name!r} holds text, e.g. "
            f"{shown(column[0])}. Choose --task classification, or another --target."
            f"{resemblance(column.tolist())}"
        )
    mean, scale = mean_and_scale(numbers(table, name), f"{table.source}: the target {name!r}")
    return ValueTarget(name, mean, scale)


TASKS: dict[str, Callable[[Table, str], Target]] = {
    "classification": learn_classes,
    "regression": learn_values,
}


def learn_target(table: Table, name: str, task: str | None) -> Target:
    """What is learnt of the target column; `task` None means what its values suggest."""
    if task is not None and task not in TASKS:
        raise unknown_name("--task", task, TASKS)
    return TASKS[task or task_of(table, name)](table, name)


def target_from(entry: dict[str, Any]) -> Target:
    """The target that `as_dict` described. Raises InvalidInput where it breaks a rule."""
    kind, column = field(entry, "kind", str), str(field(entry, "column", str))
    if kind == "classes":
        labels = texts(entry, "labels")
        if len(labels) < 2:
            raise InvalidInput(f"'labels' must name two classes at least; got {labels!r}.")
        return ClassTarget(column, labels)
    if kind == "values":
        mean, scale = finite(entry, "mean"), finite(entry, "scale")
        if scale <= 0:
            raise InvalidInput(f"'scale' must be above 0; got {scale}.")
        return ValueTarget(column, mean, scale)
    raise InvalidInput(f"a target's 'kind' must be 'classes' or 'values'; got {kind!r}.")

"""Input columns: what is learnt of each from the training table, and how it becomes features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from phalanx.data import bools
from phalanx.data.lookalikes import as_number, resemblance
from phalanx.data.plain import field, finite, texts
from phalanx.data.table import Table, as_text, drop, is_text, missing, shown
from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array

MAX_CATEGORIES = 50
LEAST_SCALE = 1e-150  # float64 has hardly the square of anything less


class Input(Protocol):
    """One column of the table as `width` features.

    known: the texts that it may hold; None where it holds numbers.
    """

    @property
    def known(self) -> tuple[str, ...] | None: ...

    @property
    def column(self) -> str: ...

    @property
    def width(self) -> int: ...

    def encode(self, table: Table, out_BF: Array) -> None:
        """Write the features of every row, [n, width]. Raises InvalidInput."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, for `input_from`."""


@dataclass(frozen=True)
class NumberInput:
    """(value - mean) / scale; a missing value counts as the mean."""

    column: str
    mean: float
    scale: float
    width: int = 1
    known: ClassVar[None] = None

    def encode(self, table: Table, out_BF: Array) -> None:
        values_B = numbers(table, self.column)
        filled_B = np.where(np.isnan(values_B), self.mean, values_B)
        with np.errstate(over="ignore"):
            out_BF[:, 0] = (filled_B - self.mean) / self.scale
        if not np.isfinite(out_BF).all():
            raise self._too_far(table, values_B, int(np.isfinite(out_BF[:, 0]).argmin()))

    def _too_far(self, table: Table, values_B: Array, row: int) -> InvalidInput:
        return InvalidInput(
            f"{table.source}: column {self.column!r} must hold numbers of the size that the "
            f"network was trained on, {self.mean:.3g} ± {self.scale:.3g}; sample "
            f"{table.sample(row)} has {values_B[row]:.3g}. Correct it, or leave it empty for a "
            "missing value."
        )

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "number", "column": self.column, "mean": self.mean, "scale": self.scale}


@dataclass(frozen=True)
class TextInput:
    """One feature a category, 1 where the cell is it; all 0 for an unknown or missing one."""

    column: str
    categories: tuple[str, ...]

    @property
    def known(self) -> tuple[str, ...]:
        return self.categories

    @property
    def width(self) -> int:
        return len(self.categories)

    def encode(self, table: Table, out_BF: Array) -> None:
        out_BF[...] = self._cells(table)[:, np.newaxis] == np.array(self.categories, object)

    def unknown(self, table: Table) -> list[str]:
        """The cells, in their order, whose category is not known."""
        known = {"", *self.categories}
        return [cell for cell in self._cells(table).tolist() if cell not in known]

    def _cells(self, table: Table) -> Array:
        return bools.spelt_as(self.categories, as_text(table[self.column]))

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "text", "column": self.column, "categories": list(self.categories)}


def numbers(table: Table, name: str) -> Array:
    """The column as float64 [n], NaN where missing, bools as 1 and 0, as CSV spells them too.

    Raises InvalidInput for other text or infinity.
    """
    column = table[name]
    values_B = _of_bools(table, name) if is_text(column) else column.astype(np.float64)
    if np.isinf(values_B).any():
        row = int(np.flatnonzero(np.isinf(values_B))[0])
        raise InvalidInput(
            f"{table.source}: column {name!r} must hold finite numbers; sample {table.sample(row)} "
            f"has {values_B[row]}. Correct it, or leave it empty for a missing value."
        )
    return values_B


def _of_bools(table: Table, name: str) -> Array:
    """A column of text as numbers [n]. Raises InvalidInput where a cell is no bool."""
    column = table[name]
    values = [bools.NUMBERS.get(cell.lower()) for cell in column]
    if None in values:
        row = _worst(column)
        raise InvalidInput(
            f"{table.source}: column {name!r} must hold numbers; sample {table.sample(row)} has "
            f"{shown(column[row])}. The network was trained on numbers there: correct the column."
            f"{resemblance(column.tolist())}"
        )
    return np.array(values, np.float64)


def _worst(column: Array) -> int:
    """The row of text to name where numbers should be: the first that is none, and no bool."""
    filled = np.flatnonzero(~missing(column)).tolist()
    texts = [row for row in filled if as_number(column[row]) is None]
    others = [row for row in texts if column[row].lower() not in bools.NUMBERS]
    return int((others or texts or filled)[0])


def learn_input(table: Table, name: str) -> Input:
    """What there is to learn of one column. Raises InvalidInput where it cannot be used."""
    column = table[name]
    if missing(column).all():
        raise InvalidInput(
            f"{table.source}: column {name!r} must have values to learn from; none of the "
            f"{table.n_rows:,} samples learnt from has one. Leave it out with {drop(name)}."
        )
    return _learn_text(table, name) if is_text(column) else _learn_number(table, name)


def _learn_number(table: Table, name: str) -> NumberInput:
    return NumberInput(name, *mean_and_scale(numbers(table, name), f"{table.source}: {name!r}"))


def mean_and_scale(values_B: Array, what: str) -> tuple[float, float]:
    """Mean and standard deviation of what is not missing; a constant column's scale is 1."""
    known_B = values_B[~np.isnan(values_B)]
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = float(known_B.mean()), float(known_B.std())
    if not np.isfinite([mean, scale]).all():
        raise InvalidInput(
            f"{what} must have a finite mean and spread; its values reach "
            f"{np.abs(known_B).max():.3g}. Give it in a larger unit, or take its logarithm."
        )
    least = 10 * np.finfo(np.float64).eps * abs(mean)
    if scale < LEAST_SCALE and np.ptp(known_B) > least:
        raise InvalidInput(
            f"{what} must have a spread of {LEAST_SCALE:g} at least, or none; its values reach "
            f"{np.abs(known_B).max():.3g}. Give it in a smaller unit, or take its logarithm."
        )
    constant = scale <= least
    return mean, 1.0 if constant else scale


def _learn_text(table: Table, name: str) -> TextInput:
    categories = tuple(sorted(set(table[name]) - {""}))
    if len(categories) > MAX_CATEGORIES:
        raise InvalidInput(
            f"{table.source}: a text column must have at most {MAX_CATEGORIES} distinct values; "
            f"{name!r} has {len(categories)}, e.g. {shown(categories[0])}. "
            f"Leave it out with {drop(name)}.{resemblance(categories)}"
        )
    return TextInput(name, categories)


def _number_from(entry: dict[str, Any]) -> NumberInput:
    mean, scale = finite(entry, "mean"), finite(entry, "scale")
    if scale <= 0:
        raise InvalidInput(f"'scale' must be above 0; got {scale}.")
    return NumberInput(str(field(entry, "column", str)), mean, scale)


def _text_from(entry: dict[str, Any]) -> TextInput:
    return TextInput(str(field(entry, "column", str)), texts(entry, "categories"))


KINDS: dict[str, Callable[[dict[str, Any]], Input]] = {"number": _number_from, "text": _text_from}


def input_from(entry: dict[str, Any]) -> Input:
    """The input that `as_dict` described. Raises InvalidInput where it breaks a rule."""
    kind = field(entry, "kind", str)
    if kind not in KINDS:
        raise InvalidInput(f"an input's 'kind' must be one of {sorted(KINDS)}; got {kind!r}.")
    return KINDS[kind](entry)

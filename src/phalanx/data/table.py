"""A table: named columns of numbers or of text, as they came from a file."""

from __future__ import annotations

import difflib
import reprlib
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array

Learnt = Mapping[str, Collection[str] | None] | None  # see `read_table`

SHOWN = 80  # characters of a cell in an error: a cell may be a whole letter


@dataclass(frozen=True)
class Table:
    """Columns by name: numbers or bools [n], or text as objects of type str [n].

    A column that cannot be used is kept as the error to raise where somebody asks for it, so that
    it does no harm where nobody does. `source` names the file in errors.
    rows_B: which of the file's samples these are; None where they are all of them, in order.
    left_out: names of what the file has beside the columns, and nobody means as one.
    gaps: a sentence for errors on what counts as missing in such a file, where that needs saying.
    """

    source: str
    columns: dict[str, Array | InvalidInput]
    n_rows: int
    rows_B: Array | None = None
    left_out: tuple[str, ...] = ()
    gaps: str = ""

    @property
    def names(self) -> list[str]:
        """Names of the columns in their order."""
        return list(self.columns)

    def __getitem__(self, name: str) -> Array:
        """The column `name`. Raises InvalidInput if there is none, or if it cannot be used."""
        if name not in self.columns:
            raise missing_column(name, self)
        column = self.columns[name]
        if isinstance(column, InvalidInput):
            raise column
        return column

    def checked(self) -> Table:
        """The table itself. Raises InvalidInput for the first column that cannot be used."""
        for name in self.names:
            self[name]
        return self

    def without(self, names: Iterable[str]) -> Table:
        """The table less some columns. Raises InvalidInput where one of them is not there."""
        dropped = set(names)
        for name in sorted(dropped.difference(self.columns, self.left_out)):
            raise missing_column(name, self)
        kept = {name: column for name, column in self.columns.items() if name not in dropped}
        return replace(self, columns=kept)

    def take(self, index_B: Array) -> Table:
        """The rows that `index_B` names, in its order."""
        taken = {
            name: column if isinstance(column, InvalidInput) else column[index_B]
            for name, column in self.columns.items()
        }
        rows_B = index_B if self.rows_B is None else self.rows_B[index_B]
        return replace(self, columns=taken, n_rows=len(index_B), rows_B=rows_B)

    def sample(self, row: int) -> int:
        """The number that a row's sample has in the file, counted from 1."""
        return 1 + int(row if self.rows_B is None else self.rows_B[row])


def missing_column(name: str, table: Table) -> InvalidInput:
    """The error for a column that a table lacks, with the nearest name and some that it has."""
    near = difflib.get_close_matches(name, table.names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    some = ", ".join(map(repr, table.names[:12])) + (" ..." if len(table.names) > 12 else "")
    return InvalidInput(f"{table.source} must have a column {name!r}; it has {some}.{hint}")


def holds_text(name: str, learnt: Learnt) -> bool | None:
    """Whether a column was learnt as text; None where nothing was learnt of it."""
    return learnt[name] is not None if learnt and name in learnt else None


def drop(name: str) -> str:
    """The option that leaves a column out, as a shell takes it.

    >>> drop("user id")
    "--drop 'user id'"
    """
    return f"--drop {shlex.quote(name)}"


def or_drop(name: str, learnt: Learnt) -> str:
    """The last resort of an error about a column: none where a network is there that needs it."""
    return f", or leave the column out with {drop(name)}" if learnt is None else ""


def shown(cell: str) -> str:
    """The cell in quotes, for errors; the middle of a long one is left out.

    >>> shown("red")
    "'red'"
    """
    shortener = reprlib.Repr()
    shortener.maxstring = SHOWN
    return shortener.repr(cell)


def is_text(column: Array) -> bool:
    """Whether a column holds text."""
    return column.dtype.kind in "OUT"


def missing(column: Array) -> Array:
    """Which cells are empty, [n] bool."""
    if is_text(column):
        return np.asarray(column == "")
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), bool)


def as_text(column: Array) -> Array:
    """The cells as text [n]: whole numbers without a decimal point, empty for a missing one."""
    if is_text(column):
        return column
    values, place_B = np.unique(column, return_inverse=True)
    texts = np.array([label_of(value) for value in values.tolist()], object)
    return np.asarray(texts[place_B])


def label_of(value: float | bool) -> str:
    """A number as text: a whole one without a decimal point, nothing for NaN."""
    if np.isnan(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)

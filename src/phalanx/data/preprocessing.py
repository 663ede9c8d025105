"""Preprocessing: learnt from the training table, applied again wherever the network is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from phalanx.data.inputs import Input, TextInput, input_from, learn_input
from phalanx.data.plain import FORMAT, check_format, field
from phalanx.data.table import Table
from phalanx.data.targets import Target, learn_target, target_from
from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array


@dataclass(frozen=True)
class Preprocessing:
    """From a table to what a network sees: float32 features [n, F], and the target [n]."""

    inputs: tuple[Input, ...]
    target: Target

    @classmethod
    def learn(cls, table: Table, target: str, task: str | None = None) -> Preprocessing:
        """Standardise numbers, one-hot encode text; every column but the target is an input.

        `task` is 'classification', 'regression' or None for what the target's values suggest.
        Raises InvalidInput naming the column that cannot be used, and what to do with it.
        """
        learnt = learn_target(table, target, task)
        names = [name for name in table.names if name != target]
        if not names:
            raise InvalidInput(
                f"{table.source} must have a column beside the target to learn from; it has "
                f"{target!r} alone. Add columns, or drop fewer."
            )
        return cls(tuple(learn_input(table, name) for name in names), learnt)

    @property
    def n_features(self) -> int:
        """Features F that the inputs make together."""
        return sum(column.width for column in self.inputs)

    @property
    def learnt(self) -> dict[str, tuple[str, ...] | None]:
        """Of each column, the texts that it may hold, None for numbers: for `read_table`."""
        return {column.column: column.known for column in (*self.inputs, self.target)}

    def unknown(self, table: Table) -> dict[str, list[str]]:
        """By column, the cells whose category the training table did not have."""
        texts = [column for column in self.inputs if isinstance(column, TextInput)]
        cells = {column.column: column.unknown(table) for column in texts}
        return {name: unknown for name, unknown in cells.items() if unknown}

    def samples(self, table: Table) -> Array:
        """Features float32 [n, F]; needs every input column, others do no harm."""
        features_BF = np.empty((table.n_rows, self.n_features), np.float32)
        start = 0
        for column in self.inputs:
            column.encode(table, features_BF[:, start : start + column.width])
            start += column.width
        return features_BF

    def targets(self, table: Table) -> Array:
        """Class indices or standardised values [n]; needs the target column."""
        return self.target.encode(table)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for `from_json`."""
        return {
            "format": FORMAT,
            "inputs": [column.as_dict() for column in self.inputs],
            "target": self.target.as_dict(),
        }

    @classmethod
    def from_json(cls, entry: Any) -> Preprocessing:
        """What `to_json` wrote. Raises InvalidInput where it is damaged or of a newer format."""
        check_format(entry)
        inputs = tuple(input_from(column) for column in field(entry, "inputs", list))
        if not inputs:
            raise InvalidInput("'inputs' must name one column at least; got none.")
        return cls(inputs, target_from(field(entry, "target", dict)))

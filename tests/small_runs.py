"""Small trainings for the tests of what comes after a training."""

from __future__ import annotations

from typing import Any

import numpy as np

from phalanx.cli.fitting import Outcome, fit, split
from phalanx.cli.settings import Settings
from phalanx.data.table import Table
from phalanx.runs.record import Record

SETTINGS = Settings(model=(4,), workers=1, epochs=3)


def flowers(n_classes: int = 3, n_rows: int = 60) -> Table:
    """Two numbers and a colour that tell the classes <0>, <1> ... apart."""
    rng = np.random.default_rng(0)
    kind_B = np.arange(n_rows) % n_classes
    columns: dict[str, Any] = {
        "length": kind_B + rng.normal(0, 0.1, n_rows),
        "width": rng.normal(0, 1, n_rows),
        "colour": np.array([f"c{k % 2}" for k in kind_B], object),
        "kind": np.array([f"<{k}>" for k in kind_B], object),
    }
    return Table("flowers.csv", columns, n_rows)


def outcome(
    target: str = "kind", settings: Settings = SETTINGS, table: Table | None = None
) -> Outcome:
    """A training on the flowers."""
    parts = split(table or flowers(), target, None, settings.validation_fraction, settings.seed)
    return fit(parts, settings)


def recorded(made: Outcome, **more: Any) -> Record:
    """The record of such a training."""
    return made.record("flowers-1", "flowers.csv", SETTINGS, **more)

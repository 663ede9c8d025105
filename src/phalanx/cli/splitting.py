"""Which samples are trained on, and which are held out to judge by."""

from __future__ import annotations

from math import ceil

import numpy as np

from phalanx.data.lookalikes import resemblance
from phalanx.data.table import Table, is_text, shown
from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array


def split_index(
    table: Table, target: str, labels_B: Array | None, fraction: float, seed: int
) -> tuple[Array, Array]:
    """Indices of both, in order; of each class of `labels_B` the same share is held out.

    Raises InvalidInput where there are too few samples for that.
    """
    from sklearn.model_selection import train_test_split

    if why := _too_few(table.n_rows, target, labels_B, fraction):
        raise InvalidInput(
            f"{table.source} must have samples enough, of every class, to train on and to hold "
            f"{fraction:g} of them out; got {table.n_rows:,}: {why}. Add samples, or choose "
            "another --validation-fraction (0 holds none out)"
            f"{_or_task(table, target, labels_B)}"
        )
    train_B, held_B = train_test_split(
        np.arange(table.n_rows), test_size=fraction, stratify=labels_B, random_state=seed
    )
    return np.sort(train_B), np.sort(held_B)


def _too_few(n_rows: int, target: str, labels_B: Array | None, fraction: float) -> str:
    """Why they cannot be split as they are to be, or nothing."""
    n_held = ceil(fraction * n_rows)
    n_training = n_rows - n_held
    if not n_training:
        return "none would be left to train on"
    if labels_B is None:
        return ""
    labels, counts = np.unique(labels_B, return_counts=True)
    single = labels[counts == 1].tolist()
    if len(single) == 1:
        return f"of {target!r} = {shown(single[0])} there is only one"
    if single:
        return (
            f"of {len(single):,} of the {len(labels):,} classes in {target!r}, e.g. "
            f"{shown(single[0])}, there is only one each"
        )
    if min(n_held, n_training) < len(labels):
        return (
            f"{n_training:,} to train on and {n_held:,} held out cannot both have all "
            f"{len(labels):,} classes of {target!r}"
        )
    return ""


def _or_task(table: Table, target: str, labels_B: Array | None) -> str:
    """What else to do where the classes are numbers."""
    if labels_B is None:
        return "."
    if not is_text(table[target]):
        return f", or --task regression if {target!r} is a number to estimate."
    return f".{resemblance(labels_B.tolist())}"

"""Bools that a file has as text, in whatever case: writers of CSV differ."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from phalanx.pure.arrays import Array

NUMBERS = {"true": 1.0, "false": 0.0, "": np.nan}


def spelt_alike(cells_B: Array) -> Array:
    """The cells, as True and False where all but the missing ones are bools: as pandas has them.

    >>> spelt_alike(np.array(["true", "", "FALSE"], object)).tolist()
    ['True', '', 'False']
    """
    if not _are_bools(set(cells_B.tolist())):
        return cells_B
    return np.array([cell.capitalize() for cell in cells_B.tolist()], object)


def spelt_as(known: Collection[str], cells_B: Array) -> Array:
    """The cells, bools among them as `known` spells them, where all that is known are bools.

    >>> spelt_as(("False", "True"), np.array(["true", "yes", "FALSE"], object)).tolist()
    ['True', 'yes', 'False']
    """
    ours = {word.lower(): word for word in known}
    if not _are_bools(known) or len(ours) < len(known):  # else each is what it is
        return cells_B
    return np.array([ours.get(cell.lower(), cell) for cell in cells_B.tolist()], object)


def _are_bools(words: Collection[str]) -> bool:
    return all(word.lower() in NUMBERS for word in words)

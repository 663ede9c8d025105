"""The hand-over: whoever stands behind takes the training's state from who has come furthest.

That is how a host joins a training that goes on, how one that missed the last step of a broken
exchange makes it up, and how hosts without a checkpoint follow the one that has it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from phalanx.clusters.hosts.talking import gather, lead
from phalanx.exchange.group import Group
from phalanx.pure.arrays import Array
from phalanx.training.checkpoint import Saved
from phalanx.training.keeper import arrays_of, facts_of, standing_of
from phalanx.training.state import Standing

HERE = Path("another host")


def hand_over(group: Group, mine: Standing) -> Standing:
    """Where all hosts go on: at the furthest that one of them has come to, the first such."""
    state = mine.state
    stands = gather(
        group,
        "where each stands",
        (mine.reason is not None, state.updates, state.epochs, state.place),
    )
    furthest = max(stands)
    if all(stand == furthest for stand in stands):
        return mine
    giver = stands.index(furthest)
    is_giver = group.place.host == giver
    arrays = arrays_of(state)
    shapes = {name: (array.shape, array.dtype.str) for name, array in arrays.items()}
    told = (shapes, facts_of(mine)) if is_giver else None
    shapes, facts = gather(group, "a handover", told)[giver]
    given = {name: _given(group, giver, arrays.get(name), *shapes[name]) for name in shapes}
    if stands[group.place.host] == furthest:
        return mine
    taken = standing_of(Saved(HERE, state.updates, given, facts))
    taken.reason = facts["reason"]
    if taken.reason is not None:
        taken.state.take_best()  # as the giver has
    return taken


def _given(
    group: Group, giver: int, mine: Array | None, shape: tuple[int, ...], dtype: str
) -> Array:
    is_giver = group.place.host == giver
    array = np.ascontiguousarray(mine) if is_giver else np.empty(shape, dtype)
    lead(group, array, giver)
    return array

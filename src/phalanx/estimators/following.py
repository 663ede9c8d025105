"""What a fit is told beside its data, and the random state that its checkpoints keep."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

import numpy as np

from phalanx.clusters.ray.cluster import RayCluster, check_cluster
from phalanx.errors import CheckpointError, InvalidInput
from phalanx.training.checkpoint import Saved
from phalanx.training.following import OnEpoch


@dataclass(frozen=True)
class Wishes:
    """The arguments of `fit` that are neither samples nor weights."""

    validation_data: Any = None
    callback: OnEpoch | None = None
    checkpoint: Any = None
    checkpoint_every: Any = None
    resume: Any = None
    cluster: RayCluster | None = None

    def __post_init__(self) -> None:
        check_cluster(self.cluster)
        if self.callback is not None and not callable(self.callback):
            raise InvalidInput(
                "callback must be a function (epoch, record) that returns True to stop, or None; "
                f"got {self.callback!r:.200}."
            )

    def check_none_for(self, solver: str) -> None:
        """Raise InvalidInput where there is one that only a training by batches can carry out."""
        given = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        if given:
            raise InvalidInput(
                f"{', '.join(given)} can be used where the network is trained step by step; got "
                f"solver={solver!r}, whose steps are SciPy's own. Use e.g. solver='adam'."
            )


def packed_state(random_state: np.random.RandomState) -> dict[str, Any]:
    """A random state as plain JSON, for `random_state_of`."""
    packed: dict[str, Any] = _plain(random_state.get_state(legacy=False))
    return packed


def random_state_of(saved: Saved, asked: Any) -> np.random.RandomState:
    """The random state that the checkpoint's own fit began with, so that all draws are the same.

    asked: the estimator's parameter. Raises CheckpointError where that is a number and the
    checkpoint began with another, or where the checkpoint is not one of an estimator's fit.
    """
    try:
        packed = saved.facts["extra"]["random_state"]
        state = np.random.RandomState(getattr(np.random, packed["bit_generator"])())
        state.set_state(_in_arrays(packed))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"a fit can go on from a checkpoint that a fit wrote; {saved.path} has no random state "
            "of one. Pass another checkpoint."
        ) from error
    if isinstance(asked, Integral):
        _check_number(saved, state, asked)
    return state


def _plain(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _plain(value) for name, value in part.items()}
    return np.asarray(part).tolist()


def _in_arrays(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _in_arrays(value) for name, value in part.items()}
    return np.array(part, np.uint64) if isinstance(part, list) else part


def _check_number(saved: Saved, state: np.random.RandomState, asked: Integral) -> None:
    if packed_state(state) != packed_state(np.random.RandomState(int(asked))):
        raise CheckpointError(
            "a fit goes on from a checkpoint with the random_state that it was begun with; "
            f"{saved.path} began with another one than {asked}. Use that of the checkpoint, or "
            "start anew without resume."
        )

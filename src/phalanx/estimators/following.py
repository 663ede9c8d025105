"""What a fit is told beside its data, and what its callback sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from phalanx.clusters.ray.cluster import RayCluster, check_cluster
from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array
from phalanx.training.following import OnEpoch


@dataclass(frozen=True)
class Wishes:
    """The arguments of `fit` and `partial_fit` that are neither samples nor weights."""

    validation_data: Any = None
    callback: OnEpoch | None = None
    checkpoint: Any = None
    checkpoint_every: Any = None
    resume: Any = None
    cluster: RayCluster | None = None
    classes: Any = None

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


class Mirror:
    """The estimator as callbacks see it. See following.Mirror.

    take: makes the parameters [N] that it is given the estimator's own.
    """

    def __init__(self, take: Callable[[Array], None]) -> None:
        self._take = take

    def show(self, values_XN: Array, scalars_KC: Array) -> None:
        """See following.Mirror."""
        self._take(values_XN[0].copy())

    def changed(self, values_N: Array) -> bool:
        """See following.Mirror; what a callback makes of the weights is of no effect."""
        return False

"""Checked samples with their target and weights, of which a part can be set aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from phalanx.data.samples import TableSamples
from phalanx.pure.arrays import Array


@dataclass
class Target:
    """A checked target: class indices [n] or values [n, O], and labels for stratifying."""

    classes_B: Array | None
    values_BO: Array | None
    labels_B: Array | None

    def samples(self, x: Any, weight_B: Array | None) -> TableSamples:
        """Samples with this target; weights in the samples' dtype."""
        if weight_B is not None:
            weight_B = weight_B.astype(x.dtype, copy=False)
        return TableSamples.of(x, self.classes_B, self.values_BO, weight_B)

    def take(self, index: Array) -> Target:
        """The target of some of the samples."""
        arrays = (self.classes_B, self.values_BO, self.labels_B)
        return Target(*(None if array is None else array[index] for array in arrays))


class Labelled(NamedTuple):
    """Rows `x` [n, F], dense or CSR, their target, and their weights [n] if they have any."""

    x: Any
    target: Target
    weight_B: Array | None

    def samples(self) -> TableSamples:
        """As the engine takes them."""
        return self.target.samples(self.x, self.weight_B)

    def take(self, index: Array) -> Labelled:
        """Some of them."""
        weight_B = None if self.weight_B is None else self.weight_B[index]
        return Labelled(self.x[index], self.target.take(index), weight_B)


def set_aside(
    everything: Labelled, fraction: float, strata_B: Array | None, rng: np.random.RandomState
) -> tuple[Labelled, Labelled]:
    """What is left to train on, and the part that is set aside, drawn as scikit-learn draws it.

    strata_B: classes whose shares both parts are to keep.
    Raises ValueError, as scikit-learn does, where fewer than two samples are set aside.
    """
    index_train, index_val = train_test_split(
        np.arange(everything.x.shape[0]),
        random_state=rng,
        test_size=fraction,
        stratify=strata_B,
    )
    if len(index_val) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' "
            "or the size of your dataset."
        )
    return everything.take(index_train), everything.take(index_val)

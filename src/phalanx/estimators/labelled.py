"""Checked samples with their target and weights, of which a part can be set aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from phalanx.data.samples import TableSamples
from phalanx.errors import InvalidInput
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

    def astype(self, dtype: Any) -> Target:
        """The same with values of a dtype."""
        values_BO = self.values_BO
        if values_BO is not None:
            values_BO = values_BO.astype(dtype, copy=False)
        return Target(self.classes_B, values_BO, self.labels_B)

    def take(self, index: Array) -> Target:
        """The target of some of the samples."""
        arrays = (self.classes_B, self.values_BO, self.labels_B)
        return Target(*(None if array is None else array[index] for array in arrays))


class Labelled(NamedTuple):
    """Rows `x` [n, F], dense or CSR, their target, and their weights [n] if they have any.

    by_class_B: weights [n] that they have besides in training, where classes weigh differently.
    """

    x: Any
    target: Target
    weight_B: Array | None
    by_class_B: Array | None = None

    def training(self, is_a_part: bool = False) -> TableSamples:
        """As the engine takes them, to learn from. Raises InvalidInput if none weighs anything,
        unless they are a part of a stream."""
        weights = [w for w in (self.weight_B, self.by_class_B) if w is not None]
        weight_B = np.multiply.reduce(weights) if weights else None
        if not is_a_part:
            _check_weighing(weight_B, "learn from")
        return self.target.samples(self.x, weight_B)

    def validation(self) -> TableSamples:
        """Likewise, to be judged by."""
        _check_weighing(self.weight_B, "judge by")
        return self.target.samples(self.x, self.weight_B)

    def take(self, index: Array) -> Labelled:
        """Some of them."""
        weight_B, by_class_B = (
            None if weights is None else weights[index]
            for weights in (self.weight_B, self.by_class_B)
        )
        return Labelled(self.x[index], self.target.take(index), weight_B, by_class_B)


def _check_weighing(weight_B: Array | None, what_for: str) -> None:
    if weight_B is not None and not weight_B.any():
        raise InvalidInput(
            f"some of the samples to {what_for} must have a weight above 0; got 0 for all "
            f"{len(weight_B)} of them. Leave out samples that are not to count, or weigh others."
        )


def set_aside(
    everything: Labelled, fraction: float, strata_B: Array | None, rng: np.random.RandomState
) -> tuple[Labelled, Labelled]:
    """What is left to train on, and the part that is set aside, drawn as scikit-learn draws it.

    strata_B: classes whose shares both parts are to keep.
    Raises InvalidInput where none are to be set aside, and ValueError, as scikit-learn does, where
    fewer than two are.
    """
    if fraction == 0:
        raise InvalidInput(
            "early_stopping=True needs samples to judge by; got validation_fraction="
            f"{fraction!r}, which sets none aside. Pass validation_data, or a fraction such as 0.1."
        )
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

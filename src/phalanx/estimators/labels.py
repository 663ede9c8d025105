"""A classifier's labels: what they must be, and which may come beside those that it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array


def has_several(kind: str) -> bool:
    """Whether a target of scikit-learn's kind has several labels a sample."""
    return kind.startswith("multilabel")


def labels_of(y: Any) -> Any:
    """Labels [n], or indicators [n, O], of a checked array. Raises ValueError for other targets."""
    check_classification_targets(y)
    if y.ndim == 2 and y.shape[1] == 1:
        return column_or_1d(y, warn=True)
    return y


def check_kind(y: Any, fitted: str) -> None:
    """Raise InvalidInput unless samples have one label or several as those of the kind `fitted`."""
    had_several = has_several(fitted)
    if has_several(type_of_target(y)) != had_several:
        raise InvalidInput(
            f"y must be {'indicators [n, O]' if had_several else 'one label a sample, [n]'}, "
            f"as in the fit that this goes on from or is judged beside; got an array of shape "
            f"{y.shape}. The object was {'' if had_several else 'not '}fitted with multilabel "
            "input."
        )


def check_classes(y: Any, fitted: Array, must_be_all: bool) -> None:
    """Raise InvalidInput, in scikit-learn's words, for classes that are not among the `fitted`, or
    not all of them."""
    classes = unique_labels(y)
    if must_be_all:
        if set(classes) != set(fitted):
            raise InvalidInput(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {fitted}, `y` has {classes}"
            )
    elif len(np.setdiff1d(classes, fitted, assume_unique=True)):
        raise InvalidInput(
            f"`y` has classes not in `self.classes_`. `self.classes_` has {fitted}. "
            f"'y' has {classes}."
        )


def check_validation_classes(y: Any, fitted: Array) -> None:
    """Raise InvalidInput for classes of validation samples that are not among the `fitted`."""
    unknown = np.setdiff1d(unique_labels(y), fitted)
    if len(unknown):
        raise InvalidInput(
            f"validation_data may only have classes that the training data have; got "
            f"{unknown} beside {fitted}. Add samples of them to the training data."
        )

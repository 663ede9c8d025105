"""Class weights: what they must be, and the weight that each sample has by its class."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from phalanx.errors import InvalidInput
from phalanx.pure import checks
from phalanx.pure.arrays import Array

BALANCED = "balanced"
HINT = "To leave a class out, give it the weight 0."


def weights_by_class(class_weight: Any, y: Any, classes: Array) -> Array:
    """Sample weights [n] by class, or by all columns of indicators.

    classes: all that there are, of which `y` may have some. Raises InvalidInput for a weight that
    is negative or not finite, and where no class has a weight above 0.
    """
    if np.ndim(y) == 2 and np.shape(y)[1] == 1 and not hasattr(y, "tocsr"):
        y = np.ravel(y)
    if isinstance(class_weight, dict):
        _check(class_weight, "class_weight", classes.tolist())
        if np.ndim(y) == 1:
            by_class = compute_class_weight(class_weight, classes=classes, y=y)
            return np.asarray(by_class[np.searchsorted(classes, y)])
    elif isinstance(class_weight, list):
        for column, weights in enumerate(class_weight):
            _check(weights, f"class_weight[{column}]", [0, 1])
        if np.ndim(y) == 1:
            raise InvalidInput(
                "class_weight is a list, of a dict for each column, where y has several labels; "
                f"got {class_weight!r:.200} for a y of one. Pass the dict alone."
            )
    elif not isinstance(class_weight, str) or class_weight != BALANCED:
        raise InvalidInput(
            f"class_weight must be a dict from class to weight, {BALANCED!r} or None; got "
            f"{class_weight!r:.200}. Pass e.g. {{{classes.tolist()[0]!r}: 2.0}}."
        )
    y = y.tocsr() if hasattr(y, "tocsr") else y  # of which columns can be taken
    return np.asarray(compute_sample_weight(class_weight, y))


def check_of_part(class_weight: Any) -> None:
    """Raise InvalidInput for what a part of the samples cannot tell; so does scikit-learn."""
    if isinstance(class_weight, str) and class_weight == BALANCED:
        raise InvalidInput(
            f"class_weight={BALANCED!r} weighs classes by how many samples each has, which no call "
            "of partial_fit sees. Pass a dict, e.g. of sklearn.utils.class_weight."
            "compute_class_weight('balanced', classes=classes, y=all_of_y)."
        )


def _check(weights: Any, name: str, labels: list[Any]) -> None:
    if not isinstance(weights, dict):
        raise InvalidInput(f"{name} must be a dict from class to weight; got {weights!r:.200}.")
    for label, weight in weights.items():
        if label not in labels:
            raise InvalidInput(
                f"{name} must have weights for classes of y, {labels!r:.200}; got one for "
                f"{label!r}. Leave it out, or write it as y has it."
            )
        which = f"{name}[{label!r}]"
        checks.number(which, weight, at_least=0, below=float("inf"), hint=HINT)
    if all(weights.get(label, 1) == 0 for label in labels):
        raise InvalidInput(
            f"{name} must have a weight above 0 for one class at least; got 0 for all of "
            f"{labels!r:.200}. There would be nothing to learn from."
        )

"""Training a Keras model."""

from __future__ import annotations

from typing import Any


def fit(model: Any, *data: Any, **options: Any) -> Any:
    """See `phalanx.fit`."""
    raise NotImplementedError


evaluate = predict = fit

"""Images stay as they lie in memory, channels last.

Keras' torch backend copies them, channels first, before each pooling and each convolution, and for
the latter back again; so are gradients. torch's operations want channels first in the shape alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TRANSPOSE = "_transpose_spatial_inputs"  # Keras has no public way to say so


class InPlace:
    """Images [batch, ..., channels] as [batch, channels, ...]; series, for which torch has no such
    layout, as Keras does."""

    def __init__(self, by_keras: Callable[[Any], Any]) -> None:
        self._by_keras = by_keras

    def __call__(self, inputs: Any) -> Any:
        if inputs.ndim < 4:
            return self._by_keras(inputs)
        last = inputs.ndim - 1
        return inputs.permute(0, last, *range(1, last))


def keep_as_they_lie() -> None:
    """Have Keras copy no images in this process."""
    backend = _backend()
    by_keras = getattr(backend, TRANSPOSE, None)
    if by_keras is not None and not isinstance(by_keras, InPlace):
        setattr(backend, TRANSPOSE, InPlace(by_keras))


@contextmanager
def kept_as_they_lie() -> Iterator[None]:
    """Likewise, in the caller's process, until the end."""
    backend = _backend()
    before = getattr(backend, TRANSPOSE, None)
    keep_as_they_lie()
    try:
        yield
    finally:
        if before is not None:
            setattr(backend, TRANSPOSE, before)


def _backend() -> Any:
    from keras.src.backend.torch import nn

    return nn

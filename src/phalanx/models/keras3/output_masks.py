"""The masks that Keras hangs on what a model puts out, and metrics ask for.

They are attributes of tensors, which no tape plays: it has to be told of them.
"""

from __future__ import annotations

from typing import Any


def masks_of(tensors: list[Any]) -> list[Any]:
    """The mask of each tensor; None where it has none."""
    from keras.src.backend.common.masking import get_keras_mask  # no public function has it

    return [get_keras_mask(tensor) for tensor in tensors]


def give_masks(tensors: list[Any], masks: list[Any]) -> None:
    """Hang one on each."""
    from keras.src.backend.common.masking import set_keras_mask

    for tensor, mask in zip(tensors, masks, strict=True):
        set_keras_mask(tensor, mask)

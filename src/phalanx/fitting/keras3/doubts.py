"""What a user is warned of before a fit: a loss of which it matters which samples form a shard."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import torch

from phalanx.fitting.keras3.arrays import numpy_of
from phalanx.fitting.keras3.trial import Trial
from phalanx.models.keras3.generators import undisturbed
from phalanx.models.keras3.output_masks import give_masks, masks_of
from phalanx.warning import warn_caller

SAME, SAME_IN_HALF = 1e-3, 3e-2  # of the loss, in float32 and in 16 bits


def warn_unless_mean(trial: Trial) -> None:
    """Warn where the loss of a few samples is not the mean of its halves', as in a loss over pairs,
    or one that divides by what is not masked."""
    count = len(keras.tree.flatten(trial.x)[0])
    if count < 2:
        return
    halves = slice(0, count // 2), slice(count // 2, count)
    with undisturbed(), trial.without_traces(), torch.no_grad(), np.errstate(all="ignore"):
        whole = _loss(trial, slice(None))
        parts = [(rows.stop - rows.start) * float(_loss(trial, rows)) for rows in halves]
        mean, near = sum(parts) / count, SAME if whole.itemsize > 2 else SAME_IN_HALF
        if not math.isfinite(whole) or math.isclose(whole, mean, rel_tol=near, abs_tol=1e-6):
            return
        if _loss(trial, slice(None)) != whole:
            return  # it draws, so that no two of its values are equal
    warn_caller(
        f"the loss of {count} samples is {whole:.6g} and the mean of its halves' is {mean:.6g}: it "
        "is not a mean over samples, and the loss of a batch is the mean of its shards' losses. "
        "With masks, a shard's is the mean over what counts in it. For the loss of whole batches, "
        "as Keras has it, pass shards=1."
    )


def _loss(trial: Trial, rows: slice) -> Any:
    """The loss of some of the first samples, as one number of NumPy."""
    x, y, weight, predicted = (
        None if part is None else keras.tree.map_structure(lambda a: _taken(a, rows), part)
        for part in (trial.x, trial.y, trial.weight, trial.predicted)
    )
    loss = trial.model._compute_loss(
        x=x, y=y, y_pred=predicted, sample_weight=weight, training=False
    )
    return numpy_of(loss).reshape(())[()]


def _taken(tensor: Any, rows: slice) -> Any:
    """Some rows, with their mask."""
    part, [mask] = tensor[rows], masks_of([tensor])
    if mask is not None:
        give_masks([part], [mask[rows]])
    return part

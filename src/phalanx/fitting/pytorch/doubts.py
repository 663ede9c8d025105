"""What a user is warned of before a fit, since the answer would depend on what it should not:
samples that are others when they are read again, and a loss that is no mean over them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from phalanx.data.samples import Samples
from phalanx.fitting.pytorch.trials import first_rows_of
from phalanx.models.pytorch.batches import DatasetSamples
from phalanx.models.pytorch.generators import undisturbed
from phalanx.models.pytorch.network import TorchSpec, moved
from phalanx.models.pytorch.objective import outputs_of
from phalanx.models.pytorch.packing import unpacked
from phalanx.models.pytorch.weighing import ignored_by
from phalanx.pure.randomness import Key

SAME = 1e-3  # relative: how far apart two means of the same samples may be
CALLER = 5  # frames up, where phalanx.fit was called
ROWS, KEY = 4, Key(0, 0, 0)


def warn_unless_settled(samples: Samples) -> None:
    """Warn where a Dataset gives other samples when it is asked for the same ones again, with the
    generators of torch, NumPy and Python seeded alike."""
    if not isinstance(samples, DatasetSamples):
        return
    with undisturbed():
        gatherer, index_B = samples.gatherer(ROWS), np.arange(min(ROWS, samples.n_samples))
        first, second = (tree_leaves(gatherer.rows(index_B, KEY).content) for _ in range(2))
    if any(map(_are_others, first, second)):
        warnings.warn(
            f"samples must be the same when they are read again; {type(gatherer.dataset).__name__} "
            "gave others. What it draws from a generator of its own, or counts, is each worker's "
            "own, so the answer will depend on the workers. Draw from torch, numpy.random or "
            "random themselves, which are seeded for each shard.",
            stacklevel=CALLER,
        )


def warn_unless_mean(
    loss: Any, spec: TorchSpec, params: Sequence[torch.Tensor], samples: Samples
) -> None:
    """Warn where the loss of a few samples is not the mean of their losses, as in a loss over pairs
    or one that divides by weights: then it matters which samples form a shard."""
    if loss is None or _is_torchs(loss):
        return
    batch = first_rows_of(samples)
    with undisturbed(), torch.no_grad():
        module, objective, _ = unpacked(spec.packed, [p.detach().clone() for p in params])
        device = torch.device(spec.settings.device)
        outputs, target = outputs_of(module.to(device), moved(batch.content, device))
        if not all(isinstance(part, torch.Tensor) for part in (outputs, target)):
            return
        whole, mean = _means(objective.loss, outputs, target)
    if math.isfinite(whole) and not math.isclose(whole, mean, rel_tol=SAME, abs_tol=1e-6):
        warnings.warn(
            f"the loss of {len(outputs)} samples is {whole:.6g} and the mean of their losses is "
            f"{mean:.6g}: it is not a mean over samples, and the loss of a batch is the mean of "
            "its shards' losses. If it divides by something else than samples, let step= return "
            "(loss, weight); for the loss of whole batches, pass shards=1.",
            stacklevel=CALLER,
        )


def _are_others(one: Any, other: Any) -> bool:
    """Whether two tensors differ, but for NaN."""
    if not isinstance(one, torch.Tensor) or one.layout is not torch.strided:
        return False
    if one.shape != other.shape:
        return True
    return not bool(((one == other) | (one.isnan() & other.isnan())).all())


def _means(loss: Callable[..., Any], outputs: Any, target: Any) -> tuple[float, float]:
    """The loss of all samples, and the mean of the losses of each; the first one twice where the
    second cannot be had, or where chance has a part in it."""
    whole = float(loss(outputs, target))
    try:
        singles = [float(loss(outputs[i : i + 1], target[i : i + 1])) for i in range(len(outputs))]
    except Exception:  # a loss that needs several samples; whether it is a mean is not known
        return whole, whole
    is_settled = float(loss(outputs, target)) == whole
    return whole, sum(singles) / len(singles) if is_settled else whole


def _is_torchs(loss: Any) -> bool:
    kind = loss if hasattr(loss, "__name__") else type(loss)
    return (kind.__module__ or "").startswith("torch.") or ignored_by(loss) is not None

"""What a shard's loss weighs where torch takes its mean over something else than the samples.

`CrossEntropyLoss` and `NLLLoss` divide by the weights of the targets' classes, and leave out
targets that equal `ignore_index`. So the mean over a batch is that of its shards weighted likewise,
not by their numbers of samples.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

IGNORED = -100  # torch's default
KINDS = (nn.CrossEntropyLoss, nn.NLLLoss)
FUNCTIONS = (functional.cross_entropy, functional.nll_loss)


def opened(loss: Any) -> tuple[Any, dict[str, Any]]:
    """A loss without the `functools.partial`s around it, and the keywords that they give it; the
    module, where it is one's `forward`."""
    keywords: dict[str, Any] = {}
    while isinstance(loss, partial):
        loss, keywords = loss.func, {**loss.keywords, **keywords}
    owner = getattr(loss, "__self__", None)
    is_modules = isinstance(owner, nn.Module) and loss in (owner.forward, owner.__call__)
    return owner if is_modules else loss, keywords


def ignored_by(loss: Any) -> int | None:
    """The target that a loss leaves out; None for a loss that leaves none out."""
    loss, keywords = opened(loss)
    if isinstance(loss, KINDS) and type(loss).forward in [kind.forward for kind in KINDS]:
        return int(loss.ignore_index)
    return int(keywords.get("ignore_index", IGNORED)) if loss in FUNCTIONS else None


def class_weights_of(loss: Any) -> torch.Tensor | None:
    """The weights [C] by which a loss takes its mean, if it has any."""
    function, keywords = opened(loss)
    weights = keywords.get("weight", getattr(function, "weight", None))
    return weights if ignored_by(loss) is not None and isinstance(weights, torch.Tensor) else None


def weight_of(loss: Any, target: Any, count: int) -> float:
    """What the mean loss of `count` samples weighs: as many as they are, for most losses.

    target: of class indices [B, ...]; where it holds probabilities, torch divides by samples.
    """
    weights, ignored = class_weights_of(loss), ignored_by(loss)
    if ignored is None or not _are_classes(target):
        return float(count)
    target = target.long()  # uint8, which torch takes as well, cannot be compared with -100
    is_kept = target != ignored
    if weights is None and bool(is_kept.all()):
        return float(count)
    kept = target[is_kept]
    total = float(kept.numel()) if weights is None else float(weights.double()[kept].sum())
    many = target.numel() / count  # of a sample, as in segmentation
    return float(total / many)


def _are_classes(target: Any) -> bool:
    return isinstance(target, torch.Tensor) and not target.is_floating_point()

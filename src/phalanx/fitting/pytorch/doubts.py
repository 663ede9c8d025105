"""What a user is warned of before a fit, since the answer would depend on what it should not:
samples that are others when they are read again, a step that remembers, and a loss that is no mean
over samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from phalanx.data.samples import Samples
from phalanx.models.pytorch.batches import DatasetSamples, first_rows
from phalanx.models.pytorch.generators import as_guest, seed_everything, undisturbed
from phalanx.models.pytorch.network import TorchSpec, moved
from phalanx.models.pytorch.objective import Objective, outputs_of
from phalanx.models.pytorch.packing import unpacked
from phalanx.models.pytorch.parameters import parameters_of
from phalanx.models.pytorch.weighing import ignored_by, opened
from phalanx.pure.randomness import Key
from phalanx.warning import warn_caller

SAME = 1e-3  # relative: how far apart two means of the same samples may be
DOUBLE = 0.15  # relative: how far from the double a sum may be in which chance has a part
SMALL = 1e-6
ROWS, KEY = 4, Key(0, 0, 0)
COUNTS = range(4, 8)  # rows of trials that must all agree: what one of them says may be by chance


def warn_unless_settled(samples: Samples) -> None:
    """Warn where a Dataset gives other samples when it is asked for the same ones again, with the
    generators of torch, NumPy and Python seeded alike."""
    if not isinstance(samples, DatasetSamples):
        return
    with undisturbed():
        gatherer, index_B = samples.gatherer(ROWS), np.arange(min(ROWS, samples.n_samples))
        first, second = (tree_leaves(gatherer.rows(index_B, KEY).content) for _ in range(2))
    if any(map(_are_others, first, second)):
        warn_caller(
            f"samples must be the same when they are read again; {type(gatherer.dataset).__name__} "
            "gave others. What it draws from a generator of its own, or counts, is each worker's "
            "own, so the answer will depend on the workers. Draw from torch, numpy.random or "
            "random themselves, which are seeded for each shard."
        )


def warn_if_unlike(unlike: str | None, count: int) -> None:
    """Warn of a step that remembers others. unlike: what a trial has found; see first_trial."""
    if unlike is not None:
        warn_caller(
            "a step must be made of its samples, the parameters and the buffers alone; with all of "
            f"them as before, {count} samples had {unlike}. What the module, the loss or step= "
            "keep between two calls, or draw from a generator of their own, is each worker's own, "
            "so the answer will depend on the workers. Keep it in a buffer of the module "
            "(register_buffer; a loss can be a part of the module, with step=), or make it of the "
            "batch alone; draw from torch, numpy.random or random themselves."
        )


def warn_if_untrained(loss: Any, module: torch.nn.Module, params: Sequence[torch.Tensor]) -> None:
    """Warn of a loss with parameters that could be trained, and are not.

    params: those that are trained.
    """
    loss, _ = opened(loss)
    if not isinstance(loss, torch.nn.Module):
        return
    known = {id(p) for p in (*parameters_of(module), *params)}
    left = [n for n, p in loss.named_parameters() if p.requires_grad and id(p) not in known]
    if left:
        warn_caller(
            f"what is trained is the module; the loss, {type(loss).__name__}, has parameters of "
            f"its own ({left[0]!r}{', ...' * (len(left) > 1)}), which stay as they are. To train "
            "them, make the loss a part of the module, and pass step=, e.g. lambda module, batch: "
            "module.loss(module(batch[0]), batch[1]); else set requires_grad_(False) on them."
        )


def warn_unless_mean(
    loss: Any, spec: TorchSpec, params: Sequence[torch.Tensor], samples: Samples
) -> None:
    """Warn where the loss of a few samples is not the mean of their losses, as in a loss over pairs
    or one that divides by weights: then it matters which samples form a shard. Of a step that is
    known where its loss is a sum."""
    if loss is not None and _is_torchs(loss):
        return
    doubt_of, told = (_doubt_of_step if loss is None else _doubt_of_loss), ""
    with as_guest():
        module, objective, _ = unpacked(spec.packed, [p.detach().clone() for p in params])
        device = torch.device(spec.settings.device)
        module.to(device)
        for count in COUNTS:
            batch = first_rows(samples, count)
            told = doubt_of(module, objective, moved(batch.content, device), batch.count)
            if not told:
                return
    warn_caller(told)


def _doubt_of_loss(module: Any, objective: Objective, content: Any, count: int) -> str:
    assert objective.loss is not None
    with torch.no_grad():
        outputs, target = outputs_of(module, content)
        if not (_has_rows(outputs, count) and _has_rows(target, count)):
            return ""
        whole, mean = _means(objective.loss, outputs, target, count)
    if not math.isfinite(whole) or math.isclose(whole, mean, rel_tol=SAME, abs_tol=SMALL):
        return ""
    return (
        f"the loss of {count} samples is {whole:.6g} and the mean of their losses is "
        f"{mean:.6g}: it is not a mean over samples, and the loss of a batch is the mean of "
        "its shards' losses. If it divides by something else than samples, let step= return "
        "(loss, weight); for the loss of whole batches, pass shards=1."
    )


def _doubt_of_step(module: Any, objective: Objective, content: Any, count: int) -> str:
    """Of samples, each of which comes twice, a mean is the same, and a sum the double."""
    if not _has_rows(content, count) or _is_compiled(module):  # which would be for each size
        return ""
    losses = []
    for times in (1, 2):
        module.eval()  # dropout would be another for each number of rows
        seed_everything(count)
        try:
            made, _ = objective.of_batch(module, _repeated(content, count, times), count * times)
        except Exception:  # whether it is a mean is not known
            return ""
        losses.append(float(made.detach()))
    once, twice = losses
    is_double = math.isclose(twice, 2 * once, rel_tol=DOUBLE) and abs(once) > SMALL
    return is_double * (
        f"the loss of {count} samples is {once:.6g}, and {twice:.6g} where each of them comes "
        "twice: it is a sum over samples, and the loss of a batch is the mean of its shards' "
        "losses. Let step= return the mean, with reduction='mean', or divide by the samples; for "
        "the sum over whole batches, pass shards=1."
    )


def _are_others(one: Any, other: Any) -> bool:
    """Whether two tensors differ, but for NaN."""
    if not isinstance(one, torch.Tensor) or one.layout is not torch.strided:
        return False
    if one.shape != other.shape:
        return True
    return not bool(((one == other) | (one.isnan() & other.isnan())).all())


def _is_of_rows(leaf: Any, count: int) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == count


def _has_rows(nest: Any, count: int) -> bool:
    """Whether a nest of tensors has some with a row a sample."""
    return any(_is_of_rows(leaf, count) for leaf in tree_leaves(nest))


def _row(nest: Any, i: int, count: int) -> Any:
    return tree_map(lambda leaf: leaf[i : i + 1] if _is_of_rows(leaf, count) else leaf, nest)


def _repeated(nest: Any, count: int, times: int) -> Any:
    """A copy in which all rows come several times."""
    return tree_map(
        lambda leaf: torch.cat([leaf] * times) if _is_of_rows(leaf, count) else leaf, nest
    )


def _means(loss: Callable[..., Any], outputs: Any, target: Any, count: int) -> tuple[float, float]:
    """The loss of all samples, and the mean of the losses of each; the first one twice where the
    second cannot be had, or where chance has a part in it."""
    whole = float(loss(outputs, target))
    try:
        rows = [(_row(outputs, i, count), _row(target, i, count)) for i in range(count)]
        singles = [float(loss(*row)) for row in rows]
    except Exception:  # a loss that needs several samples; whether it is a mean is not known
        return whole, whole
    is_settled = float(loss(outputs, target)) == whole
    return whole, sum(singles) / count if is_settled else whole


def _is_torchs(loss: Any) -> bool:
    kind = loss if hasattr(loss, "__name__") else type(loss)
    return (kind.__module__ or "").startswith("torch.") or ignored_by(loss) is not None


def _is_compiled(module: torch.nn.Module) -> bool:
    return any(
        "_orig_mod" in part._modules or getattr(part, "_compiled_call_impl", None) is not None
        for part in module.modules()
    )

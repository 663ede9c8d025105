"""Trials on a few samples, before any work starts: what cannot go well is refused at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase

from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput, UserFunctionError
from phalanx.models.pytorch.batches import Batch, first_rows
from phalanx.models.pytorch.generators import undisturbed
from phalanx.models.pytorch.network import TorchSpec, differ, moved
from phalanx.models.pytorch.objective import Objective
from phalanx.models.pytorch.packing import unpacked
from phalanx.pure.arrays import Array
from phalanx.pure.plan import Plan

TRIAL_ROWS = 4


def first_rows_of(samples: Samples) -> Batch:
    """A few samples for the trial."""
    with undisturbed():
        return first_rows(samples, TRIAL_ROWS)


def changing_buffers(spec: TorchSpec, params: Sequence[torch.Tensor], batch: Batch) -> set[str]:
    """Names of the buffers that a forward pass changes, found by a trial on a copy."""
    with undisturbed():
        try:
            module, objective, _ = unpacked(spec.packed, [p.detach().clone() for p in params])
        except Exception as error:
            raise InvalidInput(
                "a module must be the same after it was pickled and loaded again; loading raised "
                f"{type(error).__name__}: {error}. Look at its __getstate__ and __reduce__."
            ) from error
        module.to(spec.settings.device)
        before = {name: b.clone() for name, b in module.named_buffers()}
        values = {name: p.detach().clone() for name, p in module.named_parameters()}
        try:
            with spec.settings.autocast():
                loss, _ = objective.of_batch(module, batch.content, batch.count)
            everything = list(module.parameters())
            torch.autograd.grad(loss, [everything[i] for i in spec.trained], allow_unused=True)
        except UserFunctionError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"the module and the loss must take the data; a trial with {batch.count} samples "
                f"raised {type(error).__name__}: {error}. Try loss(module(x[:4]), y[:4]) yourself."
            ) from error
        _check_unchanged(module, values)
        _call_with_others(module, objective, batch)
        after = dict(module.named_buffers())
        _check_shapes(before, after)
        changed = {name for name, b in after.items() if differ(b, before.get(name))}
        return changed | _statistics_of(module)


def _statistics_of(module: torch.nn.Module) -> set[str]:
    """Names of the running statistics of normalisations, which training changes although the first
    rows may leave them as they are: the mean of zeros is zero."""
    return {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if isinstance(part, _NormBase) and part.training and part.track_running_stats
        for name, _ in part.named_buffers(recurse=False)
    }


def check_one_row(
    spec: TorchSpec, params: Sequence[torch.Tensor], samples: Samples, plan: Plan
) -> None:
    """Raise InvalidInput where a shard of one row, which the plan has, is too small for the module:
    it would be told in the midst of an epoch."""
    with undisturbed():
        module, objective, _ = unpacked(spec.packed, [p.detach().clone() for p in params])
        device, batch = torch.device(spec.settings.device), first_rows(samples, 1)
        try:
            with spec.settings.autocast():
                objective.of_batch(module.to(device), moved(batch.content, device), 1)
        except UserFunctionError:
            raise
        except Exception as error:
            raise InvalidInput(
                "the module and the loss must take the rows of every shard; with "
                f"{plan.n_samples} samples, batch_size={plan.batch_size} and "
                f"shards={plan.n_shards} some shard has a single row, and a trial with one raised "
                f"{type(error).__name__}: {error}. Pass another batch_size=, fewer shards=, or as "
                "many samples as fill the batches."
            ) from error


def _call_with_others(module: torch.nn.Module, objective: Objective, batch: Batch) -> None:
    """Another pass, with other parameters: what a buffer follows may stand still with the first
    ones, as the power iterations of a spectral norm do once they have converged."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), suppress(Exception):  # the first ones are what must work
        for param in module.parameters():
            noise = torch.rand(param.shape, generator=generator, dtype=torch.float32)
            param.mul_((0.8 + 0.4 * noise).to(param))
        objective.of_batch(module, batch.content, batch.count)


def _check_unchanged(module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    for name, param in module.named_parameters():
        if differ(param.detach(), values[name]):
            raise InvalidInput(
                "a forward pass must leave the parameters as they are, since all workers share "
                f"them; it changed {name!r}. Change them by the optimizer, or by a parametrization "
                "in forward(); of an Embedding, leave out max_norm."
            )


def _check_shapes(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    for name, buffer in after.items():
        if name not in before or buffer.shape != before[name].shape:
            raise InvalidInput(
                "a buffer must keep its name and shape, so that those of shards can be put "
                f"together; a forward pass made {name!r} {tuple(buffer.shape)}. Register it with "
                "its full size."
            )


def tried(function: Callable[[Batch], Any], samples: Samples) -> Array:
    """What a pass gives for a few samples. Raises InvalidInput where it fails."""
    batch = first_rows_of(samples)
    with undisturbed():
        try:
            return np.asarray(function(batch))
        except UserFunctionError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"the module must take the data; a trial with {batch.count} samples raised "
                f"{type(error).__name__}: {error}. Try module(x[:4]) yourself."
            ) from error

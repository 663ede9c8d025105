"""Trials on a few samples, before any work starts: what cannot go well is refused at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput, UserFunctionError
from phalanx.models.pytorch.batches import Batch, first_rows
from phalanx.models.pytorch.generators import undisturbed
from phalanx.models.pytorch.network import TorchSpec, moved
from phalanx.models.pytorch.packing import unpacked
from phalanx.pure.arrays import Array
from phalanx.pure.plan import Plan

TRIAL_ROWS = 4


def first_rows_of(samples: Samples) -> Batch:
    """A few samples for the trial."""
    with undisturbed():
        return first_rows(samples, TRIAL_ROWS)


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


def tried(function: Callable[[Batch], Any], samples: Samples, is_input: bool = False) -> Array:
    """What a pass gives for a few samples. is_input: whether a sample is nothing but the module's
    input. Raises InvalidInput where it fails."""
    batch = first_rows_of(samples)
    with undisturbed():
        try:
            return np.asarray(function(batch))
        except UserFunctionError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"the module must take the data; a trial with {batch.count} samples raised "
                f"{type(error).__name__}: {error}. {_advice(batch.content if is_input else None)}"
            ) from error


def _advice(inputs: Any) -> str:
    if isinstance(inputs, (tuple, list)) and len(inputs) > 1:
        return (
            f"The data have {len(inputs)} parts, and the module is called with all of them; if "
            "some are targets, pass the inputs alone."
        )
    return "Try module(x[:4]) yourself."

"""Which models are to leave factors of their gradients (pure/factors.py), found by a trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from phalanx.models.pytorch.generators import undisturbed
from phalanx.models.pytorch.network import TorchSpec
from phalanx.models.pytorch.packing import unpacked
from phalanx.models.pytorch.parameters import parameters_of
from phalanx.models.pytorch.tracing import repeated
from phalanx.models.pytorch.uses import Factoring, Uses, factoring_of
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.arrays import Array
from phalanx.pure.factors import factors_pay, in_panels
from phalanx.pure.plan import Plan

FEWEST = 2**19  # parameters of which factors pay, measured with two workers and a shard for each
TRIAL_COUNTS = 3, 5  # rows: what has as many rows by chance has not both times


def factored(spec: TorchSpec, params: Sequence[torch.Tensor], plan: Plan) -> TorchSpec:
    """The description of a module that leaves factors; itself, where it has none, or they do not
    pay. Of modules and losses that are torch's own: others may do anything else in another step.
    """
    if not is_worth_a_trial(spec):
        return spec
    with undisturbed():
        # which values does not matter, and zeros that nobody looks at take neither time nor memory
        zeros = [torch.from_numpy(np.zeros(p.shape, spec.vector.dtype)) for p in params]
        module, objective, example = unpacked(spec.packed, zeros)
        if example is None:
            return spec
        everything = parameters_of(module)
        trained = [everything[i] for i in spec.trained]
        found = tried(
            lambda *tensors: objective.mean_loss(module, tensors),
            example, trained, spec.vector, plan,
        )  # fmt: skip
    made: TorchSpec = with_factors(spec, found)
    return made


def with_factors(spec: Any, found: Factoring | None) -> Any:
    """A description with what was found; itself, where that is nothing, or does not pay."""
    if found is None or not factors_pay(found.layout, spec.n_parameters, FEWEST):
        return spec
    return replace(spec, factoring=found, regions=in_panels(spec.regions, found.layout))


def is_worth_a_trial(spec: Any) -> bool:
    """Whether its vector is large and has nothing but parameters, of which an optimiser may update
    any part by itself."""
    has_buffers = spec.vector.size > spec.vector.starts[1]
    is_whole = any(region.is_whole for region in spec.regions)
    return spec.n_parameters >= FEWEST and not has_buffers and not is_whole


def tried(
    loss_of: Callable[..., torch.Tensor],
    example: Sequence[Array],
    params: Sequence[torch.Tensor],
    vector: Vector,
    plan: Plan,
) -> Factoring | None:
    """How the gradients of a loss `(tensors...) -> loss` are made of factors, if they are."""
    found: list[Any] = []
    for count in TRIAL_COUNTS:
        with Uses(params, count) as uses:
            loss = loss_of(*repeated(example, count))
        found.append(factoring_of(uses, loss, params, vector, plan.batch_size, plan.n_shards))
    return found[0] if found[0] == found[1] else None

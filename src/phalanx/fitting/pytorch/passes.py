"""Passes of a torch module over samples without gradients: predictions, and figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.fitting.pytorch.arguments import (
    check_module,
    objective_of,
    settings_of,
)
from phalanx.fitting.pytorch.data import samples_of
from phalanx.fitting.pytorch.trials import tried
from phalanx.fitting.wishes import n_workers
from phalanx.models.pytorch.network import TorchSpec
from phalanx.models.pytorch.objective import Objective
from phalanx.models.pytorch.packing import packed
from phalanx.models.pytorch.parameters import parameters_of
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.arrays import Array
from phalanx.pure.layout import Region
from phalanx.training.train import predict

SHARED = torch.float32, torch.float64


def predict_module(
    module: torch.nn.Module,
    data: Any,
    *,
    collate: Any = None,
    workers: Any = -1,
    precision: str = "float32",
    device: str = "cpu",
) -> Array:
    """See `phalanx.predict`."""
    count = n_workers(workers)
    spec, values_N, samples = _described(module, data, collate, precision, device, None)
    model = spec.build(values_N.copy())
    trial = tried(model.outputs, samples, is_input=True)
    return predict(spec, values_N, samples, count, trial.shape[1:], trial.dtype)


def evaluate_module(
    module: torch.nn.Module,
    data: Any,
    *,
    loss: Any = None,
    step: Any = None,
    metrics: Any = None,
    collate: Any = None,
    workers: Any = -1,
    precision: str = "float32",
    device: str = "cpu",
) -> dict[str, float]:
    """See `phalanx.evaluate`."""
    count, objective = n_workers(workers), objective_of(loss, step, metrics)
    spec, values_N, samples = _described(module, data, collate, precision, device, objective)
    trial = tried(spec.build(values_N.copy()).measures, samples)
    sums_VM = predict(spec, values_N, samples, count, trial.shape, np.dtype(np.float64), True)
    total, weight, n_samples, *others = sums_VM.sum(axis=0).tolist()
    figures = dict(zip(objective.metrics, others, strict=True))
    mean_loss = total / weight if weight else float("nan")
    return {"loss": mean_loss, **{name: sum_ / n_samples for name, sum_ in figures.items()}}


def _dtype_of(params: list[torch.nn.Parameter]) -> torch.dtype:
    """That of the parameters that workers share: of those that are trained, if there are such, and
    of such as NumPy computes with."""
    trained_first = sorted(params, key=lambda param: not param.requires_grad)
    dtypes = [param.dtype for param in trained_first if param.dtype in SHARED]
    return dtypes[0] if dtypes else torch.float32


def _described(
    module: torch.nn.Module,
    data: Any,
    collate: Any,
    precision: str,
    device: str,
    objective: Objective | None,
) -> tuple[TorchSpec, Array, Samples]:
    check_module(module)
    params = parameters_of(module)
    if not params:
        raise InvalidInput(
            f"a module must have parameters; {type(module).__name__} has none. Call it directly."
        )
    dtype = _dtype_of(params)
    places = tuple(i for i, p in enumerate(params) if p.dtype == dtype)
    shared = [params[i] for i in places]  # others travel with the module
    vector = Vector.of(shared, {}, dtype)
    spec = TorchSpec(
        packed(module, shared, objective, None),
        vector,
        (Region(0, vector.size),),
        sum(p.numel() for p in params),
        settings_of(precision, device),
        places,
    )
    values_N = np.zeros(vector.size, vector.dtype)
    with torch.no_grad():
        for view, param in zip(vector.param_views(values_N), shared, strict=True):
            view.copy_(param)
    return spec, values_N, samples_of(data, collate, dtype)

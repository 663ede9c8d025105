"""From a user's module and optimiser to their descriptions, and back with what was learnt."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch

from phalanx.errors import InvalidInput
from phalanx.models.pytorch import byvalue
from phalanx.models.pytorch.fused_trial import is_direct
from phalanx.models.pytorch.hidden import counts_of
from phalanx.models.pytorch.optimizers import (
    BEGUN,
    FUSED,
    LARGEST_BLOCK,
    NOT_KEPT,
    TorchOptimizer,
    bare,
    has_row,
    settings_of,
    state_after_a_step,
    state_shapes,
    trial_step,
)
from phalanx.models.pytorch.parameters import parameters_of
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.arrays import Array
from phalanx.pure.layout import Region, blocks_of

_optim = torch.optim
ELEMENT_WISE = (
    *FUSED, _optim.RMSprop, _optim.NAdam, _optim.RAdam, _optim.Adamax, _optim.Adadelta,
    _optim.ASGD, _optim.Rprop,
)  # fmt: skip
INEXACT = {
    "LBFGS": "evaluates the loss of the whole batch as often as it likes within a step",
    "SparseAdam": "needs sparse gradients, which are not added coordinate by coordinate",
}
Scalars = tuple[tuple[str, str], ...]


class Described:
    """An optimiser over a module: which parameters it has, and how its state is laid out."""

    def __init__(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        check_optimizer(optimizer)
        self.live = optimizer
        everything = parameters_of(module)
        groups = {
            id(p): g for g, group in enumerate(optimizer.param_groups) for p in group["params"]
        }
        foreign = set(groups) - set(map(id, everything))
        if foreign:
            raise InvalidInput(
                f"the optimizer must be over parameters of the module; {len(foreign)} of its "
                f"{len(groups)} are others. Create it from this module's parameters(); a loss "
                "with parameters of its own can be a part of the module, with step= instead of "
                "loss=."
            )
        self.trained = tuple(
            i for i, p in enumerate(everything) if id(p) in groups and p.requires_grad
        )
        self.params = [everything[i] for i in self.trained]
        if not self.params:
            raise InvalidInput(
                "there must be parameters to train; the optimizer has none that requires a "
                "gradient. Pass module.parameters() to it, and unfreeze some."
            )
        self.groups = [groups[id(p)] for p in self.params]
        self.is_whole = type(optimizer) not in ELEMENT_WISE
        self.counts = counts_of(optimizer) if self.is_whole else ()
        if self.is_whole:
            check_separable(optimizer)
        self.described = self._describe()

    def _describe(self) -> TorchOptimizer:
        groups = self._own_groups()
        attributes = {k: v for k, v in self.live.__dict__.items() if k not in NOT_KEPT}
        slots, scalars = self._probe(groups, attributes)
        settings = settings_of(groups[0])
        settings = tuple(
            (name, place)
            for name, place in settings
            if name not in self.counts and all((name, place) in settings_of(g) for g in groups)
        )
        return TorchOptimizer(
            byvalue.dumps((type(self.live), attributes, groups)),
            slots,
            scalars,
            settings,
            len(groups),
            None,
            type(self.live).__name__,
            is_direct(self.live, groups, slots, scalars),
            self.counts,
        )

    def _own_groups(self) -> list[dict[str, Any]]:
        """The parameter groups without parameters; with torch's fused kernel if there is one."""
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.live.param_groups
        ]
        if type(self.live) in FUSED and not any(group.get("differentiable") for group in groups):
            return [{**group, "fused": True, "foreach": False} for group in groups]
        return groups

    def _probe(
        self, groups: list[dict[str, Any]], attributes: dict[str, Any]
    ) -> tuple[tuple[str, ...], Scalars]:
        """Names of the rows and of the scalars of the optimiser's state, found by trying."""
        rows: dict[str, None] = {}
        scalars: dict[str, str] = {}
        for group, shape in self._cases():
            optimizer = bare(type(self.live), attributes, [groups[group]])
            for name, value in state_after_a_step(optimizer, groups[group], shape).items():
                if has_row(value):
                    if shape is not None:
                        _check_fits(name, value, shape, type(self.live).__name__)
                    rows[name] = None
                elif value is not None:
                    scalars[name] = scalar_type(name, value, type(self.live).__name__)
        return tuple(rows), tuple((n, t) for n, t in scalars.items() if n not in rows)

    def _cases(self) -> set[tuple[int, tuple[int, ...] | None]]:
        if not self.is_whole:
            return {(group, None) for group in self.groups}
        return {(g, tuple(p.shape)) for g, p in zip(self.groups, self.params, strict=True)}

    def regions(self, vector: Vector) -> tuple[Region, ...]:
        """What the optimiser treats alike, and the buffers."""
        scalars = map(self._scalars_of, self.groups, self.params)
        keys = list(zip(self.groups, scalars, strict=True))
        return vector.regions(keys, self.groups, self.is_whole)

    def shaped(self, vector: Vector) -> TorchOptimizer:
        """The description, with the shapes where blocks are whole parameters."""
        return replace(self.described, shapes=dict(vector.params) if self.is_whole else None)

    def _scalars_of(self, g: int, param: torch.Tensor) -> tuple[float, ...]:
        """What the live optimiser has beside the rows: (begun, scalar ..., count ...)."""
        state, group = self.live.state.get(param), self.live.param_groups[g]
        if not state:
            return (0.0,) * self.described.n_scalars
        scalars = (float(state.get(name) or 0.0) for name, _ in self.described.scalars)
        return 1.0, *scalars, *(float(group.get(name, 0)) for name in self.counts)

    def start(self, vector: Vector, regions: tuple[Region, ...]) -> tuple[Array, Array]:
        """State [M, N] and scalars [K, C] to begin with: the optimiser may have trained before."""
        blocks = blocks_of(regions, LARGEST_BLOCK)
        state_MN = np.zeros((len(self.described.slots), vector.size), vector.dtype)
        scalars_KC = np.zeros((len(blocks), self.described.n_scalars))
        for g, param, (start, _) in zip(self.groups, self.params, vector.params, strict=True):
            scalars = self._scalars_of(g, param)
            for k in blocks_within(blocks, start, param.numel()):
                scalars_KC[k] = scalars
            for m, name in enumerate(self.described.slots):
                value = self.live.state.get(param, {}).get(name)
                if isinstance(value, torch.Tensor):
                    flat = value.detach().cpu().reshape(-1).numpy()
                    state_MN[m, start : start + len(flat)] = flat
        return state_MN, scalars_KC

    def take(
        self, vector: Vector, regions: tuple[Region, ...], state_MN: Array, scalars_KC: Array
    ) -> None:
        """Give the live optimiser the state that the training has reached."""
        blocks = blocks_of(regions, LARGEST_BLOCK)
        shapes: dict[Any, dict[str, tuple[int, ...]]] = {}
        for g, param, (start, shape) in zip(self.groups, self.params, vector.params, strict=True):
            scalars_C = scalars_KC[blocks_within(blocks, start, param.numel())[0]]
            if not scalars_C[BEGUN]:
                continue
            if shape not in shapes:
                group = self.live.param_groups[g]
                shapes[shape] = (
                    state_shapes(self.live, group, shape)
                    if self.is_whole
                    else dict.fromkeys(self.described.slots, shape)
                )
            state: dict[str, Any] = {}
            for m, name in enumerate(self.described.slots):
                if name in shapes[shape]:
                    own = shapes[shape][name]
                    flat = state_MN[m, start : start + prod(own)]
                    state[name] = torch.from_numpy(flat.copy()).reshape(own).to(param.device)
            numbers, counted = self.described.parted(scalars_C)
            self.live.param_groups[g] |= counted
            for (name, kind), number in zip(self.described.scalars, numbers, strict=True):
                dtype = getattr(torch, kind, None)
                is_tensor = isinstance(dtype, torch.dtype) and kind not in ("int", "float", "bool")
                plain = {"int": int, "bool": bool}.get(kind, float)(number)
                state[name] = torch.tensor(plain, dtype=dtype) if is_tensor else plain
            if state:
                self.live.state[param].update(state)


def blocks_within(blocks: list[Region], start: int, count: int) -> list[int]:
    """Which blocks hold some of the elements start..start + count."""
    stop = start + max(count, 1)
    return [k for k, block in enumerate(blocks) if block.start < stop and block.stop > start]


def scalar_type(name: str, value: Any, optimizer: str) -> str:
    """How a state that is a number is kept. Raises InvalidInput for what is none."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch.")
    if isinstance(value, (bool, int, float)):
        return type(value).__name__
    raise InvalidInput(
        f"an optimizer's state must be tensors and numbers, so that it can be shared; "
        f"{optimizer} keeps a {type(value).__name__} as {name!r}. Use one of torch.optim."
    )


def _check_fits(name: str, value: torch.Tensor, shape: tuple[int, ...], optimizer: str) -> None:
    if value.numel() > prod(shape):
        raise InvalidInput(
            "a tensor of an optimizer's state must have no more elements than its parameter, since "
            f"it lies beside it; {optimizer} keeps {name!r} of shape {tuple(value.shape)} for one "
            f"of shape {shape}. Divide it into several tensors, each under a name of its own."
        )


def check_optimizer(optimizer: Any) -> None:
    """Raise InvalidInput for what is no optimiser that can be distributed exactly."""
    if isinstance(optimizer, (list, tuple)):
        raise InvalidInput(
            f"a module is trained by one optimizer; got a {type(optimizer).__name__} of "
            f"{len(optimizer)}. Make one, with a group of parameters for each, over one module "
            "that holds all parts (torch.nn.ModuleDict)."
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidInput(
            "optimizer must be a torch.optim.Optimizer over the module's parameters, a name such "
            "as 'adam', or a function from parameters to an optimizer; got "
            f"{type(optimizer).__name__}. Pass e.g. torch.optim.Adam(module.parameters(), lr=1e-3)."
        )
    hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    if any(getattr(optimizer, name, None) for name in hooks):
        raise InvalidInput(
            "an optimizer must update each block by its gradient alone; this "
            f"{type(optimizer).__name__} has hooks on its steps, which would see single blocks. "
            "Remove them; clip_norm=, clip_value= and callbacks= do what most of them are for."
        )
    for kind, reason in INEXACT.items():
        if isinstance(optimizer, getattr(torch.optim, kind)):
            raise InvalidInput(
                f"an optimizer must update each block from its own gradient; {kind} {reason}. "
                "Use e.g. torch.optim.Adam, or phalanx.MLPClassifier(solver='lbfgs')."
            )


def check_separable(optimizer: torch.optim.Optimizer) -> None:
    """Raise InvalidInput for an optimiser that mixes parameters, found by trying two of them
    together and apart."""
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    shape = next((tuple(p.shape) for g in optimizer.param_groups for p in g["params"]), (4, 4))
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for _ in range(2)]
    grads = [torch.randn(shape, generator=generator) * 10**i for i in range(2)]

    def stepped(which: list[int]) -> list[torch.Tensor]:
        params = [torch.nn.Parameter(starts[i].clone(), requires_grad=False) for i in which]
        attributes = {k: v for k, v in optimizer.__dict__.items() if k not in NOT_KEPT}
        trial = bare(type(optimizer), attributes, [{**group, "params": params}])
        for _ in range(2):
            for param, i in zip(params, which, strict=True):
                param.grad = grads[i].clone()
            trial_step(trial)
        return list(params)

    together, apart = stepped([0, 1]), stepped([0]) + stepped([1])
    if not all(
        torch.allclose(a, b, rtol=1e-4, equal_nan=True)
        for a, b in zip(together, apart, strict=True)
    ):
        raise InvalidInput(
            f"an optimizer must update each parameter from its own gradient and state; "
            f"{type(optimizer).__name__} gives another result for two parameters together than "
            "apart. Use one of torch.optim, and clip_norm= for clipping."
        )

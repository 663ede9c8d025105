"""A user's Keras optimiser as the engine takes it, and its state put back into it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch

from phalanx import references
from phalanx.errors import InvalidInput
from phalanx.fitting.keras3.alike import check_optimizer
from phalanx.fitting.keras3.arrays import assign, glance_at, numpy_of
from phalanx.models.keras3.configs import completed
from phalanx.models.keras3.optimizers import (
    ELEMENT_WISE,
    LARGEST_BLOCK,
    RATE,
    KerasOptimizer,
    OptimizerKind,
    is_own,
    scalar_names,
    slot_names,
)
from phalanx.models.pytorch.describing import blocks_within
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.arrays import Array
from phalanx.pure.layout import Region, blocks_of

ANY_SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.001, 1, 1.0)


class DescribedOptimizer:
    """live: the user's own. described: how workers are to update. is_whole: whether each variable
    is one block. groups: of each variable, whether the decay of weights passes it by."""

    def __init__(self, optimizer: Any, variables: list[Any], vector: Vector) -> None:
        self.live, self.variables, self.vector = optimizer, variables, vector
        self._build()
        self.is_whole = (
            not is_own(optimizer)
            or type(optimizer).__name__ not in ELEMENT_WISE
            or optimizer.clipnorm is not None
            or any(v.constraint is not None for v in variables)
        )
        self.groups = [int(not self._decays(v)) for v in variables]
        self.described = KerasOptimizer(
            self._packed(),
            slot_names(optimizer, len(variables)),
            scalar_names(optimizer),
            2,
            dict(vector.params) if self.is_whole else None,
            type(optimizer).__name__,
        )

    def regions(self) -> tuple[Region, ...]:
        """What is treated alike."""
        return self.vector.regions(self.groups, self.groups, self.is_whole)

    def _build(self) -> None:
        """Raises InvalidInput where it is not one of the model's weights as they are."""
        optimizer = self.live
        try:
            optimizer.build(self.variables)
        except Exception as error:
            raise InvalidInput(
                f"the optimizer must fit the model's trainable weights; {error} Compile the model "
                "again after a change of what is trainable."
            ) from error
        if [id(v) for v in optimizer._trainable_variables] != [id(v) for v in self.variables]:
            raise InvalidInput(
                "the optimizer must be of the model's trainable weights; it has "
                f"{len(optimizer._trainable_variables)}, the model {len(self.variables)}. Compile "
                "the model again after a change of what is trainable."
            )

    def _packed(self) -> bytes:
        """What a worker makes it from, without what the engine does: rates and clipping."""
        config = {**_untracked(self._config()), "learning_rate": 0.001}
        config |= {"clipvalue": None, "global_clipnorm": None}
        starts = [start for start, _ in self.vector.params]
        paths = {start: v.path for start, v in zip(starts, self.variables, strict=True)}
        constraints = {
            start: v.constraint
            for start, v in zip(starts, self.variables, strict=True)
            if v.constraint is not None
        }
        kind = OptimizerKind.of(self.live)
        if kind.kind is not None:
            self._check_alike(kind, config)
        packed: bytes = references.dumps((kind, config, constraints, paths))
        return packed

    def _config(self) -> dict[str, Any]:
        """Raises InvalidInput where it has none."""
        try:
            config = config_of(self.live)
        except Exception as error:
            raise InvalidInput(
                "an optimizer must say what it was made with, so that workers can have their own; "
                f"{type(self.live).__name__} does not ({type(error).__name__}: {error}). Implement "
                "get_config()."
            ) from error
        return config if is_own(self.live) else completed(config, self.live)

    def _check_alike(self, kind: OptimizerKind, config: dict[str, Any]) -> None:
        """Raise InvalidInput where workers could not have the user's, or would have another."""
        try:
            copy = kind.from_config(dict(config))
        except Exception as error:
            raise InvalidInput(
                "an optimizer must be such that workers can create it from its config; "
                f"{kind.name} cannot be ({type(error).__name__}: {error}). Implement get_config()."
            ) from error
        check_optimizer(copy, self.live)

    def _decays(self, variable: Any) -> bool:
        optimizer = self.live
        return optimizer.weight_decay is None or bool(optimizer._use_weight_decay(variable))

    def start(self, regions: tuple[Region, ...]) -> tuple[Array, Array | None]:
        """State [M, N] and scalars [K, C] to begin with: the optimiser may have trained before."""
        blocks = blocks_of(regions, LARGEST_BLOCK)
        state_MN = np.zeros((len(self.described.slots), self.vector.size), self.vector.dtype)
        for (start, _), m, slot in self._slots():
            flat = glance_at(slot).reshape(-1)
            if flat.any():  # zeros that nobody writes take no memory
                state_MN[m, start : start + len(flat)] = flat
        scalars_C = [float(numpy_of(getattr(self.live, name))) for name in self.described.scalars]
        return state_MN, np.tile(scalars_C, (len(blocks), 1)) if scalars_C else None

    def take(self, regions: tuple[Region, ...], state_MN: Array, scalars_KC: Array) -> None:
        """Give the live optimiser the state that the training has reached."""
        for (start, _), m, slot in self._slots():
            size = int(np.prod(slot.shape))
            row_n = torch.from_numpy(state_MN[m, start : start + size])
            assign(slot, row_n.reshape(tuple(slot.shape)))
        blocks = blocks_of(regions, LARGEST_BLOCK)
        first = blocks_within(blocks, *self._first_place())[0]
        for name, number in zip(self.described.scalars, scalars_KC[first].tolist(), strict=True):
            variable = getattr(self.live, name)
            variable.assign(
                np.asarray(number).astype(keras.backend.standardize_dtype(variable.dtype))
            )

    def _first_place(self) -> tuple[int, int]:
        start, shape = self.vector.params[0]
        return start, int(np.prod(shape))

    def _slots(self) -> list[tuple[Any, int, Any]]:
        """(place of a variable, row, slot variable) of all of the live optimiser's."""
        live = self.live
        return [
            (piece, m, slot)
            for m, name in enumerate(self.described.slots)
            for piece, slot in zip(self.vector.params, getattr(live, name), strict=True)
            if slot is not None
        ]


def _untracked(nest: Any) -> Any:
    """A nest without the lists and dicts of Keras that cannot be pickled."""
    if isinstance(nest, dict):
        return {key: _untracked(part) for key, part in nest.items()}
    if isinstance(nest, (list, tuple)):
        parts = [_untracked(part) for part in nest]
        return tuple(parts) if isinstance(nest, tuple) else parts
    return nest


def config_of(optimizer: Any) -> dict[str, Any]:
    """An optimiser's config but for a schedule, which need not be serialisable: rates come from
    the user's process."""
    held, rate = vars(optimizer), optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        held[RATE] = ANY_SCHEDULE
    try:
        config: dict[str, Any] = optimizer.get_config()
    finally:
        held[RATE] = rate
    return config

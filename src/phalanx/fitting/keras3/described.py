"""A user's Keras model as the engine takes it, and what was learnt put back into it.

Whatever backend the user's process has: only its own variables are read and assigned here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import torch

from phalanx import references
from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.fitting.keras3.alike import check_alike
from phalanx.fitting.keras3.arrays import (
    as_numpy,
    assign,
    dtype_of,
    empty_like,
    glance_at,
    numpy_of,
)
from phalanx.fitting.keras3.carried import carried, check_kept
from phalanx.fitting.keras3.optimizer import DescribedOptimizer
from phalanx.fitting.keras3.trial import Trial
from phalanx.fitting.pytorch.arguments import settings_of
from phalanx.models.keras3.blueprint import Blueprint, compiled_of, config_of, custom_of
from phalanx.models.keras3.configs import restored
from phalanx.models.keras3.generators import undisturbed
from phalanx.models.keras3.network import KerasSpec
from phalanx.models.pytorch.generators import seed_everything
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.arrays import Array
from phalanx.pure.layout import Region
from phalanx.training.state import State

ELSEWHERE = 7_182_818  # seeds what a copy draws: the user's seed could draw the user's numbers


class DescribedModel:
    """model: the user's own. trial: of it on the first few samples. spec: what workers build.
    is_custom: whether it is made of classes and functions of the user's, too.
    optimizer: the user's, described, where the model is to be trained; is_local: in rounds, of
    which the user's optimiser has no state to keep."""

    optimizer: DescribedOptimizer

    def __init__(
        self,
        model: Any,
        samples: Samples,
        is_trained: bool = True,
        is_measured: bool = True,
        is_local: bool = False,
    ) -> None:
        self.model, self.is_trained, self.is_local = model, is_trained, is_local
        self.trial = Trial(model, samples, is_trained, is_measured)
        self.live = list(model.trainable_variables)
        if not self.live and is_trained:
            raise InvalidInput(
                "a model must have weights to train; all of this one's are frozen. Set trainable = "
                "True on some layers and compile it again."
            )
        changing = {i: model.weights[i] for i in self.trial.changing}
        self.vector = Vector.of(
            [empty_like(v) for v in self.live],
            {str(i): empty_like(weight) for i, weight in changing.items()},
            dtype_of(self.live) if self.live else torch.float32,
        )
        regions: tuple[Region, ...] = (Region(0, self.vector.size),)
        if is_trained:
            self.optimizer = DescribedOptimizer(model.optimizer, self.live, self.vector)
            regions = self.optimizer.regions()
        self.spec = self._spec(regions)

    def _spec(self, regions: tuple[Region, ...]) -> KerasSpec:
        trial = self.trial
        variables = self.live if self.is_trained else self.model.weights
        n_measures = sum(int(np.prod(v.shape)) for v in trial.metric_variables)
        blueprint = self._blueprint()
        self.is_custom = bool(blueprint.custom)
        return KerasSpec(
            self._packed(blueprint),
            self.vector,
            regions,
            sum(int(np.prod(variable.shape)) for variable in variables),
            trial.changing,
            n_measures if trial.is_measured else 0,
            keras.backend.backend() != "torch",
            settings_of("float32", "cpu"),
        )

    def _blueprint(self) -> Blueprint:
        """What a worker creates the model from."""
        model, trial = self.model, self.trial
        kept = {id(weight) for weight in self.constants}
        constants = {i: numpy_of(w) for i, w in enumerate(model.weights) if id(w) in kept}
        layers = model._flatten_layers()
        return Blueprint(
            config_of(model),
            custom_of(model),
            compiled_of(model) if trial.is_measured else {},
            as_numpy(trial.content),
            tuple(layer.trainable for layer in layers),
            tuple(weight.trainable for weight in model.weights),
            tuple(getattr(layer, "use_cudnn", None) for layer in layers),
            constants,
            keras.config.floatx(),
            keras.config.dtype_policy().name,
            keras.config.image_data_format(),
            keras.config.epsilon(),
            _output_names(model),
        )

    @property
    def constants(self) -> list[Any]:
        """The weights that training does not change."""
        weights, changing = self.model.weights, self.trial.changing
        shared = {id(v) for v in self.live} | {id(weights[i]) for i in changing}
        return [weight for weight in weights if id(weight) not in shared]

    def _packed(self, blueprint: Blueprint) -> bytes:
        """Raises InvalidInput where a worker could not create the model, or another one."""
        try:
            if blueprint.custom:
                blueprint = self._completed(blueprint)
            else:
                restored(blueprint.compiled, {})  # which may hold a function of another library
            packed: bytes = references.dumps(blueprint)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(
                "a model's own classes and functions must be such that a worker can create them "
                f"anew; one of {', '.join(blueprint.custom) or 'them'} cannot be "
                f"({type(error).__name__}: {error}). Implement get_config() in classes that take "
                "arguments, as for model.save(), and create inside what cannot be pickled."
            ) from error
        return packed

    def _completed(self, blueprint: Blueprint) -> Blueprint:
        """With what the model would lack. Raises InvalidInput where it would be another one."""
        with undisturbed():
            seed_everything(ELSEWHERE)
            copy = blueprint.build()
            if found := carried(copy, self.model):
                blueprint = replace(blueprint, carried=found)
                copy = blueprint.build()
            if self.trial.is_measured:
                check_kept(copy, self.model)
            check_alike(copy, self.model)
        return blueprint

    # to and from the flat vector

    def values(self) -> Array:
        """Parameters and running statistics as one vector [N]."""
        values_N = np.zeros(self.vector.size, self.vector.dtype)
        for variable, view in self._pairs(values_N):
            view.numpy()[...] = glance_at(variable)
        return values_N

    def show(self, values_N: Array) -> None:
        """Take them from the vector."""
        for variable, view in self._pairs(values_N):
            assign(variable, view)

    def _pairs(self, values_N: Array) -> list[tuple[Any, torch.Tensor]]:
        dtypes = {
            name: getattr(torch, keras.backend.standardize_dtype(w.dtype))
            for name, w in zip(
                (*self.vector.averaged, *self.vector.copied), self._changing_in_order, strict=True
            )
        }
        buffers = self.vector.buffer_views(values_N, dtypes)
        variables = [*self.live, *self._changing_in_order]
        return list(
            zip(variables, [*self.vector.param_views(values_N), *buffers.values()], strict=True)
        )

    @property
    def _changing_in_order(self) -> list[Any]:
        weights = self.model.weights
        return [weights[int(name)] for name in (*self.vector.averaged, *self.vector.copied)]

    def start(self) -> State:
        """Where training begins."""
        if self.is_local:
            return State(self.values(), np.zeros((1, self.vector.size), self.vector.dtype))
        state_MN, scalars_KC = self.optimizer.start(self.spec.regions)
        return State(self.values(), state_MN, scalars_KC=scalars_KC)

    def take(self, values_N: Array, state_MN: Array, scalars_KC: Array) -> None:
        """Give the user's model and optimiser what the training has reached."""
        self.show(values_N)
        if not self.is_local:
            self.optimizer.take(self.spec.regions, state_MN, scalars_KC)


def _output_names(model: Any) -> tuple[str, ...] | None:
    """Of a functional model, which names its outputs by the layers that make them."""
    names = vars(model).get("output_names")
    return tuple(names) if names else None

"""A user's Keras model as the engine takes it, and what was learnt put back into it.

Whatever backend the user's process has: only its own variables are read and assigned here.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import cloudpickle
import keras
import numpy as np
import torch

from phalanx.arrays import Array
from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.layout import Kind, Region, blocks_of
from phalanx.models.keras3.blueprint import Blueprint, compiled_of, config_of, custom_of
from phalanx.models.keras3.network import KerasSpec, seed_states, unpacked
from phalanx.models.keras3.optimizers import (
    ELEMENT_WISE,
    LARGEST_BLOCK,
    KerasOptimizer,
    OptimizerKind,
    is_own,
    scalar_names,
    slot_names,
)
from phalanx.models.pytorch.batches import first_rows
from phalanx.models.pytorch.describing import blocks_within
from phalanx.models.pytorch.generators import undisturbed
from phalanx.models.pytorch.vector import Vector
from phalanx.state import State

TRIAL_ROWS = 4
PLAIN = (bool, int, float, str)
OWN = (
    "name", "built", "compiled", "loss", "training", "stop_training", "jit_compile", "run_eagerly",
    "steps_per_execution", "seed",
)  # fmt: skip


class DescribedModel:
    """model: the user's own. spec, optimizer: its descriptions. predicted: what it gave for the
    first few samples."""

    optimizer: KerasOptimizer

    def __init__(
        self, model: Any, samples: Samples, is_trained: bool = True, is_measured: bool = True
    ) -> None:
        self.model, self.is_trained, self.is_measured = model, is_trained, is_measured
        with undisturbed():
            content = as_numpy(first_rows(samples, TRIAL_ROWS).content)
        self.x, self.y, self.weight = unpacked(as_tensors(content))
        changing = self._try()
        self.live = list(model.trainable_variables)
        if not self.live and is_trained:
            raise InvalidInput(
                "a model must have weights to train; all of this one's are frozen. Set trainable = "
                "True on some layers and compile it again."
            )
        self.changing = [w for i, w in enumerate(model.weights) if i in changing]
        self.vector = Vector.of(
            [_empty(v) for v in self.live],
            {str(i): _empty(w) for i, w in zip(changing, self.changing, strict=True)},
            _dtype_of(self.live) if self.live else torch.float32,
        )
        whole = (Region(0, self.vector.size),)
        regions = self._describe_optimizer() if is_trained else whole
        self.spec = self._spec(changing, regions)

    def _try(self) -> tuple[int, ...]:
        """Call the model on a few samples, which builds it; places of the weights that a call in
        training changes. Nothing else is changed. Raises InvalidInput where it fails."""
        model = self.model
        try:
            if not model.built:
                model(self.x)
            before = [_numpy(weight) for weight in model.weights]
            seeds = [_numpy(state) for state in seed_states(model)]
            self.predicted = self._call(self.x, training=False)
            if self.is_trained:
                self._call(self.x, training=True)
            after = [_numpy(weight) for weight in model.weights]
            if self.is_measured:
                self._build_metrics()
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(
                f"the model and its loss must take the data; a trial with {TRIAL_ROWS} samples "
                f"raised {type(error).__name__}: {error}. Compare the shapes of x and y with the "
                "model's inputs and outputs (model.summary())."
            ) from error
        for weight, value in zip(model.weights, before, strict=True):
            weight.assign(value)
        for state, value in zip(seed_states(model), seeds, strict=True):
            state.assign(value)
        trained = {id(v) for v in model.trainable_variables}
        return tuple(
            i
            for i, (b, a) in enumerate(zip(before, after, strict=True))
            if not np.array_equal(b, a) and id(model.weights[i]) not in trained
        )

    def _call(self, x: Any, training: bool) -> Any:
        with torch.no_grad():
            if self.model._call_has_training_arg:
                return self.model(x, training=training)
            return self.model(x)

    def _build_metrics(self) -> None:
        """Build loss and metrics, and see that the metrics are sums over samples."""
        with torch.no_grad(), np.errstate(all="ignore"):
            loss = self.model._compute_loss(
                x=self.x, y=self.y, y_pred=self.predicted, sample_weight=self.weight, training=False
            )
            self._check_reductions()
            _check_loss(loss)
            whole = self._measured(slice(None))
            count = len(keras.tree.flatten(self.x)[0])
            parts = [self._measured(slice(0, count // 2)), self._measured(slice(count // 2, count))]
        self.model.reset_metrics()
        if count > 1 and not np.allclose(sum(parts), whole, rtol=1e-3, atol=1e-4, equal_nan=True):
            parts_of = [getattr(metric, "metrics", [metric]) for metric in self.metrics]
            names = ", ".join(metric.name for several in parts_of for metric in several)
            raise InvalidInput(
                "a metric's state must be sums over samples, so that those of shards can be added; "
                f"one of {names} is not. Use metrics of Keras, or compute it from predictions."
            )

    def check_fits(self, samples: Samples) -> None:
        """Raise InvalidInput where model and loss do not take samples that are to be judged."""
        with undisturbed():
            content = as_numpy(first_rows(samples, TRIAL_ROWS).content)
        x, y, weight = unpacked(as_tensors(content))
        try:
            with torch.no_grad(), np.errstate(all="ignore"):
                predicted = self._call(x, training=False)
                self.model._compute_loss(
                    x=x, y=y, y_pred=predicted, sample_weight=weight, training=False
                )
                self.model.compute_metrics(x, y, predicted, sample_weight=weight)
        except Exception as error:
            raise InvalidInput(
                "the model, its loss and its metrics must take the validation data; a trial with "
                f"{TRIAL_ROWS} samples raised {type(error).__name__}: {error}. Compare its shapes "
                "with those of the training data."
            ) from error
        finally:
            self.model.reset_metrics()

    def _check_reductions(self) -> None:
        weighted = ("mean_with_sample_weight",) if self.weight is not None else ()
        for name in ("sum", "none", *weighted):
            for loss in keras.tree.flatten(self.model._compile_config.config.get("loss")):
                if getattr(loss, "reduction", None) == name:
                    raise InvalidInput(
                        "a loss must be the mean over the samples, so that shards of any size add "
                        f"up to the batch; got {loss.name} with reduction={name!r}. Use "
                        "reduction='sum_over_batch_size'."
                    )

    def _measured(self, rows: slice) -> Array:
        """The variables of the metrics after some of the first samples."""
        x, y, weight, predicted = (
            None if part is None else keras.tree.map_structure(lambda a: a[rows], part)
            for part in (self.x, self.y, self.weight, self.predicted)
        )
        self.model.reset_metrics()
        self.model._compute_loss(
            x=x, y=y, y_pred=predicted, sample_weight=weight, training=False
        )  # which also notes the loss of each output
        self.model.compute_metrics(x, y, predicted, sample_weight=weight)
        values = [_numpy(v).reshape(-1) for v in self.metric_variables]
        return np.concatenate(values) if values else np.zeros(0)

    @property
    def metrics(self) -> list[Any]:
        """All metrics but the loss."""
        return [m for m in self.model.metrics if m is not self.model._loss_tracker]

    @property
    def metric_variables(self) -> list[Any]:
        return [variable for metric in self.metrics for variable in metric.variables]

    def figures(self, loss: float, measures: list[float]) -> dict[str, Any]:
        """The loss and the metrics by name, from the sums that the workers made."""
        model = self.model
        model.reset_metrics()
        place = 0
        for variable in self.metric_variables:
            size = int(np.prod(variable.shape))
            variable.assign(np.reshape(measures[place : place + size], variable.shape))
            place += size
        model._loss_tracker.update_state(loss)
        results = model.get_metrics_result()
        figures = {
            name: float(_numpy(value)) if np.size(_numpy(value)) == 1 else _numpy(value)
            for name, value in results.items()
        }
        model.reset_metrics()
        return {**figures, "loss": loss}

    def _describe_optimizer(self) -> tuple[Region, ...]:
        optimizer = self.model.optimizer
        try:
            optimizer.build(self.live)
        except Exception as error:
            raise InvalidInput(
                f"the optimizer must fit the model's trainable weights; {error} Compile the model "
                "again after a change of what is trainable."
            ) from error
        if [id(v) for v in optimizer._trainable_variables] != [id(v) for v in self.live]:
            raise InvalidInput(
                "the optimizer must be of the model's trainable weights; it has "
                f"{len(optimizer._trainable_variables)}, the model {len(self.live)}. Compile the "
                "model again after a change of what is trainable."
            )
        is_whole = (
            not is_own(optimizer)
            or type(optimizer).__name__ not in ELEMENT_WISE
            or optimizer.clipnorm is not None
            or any(v.constraint is not None for v in self.live)
        )
        self.is_whole = is_whole
        self.groups = [int(not self._decays(v)) for v in self.live]
        config = {**_untracked(optimizer.get_config()), "learning_rate": 0.001}
        config |= {"clipvalue": None, "global_clipnorm": None}
        paths = {start: v.path for v, (start, _) in zip(self.live, self.vector.params, strict=True)}
        constraints = {
            start: keras.saving.serialize_keras_object(v.constraint)
            for v, (start, _) in zip(self.live, self.vector.params, strict=True)
            if v.constraint is not None
        }
        packed = cloudpickle.dumps((OptimizerKind.of(optimizer), config, constraints, paths))
        self.optimizer = KerasOptimizer(
            packed,
            slot_names(optimizer, len(self.live)),
            scalar_names(optimizer),
            2,
            dict(self.vector.params) if is_whole else None,
            type(optimizer).__name__,
        )
        return self._regions()

    def _decays(self, variable: Any) -> bool:
        optimizer = self.model.optimizer
        return optimizer.weight_decay is None or bool(optimizer._use_weight_decay(variable))

    def _regions(self) -> tuple[Region, ...]:
        vector = self.vector
        starts = [start for start, _ in vector.params]
        ends = [*starts[1:], vector.starts[1]]
        keys = [(g, i if self.is_whole else 0) for i, g in enumerate(self.groups)]
        found = []
        for _, places in groupby(range(len(starts)), key=lambda i: keys[i]):
            run = list(places)
            size = int(np.prod(self.live[run[0]].shape))
            stop = starts[run[0]] + size if self.is_whole else ends[run[-1]]
            found.append(
                Region(starts[run[0]], stop, Kind.TRAINED, self.groups[run[0]], self.is_whole)
            )
        _, *rest = vector.starts
        for kind, start, stop in zip((Kind.AVERAGED, Kind.COPIED), rest, rest[1:], strict=False):
            if stop > start:
                found.append(Region(start, stop, kind))
        return tuple(found)

    def _spec(self, changing: tuple[int, ...], regions: tuple[Region, ...]) -> KerasSpec:
        model = self.model
        shared = {id(v) for v in [*self.live, *self.changing]}
        constants = {i: _numpy(w) for i, w in enumerate(model.weights) if id(w) not in shared}
        blueprint = Blueprint(
            config_of(model),
            custom_of(model),
            compiled_of(model) if self.is_measured else {},
            as_numpy(self.x),
            tuple(layer.trainable for layer in model._flatten_layers()),
            constants,
            keras.config.floatx(),
            keras.config.dtype_policy().name,
            keras.config.image_data_format(),
            keras.config.epsilon(),
        )
        try:
            packed = cloudpickle.dumps(blueprint)
            if blueprint.custom:
                with undisturbed():
                    _check_alike(blueprint.build(), model)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(
                "a model's own classes and functions must be such that a worker can create them "
                f"anew; one of {', '.join(blueprint.custom) or 'them'} cannot be "
                f"({type(error).__name__}: {error}). Implement get_config() in classes that take "
                "arguments, as for model.save(), and create inside what cannot be pickled."
            ) from error
        n_measures = sum(int(np.prod(v.shape)) for v in self.metric_variables)
        return KerasSpec(
            packed,
            self.vector,
            regions,
            sum(int(np.prod(v.shape)) for v in (self.live if self.is_trained else model.weights)),
            changing,
            n_measures if self.is_measured else 0,
            keras.backend.backend() != "torch",
        )

    # to and from the flat vector

    def values(self) -> Array:
        """Parameters and running statistics as one vector [N]."""
        values_N = np.zeros(self.vector.size, self.vector.dtype)
        for variable, view in self._pairs(values_N):
            view.copy_(torch.from_numpy(np.array(_numpy(variable))))
        return values_N

    def show(self, values_N: Array) -> None:
        """Take them from the vector."""
        for variable, view in self._pairs(np.array(values_N)):
            variable.assign(view.numpy())

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
        """Where training begins: the optimiser may have trained before."""
        blocks = blocks_of(self.spec.regions, LARGEST_BLOCK)
        state_MN = np.zeros((len(self.optimizer.slots), self.vector.size), self.vector.dtype)
        for (start, _), m, slot in self._slots():
            flat = _numpy(slot).reshape(-1)
            state_MN[m, start : start + len(flat)] = flat
        live = self.model.optimizer
        scalars_C = [float(_numpy(getattr(live, name))) for name in self.optimizer.scalars]
        scalars_KC = np.tile(scalars_C, (len(blocks), 1)) if scalars_C else None
        return State(self.values(), state_MN, scalars_KC=scalars_KC)

    def take_optimizer(self, state_MN: Array, scalars_KC: Array) -> None:
        """Give the live optimiser the state that the training has reached."""
        for (start, _), m, slot in self._slots():
            size = int(np.prod(slot.shape))
            slot.assign(np.array(state_MN[m, start : start + size]).reshape(slot.shape))
        blocks = blocks_of(self.spec.regions, LARGEST_BLOCK)
        first = blocks_within(blocks, *self._first_place())[0]
        for name, number in zip(self.optimizer.scalars, scalars_KC[first].tolist(), strict=True):
            variable = getattr(self.model.optimizer, name)
            variable.assign(
                np.asarray(number).astype(keras.backend.standardize_dtype(variable.dtype))
            )

    def _first_place(self) -> tuple[int, int]:
        start, shape = self.vector.params[0]
        return start, int(np.prod(shape))

    def _slots(self) -> list[tuple[Any, int, Any]]:
        """(place of a variable, row, slot variable) of all of the live optimiser's."""
        live = self.model.optimizer
        return [
            (piece, m, slot)
            for m, name in enumerate(self.optimizer.slots)
            for piece, slot in zip(self.vector.params, getattr(live, name), strict=True)
            if slot is not None
        ]


def _check_loss(loss: Any) -> None:
    """Raise InvalidInput unless it is one number."""
    shape = None if loss is None else np.shape(_numpy(loss))
    if shape is None or np.prod(shape) != 1:
        raise InvalidInput(
            "a loss must be one number, the mean over the samples; got "
            f"{'None' if shape is None else f'an array of shape {shape}'}. Use "
            "reduction='sum_over_batch_size', or return ops.mean(...)."
        )


def _check_alike(copy: Any, model: Any) -> None:
    """Raise InvalidInput where a model created anew has other weights than the user's."""
    shapes = [[tuple(weight.shape) for weight in one.weights] for one in (copy, model)]
    if shapes[0] != shapes[1]:
        raise InvalidInput(
            "a model that is created anew from its class and arguments must have the same weights; "
            f"{type(model).__name__} then has {len(shapes[0])} of other shapes than its "
            f"{len(shapes[1])}. Implement get_config() and from_config()."
        )
    for one, other in zip(copy._flatten_layers(), model._flatten_layers(), strict=True):
        for name, value in vars(other).items():
            found = vars(one).get(name, value)
            if name in OWN or name.startswith("_") or type(value) not in PLAIN or found == value:
                continue
            raise InvalidInput(
                "a model that is created anew from its class and arguments must be the same; "
                f"{name} of {type(other).__name__} then is {found!r} instead of {value!r}. "
                "Implement get_config() and from_config()."
            )


def _untracked(nest: Any) -> Any:
    """A nest without the lists and dicts of Keras that cannot be pickled."""
    if isinstance(nest, dict):
        return {key: _untracked(part) for key, part in nest.items()}
    if isinstance(nest, (list, tuple)):
        parts = [_untracked(part) for part in nest]
        return tuple(parts) if isinstance(nest, tuple) else parts
    return nest


def as_numpy(content: Any) -> Any:
    """Tensors as arrays."""
    return keras.tree.map_structure(_numpy, content)


def as_tensors(content: Any) -> Any:
    """Arrays as tensors of this process's backend."""
    return keras.tree.map_structure(keras.ops.convert_to_tensor, content)


def _numpy(value: Any) -> Array:
    return np.array(keras.ops.convert_to_numpy(value))


def _empty(variable: Any) -> torch.Tensor:
    dtype = getattr(torch, keras.backend.standardize_dtype(variable.dtype))
    return torch.empty(tuple(variable.shape), dtype=dtype)


def _dtype_of(variables: list[Any]) -> torch.dtype:
    """The one dtype of all variables that are trained. Raises InvalidInput."""
    dtypes = {keras.backend.standardize_dtype(v.dtype) for v in variables}
    if len(dtypes) != 1 or not dtypes <= {"float32", "float64"}:
        raise InvalidInput(
            "all weights must be of one dtype, float32 or float64; got "
            f"{', '.join(sorted(dtypes))}. Use the policy 'float32' or 'mixed_bfloat16'."
        )
    return getattr(torch, dtypes.pop())  # type: ignore[no-any-return]

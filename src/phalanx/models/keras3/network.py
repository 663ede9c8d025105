"""A Keras model on the torch backend, bound to the flat vector of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from phalanx import references
from phalanx.errors import UserFunctionError
from phalanx.models.keras3.generators import (
    as_guest,
    forget_masks,
    seed_states,
    share,
    shared,
)
from phalanx.models.keras3.images import keep_as_they_lie, kept_as_they_lie
from phalanx.models.keras3.output_masks import give_masks, masks_of
from phalanx.models.pytorch.generators import seed_everything, undisturbed
from phalanx.models.pytorch.settings import Settings
from phalanx.models.pytorch.uses import Factoring
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.arrays import Array
from phalanx.pure.factors import FactorLayout, Multiply
from phalanx.pure.layout import Region
from phalanx.pure.randomness import Key

OUTPUT_KEY = Key(0, 0, 0)  # of a model that draws while it predicts


@dataclass(frozen=True)
class KerasSpec:
    """packed: the pickle of a Blueprint. changing: places among `model.weights` of what is not
    trained and changes all the same (running statistics). is_elsewhere: whether the caller's
    process has another backend, so that nothing can be computed there. settings: what torch is to
    have set like there. counts: sizes of shards that are worth a tape (tracing.py). factoring: how
    gradients are made of factors, if shards are to leave these.
    """

    packed: bytes
    vector: Vector
    regions: tuple[Region, ...]
    n_parameters: int
    changing: tuple[int, ...]
    n_measures: int
    is_elsewhere: bool
    settings: Settings
    counts: tuple[int, ...] = ()
    factoring: Factoring | None = None
    n_decayed: int = 0
    n_outputs: int = 0

    @property
    def size(self) -> int:
        return self.vector.size

    @property
    def factors(self) -> FactorLayout | None:
        return self.factoring.layout if self.factoring else None

    @property
    def multiply(self) -> Multiply:
        return self.settings.multiply

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self.vector.dtype

    @property
    def runs_here(self) -> bool:
        return not self.is_elsewhere

    @property
    def libraries(self) -> tuple[str, ...]:
        return "torch", "keras"

    def __repr__(self) -> str:
        """What a checkpoint knows the model by; its code may change."""
        return f"KerasSpec({self.vector}{', leaves factors' if self.factoring else ''})"

    @contextmanager
    def as_guest(self) -> Iterator[None]:
        with as_guest(), kept_as_they_lie():
            yield

    def build(self, params_N: Array) -> KerasModel:
        os.environ["KERAS_BACKEND"] = "torch"  # in a worker, before Keras is imported
        with undisturbed():  # a layer that is made draws a seed from Python's generator
            from phalanx.models.keras3.recurrent import use_torch_recurrence

            self.settings.apply()
            blueprint = references.loads(self.packed)
            model = blueprint.build()
            use_torch_recurrence(model)
            keep_as_they_lie()
            share()
            return KerasModel(self, model, params_N, blueprint.example)


class KerasModel:
    """See models/base.py: FactoredModel. The model is this process's own; its variables are
    views."""

    def __init__(self, spec: KerasSpec, model: Any, values_N: Array, example: Any) -> None:
        import keras
        import torch

        from phalanx.models.pytorch.leaving import LeftFactors, LeftGradients
        from phalanx.models.pytorch.tracing import pass_of, signature

        self.torch, self.model, self.vector = torch, model, spec.vector
        self.params = [variable._value for variable in model.trainable_variables]
        for param, view in zip(self.params, spec.vector.param_views(values_N), strict=True):
            param.data = view
        weights = model.weights
        self.changing = [weights[place]._value for place in spec.changing]
        self._names = [str(place) for place in spec.changing]
        self._dtypes = {
            name: value.dtype for name, value in zip(self._names, self.changing, strict=True)
        }
        self._common = list(self._views(values_N))
        own = {id(value) for value in (*self.params, *self.changing)}
        self._constants = [w for w in weights if id(w._value) not in own]
        self._seeds = seed_states(model)
        self._metrics = self._known_metrics()
        self._is_measured = False
        self._takes_training = model._call_has_training_arg
        self._slots: dict[int, tuple[Array, list[Any], list[Any]]] = {}
        self._is_training: bool | None = None
        self._tree, self._nest = keras.tree, example
        self._factors = LeftFactors(self.params, spec.factoring) if spec.factoring else None
        self._leaving = self._factors or LeftGradients(self.params)
        self._by_keras = pass_of(self._loss_of, self._leaving)
        self._tapes: dict[tuple[Any, ...], Any] = {}
        self._signature = signature
        if not self.changing and not _measures_by_itself(model):
            self._record(spec.counts)
        self._versions = self._versions_now()

    def _record(self, counts: Sequence[int]) -> None:
        """Prepare for shards of so many rows, with samples like those of the example."""
        from phalanx.models.pytorch.tracing import faster_pass, repeated

        self._prepare(True)
        self._seed(OUTPUT_KEY)
        for count in counts:
            samples = repeated(self._tree.flatten(self._nest), count)
            tape = faster_pass(self._loss_of, self._leaving, samples)
            if tape is not None:
                self._tapes[self._signature(samples)] = tape[0]
        forget_masks(self.model)
        self._metrics = self._known_metrics()  # the losses of outputs, if that made them

    def gradient(self, rows: Any, grad_N: Array, key: Key) -> Sequence[float]:
        _, slots, changing_slots = self._slots_of(grad_N)
        return self._outcome(rows, slots, changing_slots, key)

    def leave(self, rows: Any, factors: Sequence[Array], n_rows: int, key: Key) -> Sequence[float]:
        assert self._factors is not None
        outcome = self._outcome(rows, self._factors.slots(factors, rows.count), (), key)
        self._factors.finish(factors, rows.count, rows.count / n_rows)
        return outcome

    def _outcome(
        self, rows: Any, slots: Sequence[Any], changing_slots: Sequence[Any], key: Key
    ) -> list[float]:
        """Fill the slots; sums of loss and weight, and of the metrics' variables."""
        leaves = self._tree.flatten(rows.content)
        tape = self._tapes.get(self._signature(leaves))
        self._prepare(True)
        self._seed(key, is_taped=tape is not None)
        loss, (predicted, masks) = (tape or self._by_keras)(leaves, slots)
        if tape is not None:  # else Keras has hung them on
            give_masks(flat_outputs(predicted), masks)
        self._check_constants()
        with self.torch.no_grad():
            for slot, value in zip(changing_slots, self.changing, strict=True):
                slot.copy_(value)
            measures = self._measured(*unpacked(rows.content), predicted)
        return [float(loss) * rows.count, float(rows.count), *measures]

    def _versions_now(self) -> list[int]:
        """How often each constant weight was written into, as torch counts it."""
        return [weight._value._version for weight in self._constants]

    def _check_constants(self) -> None:
        """Raise UserFunctionError where a step has written into what was thought to be constant."""
        now = self._versions_now()
        if now == self._versions:
            return
        written = next(i for i, before in enumerate(self._versions) if now[i] != before)
        raise UserFunctionError(
            "a weight that a step changes must be changed by every step; "
            f"{self._constants[written].path!r} was not changed by the first samples, and was by "
            "others. Assign it in every call in training."
        )

    def _loss_of(self, *leaves: Any) -> tuple[Any, tuple[Any, list[Any]]]:
        """Loss, and predictions with their masks, by Keras, of the tensors of a batch."""
        x, y, weight = unpacked(self._tree.pack_sequence_as(self._nest, leaves))
        predicted = self._called(x, True)
        loss = self._loss(x, y, predicted, weight, True)
        return loss, (predicted, masks_of(flat_outputs(predicted)))

    def outputs(self, rows: Any) -> Array:
        """Predictions [rows, ...]; of several outputs, one beside the other."""
        x, _, _ = unpacked(rows.content)
        self._prepare(False)
        self._seed(OUTPUT_KEY)
        with self.torch.no_grad():
            return joined(self._called(x, False), rows.count)

    def measures(self, rows: Any) -> Array:
        """Sums for a validation chunk: of loss and weight, then of the metrics' variables."""
        x, y, weight = unpacked(rows.content)
        self._prepare(False)
        self._seed(OUTPUT_KEY)
        with self.torch.no_grad():
            predicted = self._called(x, False)
            loss = float(self._loss(x, y, predicted, weight, False))
            sums = self._measured(x, y, weight, predicted)
        return np.array([loss * rows.count, rows.count, *sums])

    def _prepare(self, training: bool) -> None:
        if self._is_training is not training:
            self.model.train(training)
            self._is_training = training
        for metric in self._metrics:
            metric.reset_state()
        with self.torch.no_grad():
            for value, common in zip(self.changing, self._common, strict=True):
                value.copy_(common)

    def _seed(self, key: Key, is_taped: bool = False) -> None:
        """Seed whatever a call may draw from; a tape draws from torch's generator alone."""
        n_seeds = 2 * len(self._seeds) + 1
        seeds = [key.number(nth) >> 32 for nth in range(n_seeds)]
        if is_taped:
            self.torch.default_generator.manual_seed(seeds[-1])
            return
        seed_everything(seeds[-1])
        seeds[-1:] = [key.number(nth) >> 32 for nth in (n_seeds, n_seeds + 1)]
        with self.torch.no_grad():
            for i, state in enumerate([*self._seeds, shared().state]):
                state._value[0], state._value[1] = seeds[2 * i], seeds[2 * i + 1]

    def _called(self, x: Any, training: bool) -> Any:
        return self.model(x, training=training) if self._takes_training else self.model(x)

    def _loss(self, x: Any, y: Any, predicted: Any, weight: Any, training: bool) -> Any:
        y = targets_of(self.model, y, predicted)
        loss = self.model._compute_loss(
            x=x, y=y, y_pred=predicted, sample_weight=weight, training=training
        )
        if not isinstance(loss, self.torch.Tensor) or loss.numel() != 1:
            raise UserFunctionError(
                "a loss must be one number, the mean over the samples; the model's compute_loss "
                f"returned {loss!r}. Use reduction='sum_over_batch_size', or ops.mean."
            )
        return loss

    def _measured(self, x: Any, y: Any, weight: Any, predicted: Any) -> list[float]:
        """The variables of the metrics after these samples alone."""
        y = targets_of(self.model, y, predicted)
        if not self._is_measured:
            self.model.compute_metrics(x, y, predicted, sample_weight=weight)
            self._metrics, self._is_measured = self._known_metrics(), True
        elif self._metrics:
            self.model.compute_metrics(x, y, predicted, sample_weight=weight)
        values = [v._value.reshape(-1) for m in self._metrics for v in m.variables]
        figures: list[float] = self.torch.cat(values).tolist() if values else []
        return figures

    def _known_metrics(self) -> list[Any]:
        """All but the loss; those of single outputs are there from the first loss on."""
        return [m for m in self.model.metrics if m is not self.model._loss_tracker]

    def _views(self, flat_N: Array) -> list[Any]:
        views = self.vector.buffer_views(flat_N, self._dtypes)
        return [views[name] for name in self._names]

    def _slots_of(self, grad_N: Array) -> tuple[Array, list[Any], list[Any]]:
        known = self._slots.get(id(grad_N))
        if known is None:
            known = grad_N, self.vector.param_views(grad_N), self._views(grad_N)
            self._slots[id(grad_N)] = known
        return known


def unpacked(content: Any) -> tuple[Any, Any, Any]:
    """x, y and sample weights of a batch; None for what there is none of."""
    return (*content, None, None)[:3] if len(content) < 3 else content


def targets_of(model: Any, y: Any, predicted: Any) -> Any:
    """The targets as Keras should have them. Of several outputs it takes a single target apart
    where that has as many rows as there are outputs, as a shard may; a list of it, it does not.
    Losses and metrics of the user's own get what the user has given."""
    import keras

    kind = type(model)
    is_several = isinstance(predicted, (list, tuple, dict)) and len(predicted) > 1
    is_single = y is not None and not isinstance(y, (list, tuple, dict))
    is_own = (
        kind.compute_loss is not keras.Model.compute_loss
        or kind.compute_metrics is not keras.Model.compute_metrics
    )
    return [y] if is_several and is_single and not is_own else y


def _measures_by_itself(model: Any) -> bool:
    """Whether its metrics may get what its `call` or `compute_loss` has kept as an attribute, which
    is not there where a tape is played."""
    import keras

    return type(model).compute_metrics is not keras.Model.compute_metrics


def flat_outputs(outputs: Any) -> list[Any]:
    """All tensors of a nest of outputs, in order."""
    if isinstance(outputs, dict):
        return [part for key in outputs for part in flat_outputs(outputs[key])]
    if isinstance(outputs, (list, tuple)):
        return [part for inner in outputs for part in flat_outputs(inner)]
    return [outputs]


def _array(tensor: Any) -> Array:
    """NumPy has no bfloat16."""
    is_short = tensor.is_floating_point() and tensor.itemsize == 2
    return np.asarray((tensor.float() if is_short else tensor).numpy())


def joined(outputs: Any, count: int) -> Array:
    """Several outputs as one array [count, total]; a single one in its own shape."""
    parts = [_array(part.detach().cpu()) for part in flat_outputs(outputs)]
    if len(parts) == 1:
        return parts[0]
    flat = [part.reshape(count, -1) for part in parts]
    return np.concatenate(flat, axis=1, dtype=joint_dtype([part.dtype for part in flat]))


def joint_dtype(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """One that holds the numbers of all; float64 does not hold all of 64 bits."""
    joint = np.result_type(*dtypes)
    has_long = any(dtype.kind in "iu" and dtype.itemsize == 8 for dtype in dtypes)
    return np.dtype(np.longdouble) if has_long and joint.kind == "f" else joint

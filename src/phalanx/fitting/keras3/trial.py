"""A trial of a Keras model on a few samples, before any work starts, and its metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
import torch

from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.fitting.keras3.arrays import as_numpy, as_tensors, glance_at, numpy_of
from phalanx.models.keras3.generators import seed_states, undisturbed
from phalanx.models.keras3.images import kept_as_they_lie
from phalanx.models.keras3.network import targets_of, unpacked
from phalanx.models.pytorch.batches import first_rows
from phalanx.pure.arrays import Array, same_bits

TRIAL_ROWS = 4


class Trial:
    """x, y, weight: the first few samples. predicted: what the model gives for them. changing:
    places of the weights that a call in training changes, though they are not trained."""

    def __init__(self, model: Any, samples: Samples, is_trained: bool, is_measured: bool) -> None:
        self.model, self.is_trained, self.is_measured = model, is_trained, is_measured
        self.x, self.y, self.weight = _first_of(samples)
        self._assigned: set[int] = set()
        self.changing = self._try()

    def _try(self) -> tuple[int, ...]:
        """Call the model on a few samples, which builds it; places of the weights that a call in
        training changes. Nothing else is changed. Raises InvalidInput where it fails."""
        with _telling():
            self._build()
        weights, states = self.model.weights, seed_states(self.model)
        before, seeds = [numpy_of(w) for w in weights], [numpy_of(state) for state in states]
        try:
            with _telling(), undisturbed(), _images_as_in_workers():
                self._call_all()
        finally:
            written = _put_back(weights, before)
            _put_back(states, seeds)
        changed = tuple(
            i for i, weight in enumerate(weights) if i in written or id(weight) in self._assigned
        )
        self._check_not_trained(changed)
        return changed

    def _build(self) -> None:
        """A subclassed model may count as built before it has any weights."""
        if not all(layer.built for layer in self.model._flatten_layers()):
            self._call(self.x, training=False)

    def _call_all(self) -> None:
        """All that a training, or an evaluation, calls."""
        self.predicted = self._call(self.x, training=False)
        self.y = targets_of(self.model, self.y, self.predicted)
        if self.is_trained:
            self._call(self.x, training=True)  # which also adds the losses of layers
        if self.is_measured:
            self._build_metrics()
        if self.is_trained:
            self._assigned = self._assigning()

    def _assigning(self) -> set[int]:
        """Ids of the variables that a step assigns, be it what they are already: of rows of zeros,
        a running mean stays zero. Those that are written otherwise have changed."""
        model = self.model
        if len(model.weights) == len(model.trainable_variables):
            return set()
        values = [(v, v.value) for v in model.trainable_variables]  # of which regularisers ask
        with keras.StatelessScope(values) as scope, torch.no_grad():
            before = dict(scope.state_mapping)
            predicted = self._predicted(self.x, training=True)
            model._compute_loss(
                x=self.x, y=self.y, y_pred=predicted, sample_weight=self.weight, training=True
            )
        return {i for i, value in scope.state_mapping.items() if before.get(i) is not value}

    def _check_not_trained(self, changed: tuple[int, ...]) -> None:
        trained = {id(v) for v in self.model.trainable_variables}
        for i in changed:
            weight = self.model.weights[i]
            if id(weight) in trained:
                raise InvalidInput(
                    "a call must leave the weights that are trained as they are, since all workers "
                    f"share them; it changed {weight.path!r}, as SpectralNormalization "
                    "does. Leave that layer out, or write into a weight of trainable=False instead."
                )

    def _call(self, x: Any, training: bool) -> Any:
        with torch.no_grad():
            return self._predicted(x, training)

    def _predicted(self, x: Any, training: bool) -> Any:
        takes_training = self.model._call_has_training_arg
        return self.model(x, training=training) if takes_training else self.model(x)

    @property
    def content(self) -> tuple[Any, ...]:
        """The samples as a batch is nested."""
        return tuple(part for part in (self.x, self.y, self.weight) if part is not None)

    def loss_of(self, *leaves: Any) -> Any:
        """The loss in training, of the tensors of a batch nested as the samples are."""
        x, y, weight = unpacked(keras.tree.pack_sequence_as(self.content, leaves))
        predicted = self._predicted(x, training=True)
        return self.model._compute_loss(
            x=x, y=y, y_pred=predicted, sample_weight=weight, training=True
        )

    @contextmanager
    def without_traces(self) -> Iterator[None]:
        """Within it, the model may be called, and what it draws and measures is forgotten."""
        seeds = [(state, numpy_of(state)) for state in seed_states(self.model)]
        try:
            yield
        finally:
            for state, value in seeds:
                state.assign(value)
            self.model.reset_metrics()

    def _build_metrics(self) -> None:
        """Build loss and metrics, and see that the metrics are sums over samples."""
        with torch.no_grad(), np.errstate(all="ignore"):
            with _needing(self.y, "y"):
                loss = self.model._compute_loss(
                    x=self.x,
                    y=self.y,
                    y_pred=self.predicted,
                    sample_weight=self.weight,
                    training=False,
                )
            self._check_reductions()
            _check_loss(loss)
            self._measured(slice(None))  # builds them, so that all begin at nothing from now on
            count = len(keras.tree.flatten(self.x)[0])
            rows = slice(None), slice(0, count // 2), slice(count // 2, count)
            whole, *parts = (self._measured(some) for some in rows)
        self.model.reset_metrics()
        if count > 1:
            self._check_sums(whole, parts)

    def _check_sums(self, whole: list[Array], parts: list[list[Array]]) -> None:
        """Raise InvalidInput unless each variable of the metrics is a sum over samples."""
        owner = {
            id(variable): metric.name
            for several in self.metrics
            for metric in getattr(several, "metrics", [several])
            for variable in metric.variables
        }
        for variable, total, *of_parts in zip(self.metric_variables, whole, *parts, strict=True):
            if not np.allclose(sum(of_parts), total, rtol=1e-3, atol=1e-4, equal_nan=True):
                raise InvalidInput(
                    "a metric's state must be sums over samples, so that those of shards can be "
                    f"added; {owner[id(variable)]!r} is not. A function must return one value a "
                    "sample: leave out the final mean. A tracker (keras.metrics.Mean) must be "
                    "updated with one value a sample. Else use metrics of Keras, or compute it "
                    "from predictions."
                )

    def check_fits(self, samples: Samples) -> None:
        """Raise InvalidInput where model and loss do not take samples that are to be judged."""
        x, y, weight = _first_of(samples)
        try:
            with torch.no_grad(), np.errstate(all="ignore"):
                predicted = self._call(x, training=False)
                y = targets_of(self.model, y, predicted)
                with _needing(y, "the y of validation_data=(x, y)"):
                    self.model._compute_loss(
                        x=x, y=y, y_pred=predicted, sample_weight=weight, training=False
                    )
                self.model.compute_metrics(x, y, predicted, sample_weight=weight)
        except InvalidInput:
            raise
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

    def _measured(self, rows: slice) -> list[Array]:
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
        return [numpy_of(variable) for variable in self.metric_variables]

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
            name: float(numpy_of(value)) if np.size(numpy_of(value)) == 1 else numpy_of(value)
            for name, value in results.items()
        }
        model.reset_metrics()
        return {**figures, "loss": loss}


def _put_back(variables: list[Any], values: list[Array]) -> set[int]:
    """Give variables the values that they had; places of those that had others."""
    written = set()
    for i, (variable, value) in enumerate(zip(variables, values, strict=True)):
        if not same_bits(glance_at(variable), value):
            written.add(i)
            variable.assign(value)
    return written


@contextmanager
def _telling() -> Iterator[None]:
    """Within it, whatever is raised becomes an InvalidInput."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(
            f"the model and its loss must take the data; a trial with {TRIAL_ROWS} samples "
            f"raised {type(error).__name__}: {error}. Compare the shapes of x and y with the "
            "model's inputs and outputs (model.summary())."
        ) from error


@contextmanager
def _needing(y: Any, name: str) -> Iterator[None]:
    """Within it, a loss that fails where there are no targets says that these are missing."""
    try:
        yield
    except Exception as error:
        if y is not None:
            raise
        raise InvalidInput(
            f"{name} must be given, since the model's loss needs targets; got none (the loss "
            f"raised {type(error).__name__}: {error}). Pass the targets beside x, or a Dataset "
            "whose samples are (x, y)."
        ) from error


def _images_as_in_workers() -> AbstractContextManager[None]:
    """Within it, images lie as they do in the workers, where Keras here computes them alike."""
    return kept_as_they_lie() if keras.backend.backend() == "torch" else nullcontext()


def _first_of(samples: Samples) -> tuple[Any, Any, Any]:
    """x, y and weights of the first few samples, as tensors of this process's backend."""
    with undisturbed():
        content = as_numpy(first_rows(samples, TRIAL_ROWS).content)
    return unpacked(as_tensors(content))


def _check_loss(loss: Any) -> None:
    """Raise InvalidInput unless it is one number."""
    shape = None if loss is None else np.shape(numpy_of(loss))
    if shape is None or np.prod(shape) != 1:
        raise InvalidInput(
            "a loss must be one number, the mean over the samples; got "
            f"{'None' if shape is None else f'an array of shape {shape}'}. Use "
            "reduction='sum_over_batch_size', or return ops.mean(...)."
        )

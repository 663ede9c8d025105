"""What a compiled model brings along, checked: the model itself, its optimiser, its clipping."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from phalanx.errors import InvalidInput
from phalanx.pure.plan import Plan

JUDGED = "test_step", "make_test_function"
TRAINED = "train_step", "make_train_function", "fit", *JUDGED
PREDICTED = "predict_step", "make_predict_function"


def clips_of(optimizer: Any) -> dict[str, float]:
    """Clipping by value or by the whole gradient's norm, as the optimiser was told."""
    found = {"clip_value": optimizer.clipvalue, "clip_norm": optimizer.global_clipnorm}
    return {name: float(value) for name, value in found.items() if value is not None}


def check_model(model: Any, is_trained: bool) -> None:
    """Raise InvalidInput for a model that cannot be trained, or evaluated, as it stands."""
    if not model.compiled:
        raise InvalidInput(
            "a model must be compiled with an optimizer and a loss; this one is not. Call e.g. "
            "model.compile(optimizer='adam', loss='mse') first."
        )
    if is_trained and model.optimizer is None:
        raise InvalidInput(
            "a model must be compiled with an optimizer; this one has none. Call "
            "model.compile(optimizer='adam', loss=...)."
        )
    check_own(model, TRAINED if is_trained else JUDGED, "compute_loss")
    _check_methods(model)
    _check_losses(model)
    if is_trained:
        _check_optimizer(model.optimizer)
    check_stateless(model)


def check_stateless(model: Any) -> None:
    """Raise InvalidInput for a recurrent layer that goes on where the batch before has ended."""
    stateful = [
        layer.name for layer in model._flatten_layers() if getattr(layer, "stateful", False)
    ]
    if stateful and any(isinstance(layer, keras.layers.RNN) for layer in model._flatten_layers()):
        raise InvalidInput(
            "samples must not depend on the batch before; the recurrent layer "
            f"{stateful[0]!r} has stateful=True. Use stateful=False."
        )


def check_own(model: Any, names: tuple[str, ...], instead: str) -> None:
    """Raise InvalidInput where a model or its class has other methods of these names than Keras."""
    kind = type(model)
    for name in names:
        # Keras' NumPy backend has no train_step
        of_class = getattr(kind, name, None) is not getattr(keras.Model, name, None)
        if of_class or name in vars(model):
            raise InvalidInput(
                "what is computed of samples must be Keras' own, so that it can be shared out; "
                f"{kind.__name__} overrides {name}. Override {instead} instead."
            )


def check_visits(plan: Plan) -> None:
    """Raise InvalidInput where some samples would never be seen."""
    if plan.n_visited < plan.n_samples and np.array_equal(plan.order(0), plan.order(1)):
        raise InvalidInput(
            "all epochs have the same order of samples if these are not shuffled, so with "
            f"steps_per_epoch={plan.n_steps} the last {plan.n_samples - plan.n_visited} of "
            f"{plan.n_samples} would never be seen. Leave steps_per_epoch out, or shuffle."
        )


def _check_methods(model: Any) -> None:
    for name in ("compute_loss", "compute_metrics"):
        if name in vars(model):
            raise InvalidInput(
                f"workers have models of the same class; {name} was set on this object alone. "
                "Override it in the class."
            )


def _check_losses(model: Any) -> None:
    """Raise InvalidInput for a loss that keeps something from step to step."""
    for loss in keras.tree.flatten(model._compile_config.config.get("loss")):
        for name, value in getattr(loss, "__dict__", {}).items():
            if isinstance(value, (keras.Variable, keras.random.SeedGenerator)):
                raise InvalidInput(
                    "a loss must keep nothing from step to step, since each shard has its own; "
                    f"{type(loss).__name__} has {type(value).__name__} {name!r}. Keep it in a "
                    "layer or the model, whose weights and generators the workers share."
                )


def _check_optimizer(optimizer: Any) -> None:
    unfit = {
        "use_ema": "a callback may average model.get_weights() in on_epoch_end",
        "gradient_accumulation_steps": "a larger batch_size takes its place",
        "loss_scale_factor": "the policy 'mixed_bfloat16' needs none",
    }
    for name, instead in unfit.items():
        value = getattr(optimizer, name)
        if value:
            raise InvalidInput(
                f"an optimizer must change the variables at every step, and by the gradient alone; "
                f"this {type(optimizer).__name__} has {name}={value!r}. Leave {name} out; "
                f"{instead}."
            )
    if hasattr(optimizer, "inner_optimizer"):
        raise InvalidInput(
            "gradients of float16 would have to be scaled, which no worker can do for the others; "
            f"got {type(optimizer).__name__}. Use the policy 'mixed_bfloat16' or 'float32'."
        )

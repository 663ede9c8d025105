"""What a compiled model brings along, checked: the model itself, its optimiser, its clipping."""

from __future__ import annotations

from typing import Any

import keras

from phalanx.errors import InvalidInput


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
    for name in ("train_step", "test_step", "fit") if is_trained else ("test_step",):
        # Keras' NumPy backend has no train_step
        if getattr(type(model), name, None) is not getattr(keras.Model, name, None):
            raise InvalidInput(
                f"the gradient's computation must be Keras' own, so that it can be shared out; "
                f"{type(model).__name__} overrides {name}. Override compute_loss instead."
            )
    if is_trained:
        _check_optimizer(model.optimizer)
    stateful = [
        layer.name for layer in model._flatten_layers() if getattr(layer, "stateful", False)
    ]
    if stateful and any(isinstance(layer, keras.layers.RNN) for layer in model._flatten_layers()):
        raise InvalidInput(
            "samples must not depend on the batch before; the recurrent layer "
            f"{stateful[0]!r} has stateful=True. Use stateful=False."
        )


def _check_optimizer(optimizer: Any) -> None:
    unfit = {
        "use_ema": optimizer.use_ema,
        "gradient_accumulation_steps": optimizer.gradient_accumulation_steps,
        "loss_scale_factor": optimizer.loss_scale_factor,
    }
    for name, value in unfit.items():
        if value:
            raise InvalidInput(
                f"an optimizer must change the variables at every step, and by the gradient alone; "
                f"this {type(optimizer).__name__} has {name}={value!r}. Leave {name} out; a larger "
                "batch_size takes the place of accumulation."
            )
    if hasattr(optimizer, "inner_optimizer"):
        raise InvalidInput(
            "gradients of float16 would have to be scaled, which no worker can do for the others; "
            f"got {type(optimizer).__name__}. Use the policy 'mixed_bfloat16' or 'float32'."
        )

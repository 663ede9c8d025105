"""Keras' LSTM layers by torch's LSTM, as Keras itself does on a GPU.

On a CPU Keras calls some twenty operations of torch for each step of a sequence; torch has one for
all steps. The gates come in the same order in both. Sums are taken in another order, so what comes
out differs in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Loop = Callable[..., tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]]


def use_torch_lstm(model: Any) -> None:
    """Have all LSTM layers of a model, which the caller owns, call torch's where that computes the
    same. `use_cudnn=False` says no, as it does on a GPU."""
    import keras

    for layer in model._flatten_layers():
        if type(layer) is keras.layers.LSTM and _is_standard(layer):
            layer.inner_loop = _loop(layer, layer.inner_loop)


def _is_standard(layer: Any) -> bool:
    """What torch's LSTM, and cuDNN's, has no other way to compute."""
    from keras import activations

    return (
        layer.activation is activations.tanh
        and layer.recurrent_activation is activations.sigmoid
        and layer.use_bias
        and not layer.unroll
        and not layer.recurrent_dropout
        and layer.use_cudnn is not False
        and layer.compute_dtype == "float32"
    )


def _loop(layer: Any, by_keras: Loop) -> Loop:
    """The layer's loop over the steps of sequences [batch, steps, features]: the last output
    [batch, units], all outputs [batch, steps, units], and the states."""

    def inner_loop(
        sequences: torch.Tensor, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        if mask is not None or sequences.device.type != "cpu":
            return by_keras(sequences, initial_state, mask, training=training)
        cell, kernel = layer.cell, layer.cell.kernel.value
        sequences = sequences.to(kernel.dtype)  # what a user's own `call` hands on may be integers
        if training and layer.dropout:
            sequences = sequences * cell.get_dropout_mask(sequences[:, 0, :]).unsqueeze(1)
        if layer.go_backwards:
            sequences = sequences.flip(1)
        bias = cell.bias.value
        weights = [
            kernel.T.contiguous(),
            cell.recurrent_kernel.value.T.contiguous(),
            bias,
            torch.zeros_like(bias),  # torch has one for each of the two products
        ]
        size = len(sequences), layer.units  # torch's LSTM would read beyond a smaller state
        states = [
            state.to(kernel.dtype).expand(size).contiguous().unsqueeze(0) for state in initial_state
        ]
        outputs, *states = torch._VF.lstm(
            sequences, states, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True
        )
        return outputs[:, -1], outputs, [state.squeeze(0) for state in states]

    return inner_loop

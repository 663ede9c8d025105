"""Keras' recurrent layers by torch's, as Keras itself has them by cuDNN on a GPU.

On a CPU Keras calls up to twenty operations of torch for each step of a sequence; torch has one for
all steps. Sums are taken in another order, so what comes out differs in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Loop = Callable[..., tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]]


class ByTorch(NamedTuple):
    """How torch computes a kind of layer. does: whether it does, with a layer's settings. weights:
    torch's four, of Keras' kernel, recurrent kernel and bias. loop: of a layer."""

    does: Callable[[Any], bool]
    weights: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], list[torch.Tensor]]
    loop: Callable[[Any], Callable[..., Any]]


def use_torch_recurrence(model: Any) -> None:
    """Have all recurrent layers of a model, which the caller owns, call torch's where that computes
    the same. `use_cudnn=False` says no, as it does on a GPU."""
    known = _known()
    for layer in model._flatten_layers():
        by_torch = known.get(type(layer))
        if by_torch is not None and _is_standard(layer) and by_torch.does(layer):
            layer.inner_loop = _loop(layer, layer.inner_loop, by_torch)


def _known() -> dict[type[Any], ByTorch]:
    from keras import activations, layers

    def has_gates(layer: Any) -> bool:
        gates = layer.recurrent_activation is activations.sigmoid
        return gates and layer.activation is activations.tanh

    loops = {activations.tanh: torch._VF.rnn_tanh, activations.relu: torch._VF.rnn_relu}
    return {
        layers.LSTM: ByTorch(has_gates, _of_one_bias, lambda layer: torch._VF.lstm),
        layers.GRU: ByTorch(
            lambda layer: has_gates(layer) and layer.reset_after and not _has_three_masks(layer),
            _of_gru,
            lambda layer: torch._VF.gru,
        ),
        layers.SimpleRNN: ByTorch(
            lambda layer: layer.activation in tuple(loops),  # which may be unhashable
            _of_one_bias,
            lambda layer: loops[layer.activation],
        ),
    }


def _is_standard(layer: Any) -> bool:
    """What torch's layers, and cuDNN's, have no other way to compute."""
    return bool(
        layer.use_bias
        and not layer.unroll
        and not layer.recurrent_dropout
        and getattr(layer, "use_cudnn", "auto") is not False
        and layer.compute_dtype == "float32"
    )


def _has_three_masks(layer: Any) -> bool:
    """A GRU that drops other inputs for each gate."""
    return bool(layer.dropout) and layer.cell.implementation == 1


def _of_one_bias(
    kernel: torch.Tensor, recurrent: torch.Tensor, bias: torch.Tensor
) -> list[torch.Tensor]:
    """Of an LSTM, whose gates come in the same order in both, and a simple layer."""
    zeros = torch.zeros_like(bias)  # torch has a bias for each of the two products
    return [kernel.T.contiguous(), recurrent.T.contiguous(), bias, zeros]


def _of_gru(
    kernel: torch.Tensor, recurrent: torch.Tensor, bias: torch.Tensor
) -> list[torch.Tensor]:
    """Its gates are update, reset, new in Keras, and reset, update, new in torch."""

    def reordered(gates: torch.Tensor) -> torch.Tensor:
        update, reset, new = gates.chunk(3, -1)
        return torch.cat([reset, update, new], -1)

    kernels = [reordered(matrix).T.contiguous() for matrix in (kernel, recurrent)]
    return [*kernels, *reordered(bias)]


def _loop(layer: Any, by_keras: Loop, by_torch: ByTorch) -> Loop:
    """The layer's loop over the steps of sequences [batch, steps, features]: the last output
    [batch, units], all outputs [batch, steps, units], and the states."""
    run = by_torch.loop(layer)

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
        weights = by_torch.weights(kernel, cell.recurrent_kernel.value, cell.bias.value)
        size = len(sequences), layer.units  # torch's layers would read beyond a smaller state
        states = [
            state.to(kernel.dtype).expand(size).contiguous().unsqueeze(0)
            for state in (initial_state if _is_several(initial_state) else [initial_state])
        ]
        settings = True, 1, 0.0, torch.is_grad_enabled(), False, True
        outputs, *states = run(sequences, states if states[1:] else states[0], weights, *settings)
        return outputs[:, -1], outputs, [state.squeeze(0) for state in states]

    return inner_loop


def _is_several(states: Any) -> bool:
    return isinstance(states, (list, tuple))

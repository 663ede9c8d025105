"""Keras' recurrent layers by torch's, as Keras itself has them by cuDNN on a GPU.

On a CPU Keras calls up to twenty operations of torch for each step of a sequence; torch has one for
all steps. Sums are taken in another order, so what comes out differs in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from phalanx.models.keras3.masked_steps import to_front, to_their_places

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
        mask = mask[0] if _is_several(mask) else mask  # of the sequences; then those of states
        if sequences.device.type != "cpu" or not _may_have(mask, layer):
            return by_keras(sequences, initial_state, mask, training=training)
        sequences, mask = _in_turn(layer, sequences, mask, training)
        states = _states(layer, initial_state, len(sequences))
        cell = layer.cell
        weights = by_torch.weights(cell.kernel.value, cell.recurrent_kernel.value, cell.bias.value)
        settings = True, 1, 0.0, torch.is_grad_enabled(), False, True
        outputs, *states = run(sequences, states if states[1:] else states[0], weights, *settings)
        if mask is not None:
            outputs = to_their_places(outputs, mask, layer.zero_output_for_mask)
        return outputs[:, -1], outputs, [state.squeeze(0) for state in states]

    return inner_loop


def _may_have(mask: torch.Tensor | None, layer: Any) -> bool:
    """torch's last states are those after all steps, masked ones too; nobody may ask for them."""
    return mask is None or (mask.ndim == 2 and not (layer.return_state or layer.stateful))


def _in_turn(
    layer: Any, sequences: torch.Tensor, mask: torch.Tensor | None, training: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The steps in the order in which the layer takes them, and which of them count."""
    sequences = sequences.to(layer.cell.kernel.value.dtype)  # a user's `call` may give integers
    if training and layer.dropout:
        sequences = sequences * layer.cell.get_dropout_mask(sequences[:, 0, :]).unsqueeze(1)
    mask = None if mask is None else mask.to(torch.bool)
    if layer.go_backwards:
        sequences, mask = sequences.flip(1), None if mask is None else mask.flip(1)
    return sequences if mask is None else to_front(sequences, mask), mask


def _states(layer: Any, initial_state: Any, count: int) -> list[torch.Tensor]:
    """Those that so many sequences begin with, [1, batch, units] each."""
    dtype, size = layer.cell.kernel.value.dtype, (count, layer.units)
    return [
        # torch's loop would read beyond a smaller state
        state.to(dtype).expand(size).contiguous().unsqueeze(0)
        for state in (initial_state if _is_several(initial_state) else [initial_state])
    ]


def _is_several(states: Any) -> bool:
    return isinstance(states, (list, tuple))

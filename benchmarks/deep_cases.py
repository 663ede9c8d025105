"""The cases of deep.py: a torch module, the same as a Keras model, their data and their targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import data
from cases import CLASSES, QUICK_STEPS, Ratio
from deep_names import DDP, KERAS, LIMIT, LIMIT_FUSED, PHALANX_2, PHALANX_KERAS

if TYPE_CHECKING:
    import torch

OVER_DDP = Ratio("torch DDP x2 over Phalanx", DDP, PHALANX_2)
OVER_LIMIT = Ratio("Phalanx over no communication x2", PHALANX_2, LIMIT)
OVER_LIMIT_FUSED = Ratio("Phalanx over the same with fused Adam", PHALANX_2, LIMIT_FUSED)
OVER_KERAS = Ratio("Keras' own fit over Phalanx's of the Keras model", KERAS, PHALANX_KERAS)
RATIOS = (OVER_DDP, OVER_LIMIT, OVER_LIMIT_FUSED, OVER_KERAS)
CEILINGS = (OVER_LIMIT, OVER_LIMIT_FUSED)  # the smaller, the better
AT_THE_LIMIT = 1.05


@dataclass(frozen=True)
class DeepCase:
    """One training that every contestant does.

    shape: of one sample for torch; keras_shape: for Keras. module, model: make the network anew.
    epochs: of one round. targets: bounds of ratios.
    """

    key: str
    title: str
    load: Callable[[], data.Data]
    shape: tuple[int, ...]
    keras_shape: tuple[int, ...]
    module: Callable[[], torch.nn.Module]
    model: Callable[[tuple[int, ...]], Any]
    batch: int
    n_samples: int
    epochs: int
    targets: Mapping[Ratio, float]

    @property
    def steps(self) -> int:
        """Steps of an epoch; a last, smaller batch counts as one."""
        return -(-self.n_samples // self.batch)

    def samples(self, for_keras: bool = False) -> data.Data:
        """The samples in the shape that the network takes."""
        first = self.load().first(self.n_samples)
        shape = self.keras_shape if for_keras else self.shape
        return replace(first, x=first.x.reshape(-1, *shape))

    def quick(self) -> DeepCase:
        """A few steps only, to see that everything runs."""
        return replace(self, n_samples=min(self.n_samples, QUICK_STEPS * self.batch), epochs=1)


@dataclass(frozen=True)
class Perceptron:
    """Linear layers with ReLU between them, by their sizes."""

    sizes: tuple[int, ...]

    def module(self) -> torch.nn.Module:
        from torch import nn

        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(self.sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def model(self, shape: tuple[int, ...]) -> Any:
        from keras import Input, Sequential, layers

        hidden = [layers.Dense(size, activation="relu") for size in self.sizes[1:-1]]
        return Sequential([Input(shape), *hidden, layers.Dense(self.sizes[-1])])


def convolutional_module() -> torch.nn.Module:
    """Keras' MNIST convnet."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(64 * 12 * 12, 128), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(128, CLASSES),
    )  # fmt: skip


def convolutional_model(shape: tuple[int, ...]) -> Any:
    """The same in Keras."""
    from keras import Input, Sequential, layers

    return Sequential([
        Input(shape), layers.Conv2D(32, 3, activation="relu"),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(2), layers.Dropout(0.25),
        layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.5),
        layers.Dense(CLASSES),
    ])  # fmt: skip


def recurrent_module() -> torch.nn.Module:
    """An LSTM that reads an image row by row."""
    from deep_modules import RowReader

    return RowReader(28, 128, CLASSES)


def recurrent_model(shape: tuple[int, ...]) -> Any:
    """The same in Keras."""
    from keras import Input, Sequential, layers

    return Sequential([Input(shape), layers.LSTM(128), layers.Dense(CLASSES)])


def goals(ddp: float, keras: float, is_near_limit: bool) -> dict[Ratio, float]:
    """The bounds of a case's ratios."""
    bounds = {OVER_DDP: ddp, OVER_KERAS: keras}
    return bounds | {OVER_LIMIT: AT_THE_LIMIT} if is_near_limit else bounds


def perceptron_case(
    key: str,
    load: Callable[[], data.Data],
    sizes: tuple[int, ...],
    batch: int,
    n_samples: int,
    epochs: int,
    targets: Mapping[Ratio, float],
) -> DeepCase:
    """A case of a multi-layer perceptron."""
    source = "digits" if load is data.digits else "MNIST"
    title = f"{source} MLP {'-'.join(map(str, sizes))}, batch {batch}"
    network, shape = Perceptron(sizes), sizes[:1]
    return DeepCase(
        key, title, load, shape, shape, network.module, network.model, batch, n_samples, epochs,
        targets,
    )  # fmt: skip


EVERY = (
    perceptron_case(
        "digits", data.digits, (64, 100, CLASSES), 200, 1797, 300, goals(5.0, 3.0, False)
    ),
    perceptron_case(
        "mnist-small", data.mnist, (784, 256, 128, CLASSES), 256, 60 * 256, 8,
        goals(2.0, 2.0, False),
    ),
    perceptron_case(
        "mnist-wide", data.mnist, (784, 2048, 2048, CLASSES), 256, 20 * 256, 2,
        goals(1.4, 1.5, True),
    ),
    DeepCase(
        "mnist-cnn", "MNIST CNN, batch 128", data.mnist, (1, 28, 28), (28, 28, 1),
        convolutional_module, convolutional_model, 128, 10 * 128, 2, goals(1.1, 1.2, True),
    ),
    DeepCase(
        "mnist-lstm", "MNIST LSTM of 128 over rows, batch 128", data.mnist, (28, 28), (28, 28),
        recurrent_module, recurrent_model, 128, 30 * 128, 4, goals(1.15, 1.8, True),
    ),
)  # fmt: skip
DEEP_CASES = {case.key: case for case in EVERY}

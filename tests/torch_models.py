"""Tiny torch models, each made from a seed, and data that suit them."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations

torch.set_num_threads(1)  # of the plain loops that trainings are compared with
RNG = np.random.default_rng(11)
N = 48
X = torch.from_numpy(RNG.normal(size=(N, 6)).astype(np.float32))
CLASSES = torch.from_numpy(np.argmax(X.numpy()[:, :3], axis=1))
VALUES = (X[:, :2] * torch.tensor([1.0, -2.0])).contiguous()
IMAGES = torch.from_numpy(RNG.normal(size=(N, 1, 6, 6)).astype(np.float32))
SERIES = torch.from_numpy(RNG.normal(size=(N, 5, 4)).astype(np.float32))
TOKENS = torch.from_numpy(RNG.integers(0, 9, size=(N, 5)))


def made(kind, seed=0):
    """A module with the initial weights of a seed, whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind()


def mlp():
    return made(lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)))


def wide():
    """With more than one block to update."""
    return made(lambda: nn.Sequential(nn.Linear(6, 900), nn.ReLU(), nn.Linear(900, 3)))


def regressor():
    return made(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)))


def cnn():
    return made(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
            nn.Linear(64, 3),
        )
    )  # fmt: skip


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def lstm():
    return made(Lstm)


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(
            8, 2, dim_feedforward=12, dropout=0.2, batch_first=True
        )
        self.rise, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.block(self.rise(x)).mean(dim=1))


def transformer():
    return made(Attentive)


class Tied(nn.Module):
    """A language model whose embedding is also its last layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.middle = nn.Linear(8, 8)
        self.last = nn.Linear(8, 9, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, tokens):
        return self.last(torch.tanh(self.middle(self.embedding(tokens)))).transpose(1, 2)


def tied():
    return made(Tied)


def parametrized():
    """Weights that are computed of others, one with buffers of its own."""
    return made(
        lambda: nn.Sequential(
            parametrizations.weight_norm(nn.Linear(6, 9)), nn.Tanh(),
            parametrizations.orthogonal(nn.Linear(9, 9)), nn.Tanh(),
            parametrizations.spectral_norm(nn.Linear(9, 3)),
        )
    )  # fmt: skip


KINDS = {
    "mlp": (mlp, X, CLASSES),
    "wide": (wide, X, CLASSES),
    "cnn": (cnn, IMAGES, CLASSES),
    "lstm": (lstm, SERIES, CLASSES),
    "transformer": (transformer, SERIES, CLASSES),
    "tied": (tied, TOKENS, TOKENS),
    "parametrized": (parametrized, X, CLASSES),
}


def parameters(module):
    """Everything that a module has learnt, buffers too."""
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def assert_alike(one, other, **tolerances):
    """Two modules have the same parameters: the same bits, or close."""
    first, second = parameters(one), parameters(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        if tolerances:
            np.testing.assert_allclose(value, second[name], **tolerances, err_msg=name)
        else:
            np.testing.assert_array_equal(value, second[name], err_msg=name)


class Samples(torch.utils.data.Dataset):
    """Samples taken one by one; the one at `fails_at` cannot be read."""

    def __init__(self, fails_at=None):
        self.fails_at = fails_at

    def __len__(self):
        return N

    def __getitem__(self, index):
        if index == self.fails_at:
            raise OSError("the file is damaged")
        return X[index], CLASSES[index]


class Augmented(Samples):
    """Draws from all three generators for each sample."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        noise = torch.randn(6) + random.gauss(0, 1) + float(np.random.normal())
        return x + 0.1 * noise, y

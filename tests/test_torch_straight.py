"""Classes of the user's that do the same whenever they are called are known, and no others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn, relu
from torch.nn import functional

import phalanx
from phalanx.fitting.pytorch import factoring
from phalanx.fitting.pytorch.straight import is_straight, is_straight_function

WIDTH = 3
calls = []


def shifted(x):
    return x * WIDTH + math.pi


def counted(x):
    calls.append(1)
    return x


class Mixin:
    def helped(self, x):
        return counted(x)


class Base(nn.Module):
    rate = 0.5

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Tanh()])
        self.scale = nn.Parameter(torch.ones(8))
        self.extra = None
        self.act, self.own = functional.silu, counted
        self.n, self.seen, self.log = 2, 0, []

    def encode(self, x):
        return self.act(self.fc1(x)) * self.scale

    @property
    def halved(self):
        return 0.5


def straight(forward, base=Base):
    """Whether a class with this forward pass is known."""
    module = type("Net", (base,), {"forward": forward})()
    return is_straight(module, list(module.modules()))


def usual(self, x):
    x = functional.relu(self.fc1(x), inplace=True)
    x = functional.dropout(x, 0.2, training=self.training)
    return self.fc2(x)


def methods(self, x):
    return self.fc2(shifted(self.encode(x)))


def lists(self, x):
    x = relu(self.fc1(x.flatten(1)))
    for layer in self.layers:
        x = layer(x) + x
    return self.fc2(x)


def shapes(self, x):
    x = self.fc1(x.view(len(x), -1)[:, -6:]) * self.rate
    first, last = x[:, :4], x[..., 4:]
    x = torch.cat([first, last], dim=1)
    return self.fc2(x.reshape(x.size(0), x.shape[1])) / math.sqrt(self.n)


def settings(self, x):
    x = self.fc1(x)
    if self.extra is not None:
        x = self.extra(x)
    if self.training:
        x = x + torch.randn_like(x)
    return self.fc2(x)


def defaults(self, x, mask=None, slope=0.1):
    x = functional.leaky_relu(self.fc1(x), slope)
    if mask is not None:
        x = x * mask
    return self.fc2(x)


@pytest.mark.parametrize(
    "forward", [usual, methods, lists, shapes, settings, defaults], ids=lambda f: f.__name__
)
def test_what_does_the_same_whenever_it_is_called_is_straight(forward):
    assert straight(forward)


def by_value(self, x):
    return self.fc2(self.fc1(x)) if x.sum() > 0 else self.fc2(self.fc1(-x))


def counting(self, x):
    self.seen += 1
    return self.fc2(self.fc1(x))


def by_count(self, x):
    return self.fc2(self.fc1(x)) if self.seen > 3 else self.fc2(self.fc1(-x))


def keeping(self, x):
    self.log.append(x)
    return self.fc2(self.fc1(x))


def elsewhere(self, x):
    return self.fc2(counted(self.fc1(x)))


def chosen(self, x):
    return self.fc2(self.layers[x.argmax()](self.fc1(x)))


def chosen_of_two(self, x):
    return (self.fc1, self.fc2)[x.argmax()](x)


def numbers(self, x):
    return self.fc2(self.fc1(x)) * x.max().item()


def repeated(self, x):
    x = self.fc1(x)
    for _ in range(self.n):
        x = self.layers[0](x)
    return self.fc2(x)


def rows(self, x):
    return torch.stack([self.fc2(self.fc1(row)) for row in x])


def guarded(self, x):
    with torch.no_grad():
        x = self.fc1(x)
    return self.fc2(x)


def printing(self, x):
    print(x)
    return self.fc2(self.fc1(x))


def own_function(self, x):
    return self.fc2(self.own(self.fc1(x)))


def by_property(self, x):
    return self.fc2(self.fc1(x) * self.halved)


def in_data(self, x):
    self.fc1.weight.data.clamp_(-1, 1)
    return self.fc2(self.fc1(x))


def switching(self, x):
    self.eval()
    return self.fc2(self.fc1(x))


def by_parameter(self, x):
    return self.fc2(self.fc1(x)) if self.scale else x


def remembering(self, x, known=[]):  # noqa: B006
    return self.fc2(self.fc1(x))


def conditional(self, x):
    return torch.cond(x.sum() > 0, self.fc1, self.fc1, (x,))


def seeded(self, x):
    return self.fc2(self.fc1(x)) + torch.initial_seed()


def of_nothing(self, x):
    return missing(self.fc2(self.fc1(x)))  # noqa: F821


def of_class(self, x):
    return activation()(self.fc2(self.fc1(x)))


activation = nn.ReLU


def of_global(self, x):
    return self.fc2(elsewhere_made(self.fc1(x)))


elsewhere_made = nn.Linear(8, 8)


@pytest.mark.parametrize(
    "forward",
    [
        by_value, counting, by_count, keeping, elsewhere, chosen, chosen_of_two, numbers, repeated,
        rows, guarded, printing, own_function, by_property, in_data, switching, by_parameter,
        remembering, of_global, conditional, seeded, of_nothing, of_class,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_whatever_may_do_otherwise_is_not_straight(forward):
    assert not straight(forward)


def test_a_class_that_changes_how_modules_are_called_is_not_straight():
    for name in ("__call__", "__getattr__", "train", "_call_impl"):
        module = type("Net", (Base,), {"forward": usual, name: getattr(nn.Module, name)})()
        assert not is_straight(module, list(module.modules()))
    module = type("Net", (Base,), {"forward": usual})()
    module.forward = lambda x: x
    assert not is_straight(module, list(module.modules()))


def test_what_comes_of_other_classes_is_looked_at(monkeypatch):
    class Mixed(Base, Mixin):
        def forward(self, x):
            return self.fc2(self.helped(self.fc1(x)))

    module = Mixed()
    assert not is_straight(module, list(module.modules()))
    monkeypatch.setattr(Mixin, "helped", lambda self, x: x * 2)
    assert is_straight(module, list(module.modules()))


def test_a_class_on_a_layer_of_torchs_is_straight_unless_it_changes_that():
    class Named(nn.Linear):
        pass

    class Changed(nn.Linear):
        def forward(self, x):
            return functional.linear(x, self.weight * 2, self.bias)

    class Padded(nn.Conv1d):
        def _conv_forward(self, x, weight, bias):
            return counted(x)

    class Activated(nn.TransformerEncoderLayer):
        pass

    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    transformers = [Activated(4, 2, 8, activation=act) for act in (functional.gelu, counted)]
    layers = Named(2, 3), Changed(2, 3), Padded(2, 3, 1), normed, *transformers
    assert [is_straight(layer, list(layer.modules())) for layer in layers] == [1, 1, 0, 0, 1, 0]


def test_losses_are_functions_like_others():
    known = []
    assert is_straight_function(
        lambda out, y: functional.cross_entropy(out.flatten(0, 1), y.flatten())
    )
    assert not is_straight_function(lambda out, y: known.append(y) or out.mean())
    assert not is_straight_function(lambda out, y: out.mean() if y.sum() else out.sum())
    assert not is_straight_function(nn.MSELoss())


class Usual(nn.Module):
    """As most people write a perceptron."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 90), nn.Linear(90, 70), nn.Linear(70, 3)

    def forward(self, x):
        x = functional.dropout(torch.tanh(self.fc1(x)), 0.2, self.training)
        return self.fc3(functional.relu(self.fc2(x)))


class Doubting(Usual):
    def forward(self, x):
        return super().forward(x)


def in_sequence():
    own = Usual()
    return nn.Sequential(
        own.fc1, nn.Tanh(), nn.Dropout(0.2), own.fc2, nn.ReLU(), own.fc3,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("epochs", [2, 60], ids=["short", "taped"])
@pytest.mark.parametrize("fewest", [0, factoring.FEWEST], ids=["factors", "gradients"])
def test_a_straight_class_is_trained_as_torchs_own(workers, epochs, fewest, monkeypatch):
    """To the same bits, so by factors and by a tape, if that is."""
    monkeypatch.setattr(factoring, "FEWEST", fewest)
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(120, 6)).astype(np.float32), rng.integers(3, size=120)
    runs = []
    for make in (Usual, in_sequence, Doubting):
        torch.manual_seed(0)
        more = {"epochs": epochs, "batch_size": 50, "shards": 2, "workers": workers}
        runs.append(phalanx.fit(make(), samples, loss="cross_entropy", **more))
    straight, sequence, doubting = (run.digest for run in runs)
    assert straight == sequence
    assert (straight == doubting) is (fewest > 0)  # gradients come to the same bits without a tape

"""A tape of a model's operations gives the bits that the model gives, or is not used."""

import random

import numpy as np
import pytest

import keras_models as km
import phalanx
from phalanx.fitting import worth
from phalanx.models.pytorch import tracing
from phalanx.models.pytorch.leaving import LeftGradients

keras, torch = km.keras, pytest.importorskip("torch")


def recurrent():
    layers = keras.layers
    sizes = [keras.Input((8,)), layers.Reshape((4, 2)), layers.LSTM(5), layers.Dense(3)]
    return keras.Sequential(sizes)


def dense():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, "tanh", kernel_regularizer="l2"), layers.Dropout(0.3),
         layers.Dense(3)]
    )  # fmt: skip


def fitted(make, workers=1, metrics=None, seed=0):
    keras.utils.set_random_seed(seed)
    model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=metrics)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(70, 8, generator=generator).numpy()
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
    history = phalanx.fit(
        model, x, y, batch_size=32, epochs=3, shards=2, workers=workers, verbose=0
    )
    return history.run.digest, history.history["loss"], history.history.get("accuracy")


def tapes(monkeypatch):
    """Those that are asked for from now on, though few steps are made."""
    used, faster = [], tracing.faster_pass
    monkeypatch.setattr(worth, "WORTHWHILE", 1)
    monkeypatch.setattr(
        tracing, "faster_pass", lambda *given: used.append(tape := faster(*given)) or tape
    )
    return used


@pytest.mark.parametrize("metrics", [None, ["accuracy"]], ids=["plain", "measured"])
@pytest.mark.parametrize("make", [dense, recurrent])
def test_a_tape_gives_the_same_bits(make, metrics, monkeypatch):
    by_keras = fitted(make, metrics=metrics)
    used = tapes(monkeypatch)
    assert fitted(make, metrics=metrics) == by_keras
    assert len(used) == 2
    assert None not in used  # two sizes of shards: of 16 rows, and of 3
    assert fitted(make, 2, metrics=metrics) == by_keras


def test_what_depends_on_a_value_of_the_first_call_is_left_to_keras():
    weight = torch.nn.Parameter(torch.ones(3))

    def loss_of(x):
        scale = float(x.sum())  # a tape would hold the first one
        out = x @ weight * scale
        return out.mean(), out

    assert (
        tracing.faster_pass(loss_of, LeftGradients([weight]), [torch.arange(12.0).reshape(4, 3)])
        is None
    )


@pytest.mark.parametrize(
    "number",
    [
        lambda x, weight: float(x.numpy().mean()),
        lambda x, weight: float(np.asarray(x).mean()),
        lambda x, weight: sum(x.flatten().tolist()),
        lambda x, weight: float(weight.sum()),
        lambda x, weight: 1.0 if weight[0] else 2.0,
        lambda x, weight: abs(weight.detach().numpy()).max(),
    ],
)
def test_what_a_tape_would_hold_unnoticed_is_left_to_keras(number):
    weight = torch.nn.Parameter(torch.ones(3))

    def loss_of(x):  # the numbers do not depend on the order of the samples
        out = x @ weight * number(x, weight)
        return out.mean(), out

    assert (
        tracing.faster_pass(loss_of, LeftGradients([weight]), [torch.arange(12.0).reshape(4, 3)])
        is None
    )


def test_sequences_that_are_padded_to_another_length_have_no_tape():
    assert tracing.signature([torch.zeros(4, 3)]) != tracing.signature([torch.zeros(4, 5)])
    assert tracing.signature([torch.zeros(4)]) != tracing.signature([torch.zeros(4).double()])
    assert tracing.signature([torch.zeros(4)]) == tracing.signature([torch.ones(4)])


class Padded(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return np.full(1 + i % 4, i % 3), i % 2


def collated(samples):
    length = max(len(tokens) for tokens, _ in samples)
    rows = [np.pad(tokens, (0, length - len(tokens))) for tokens, _ in samples]
    return torch.from_numpy(np.stack(rows)), torch.tensor([y for _, y in samples])


def test_a_model_of_such_sequences_is_trained_as_without_tapes(monkeypatch):
    def trained():
        keras.utils.set_random_seed(0)
        layers = keras.layers
        model = keras.Sequential(
            [keras.Input((None,), dtype="int64"), layers.Embedding(3, 4),
             layers.Conv1D(4, 1, activation="relu"), layers.GlobalAveragePooling1D(),
             layers.Dense(2)]
        )  # fmt: skip
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        data = torch.utils.data.DataLoader(Padded(), 8, collate_fn=collated)
        return phalanx.fit(model, data, epochs=2, shards=2, workers=1, verbose=0).run.digest

    by_keras = trained()
    monkeypatch.setattr(worth, "WORTHWHILE", 1)
    assert trained() == by_keras


def test_a_tape_sees_parameters_that_have_changed():
    weight, other = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))

    def loss_of(x):
        return (x @ weight).square().sum(), x

    x = torch.arange(12.0).reshape(4, 3)
    played, draws = tracing.faster_pass(loss_of, LeftGradients([weight, other]), [x])
    assert not draws
    with torch.no_grad():
        weight.mul_(2)
    mine, theirs = ([torch.full((3,), 7.0) for _ in range(2)] for _ in range(2))
    loss, output = played([x], mine)
    tracing.pass_of(loss_of, LeftGradients([weight, other]))([x], theirs)
    assert loss == (x * 2).sum(1).square().sum()
    assert torch.equal(output, x)
    assert torch.equal(mine[0], theirs[0])
    assert torch.equal(mine[1], torch.zeros(3))
    assert not loss.requires_grad


def test_an_update_by_a_tape_changes_the_same_values_in_place():
    values = [torch.nn.Parameter(torch.ones(5), requires_grad=False) for _ in range(2)]

    def update(grad):
        values[1].mul_(0.9).add_(grad)
        values[0].sub_(0.1 * values[1])

    faster = tracing.faster_update(update, values, torch.zeros(5))
    assert faster is not update
    assert all(torch.equal(value, torch.ones(5)) for value in values)
    faster(torch.full((5,), 2.0))
    assert torch.equal(values[1], torch.ones(5).mul_(0.9).add_(2.0))


def test_a_small_example_is_repeated():
    [rows] = tracing.repeated([torch.arange(3).numpy()], 7)
    assert rows.tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_a_recording_that_fails_leaves_no_mask(kind, monkeypatch):
    """Cells keep their masks until a call ends; those of the recording would be a step's."""

    def make():
        layers = keras.layers
        cell = getattr(layers, kind)(5, dropout=0.2, recurrent_dropout=0.2)
        return keras.Sequential([keras.Input((8,)), layers.Reshape((4, 2)), cell, layers.Dense(3)])

    by_keras = fitted(make)
    monkeypatch.setattr(worth, "WORTHWHILE", 1)
    assert fitted(make) == fitted(make, 2) == by_keras


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["Python", "NumPy"])
def test_what_others_draw_is_no_constant_of_a_tape(draw):
    weight = torch.nn.Parameter(torch.ones(3))

    def loss_of(x):
        out = x @ weight * (2.0 if draw() < 1e-9 else 1.0)
        return out.mean(), out

    samples = [torch.arange(12.0).reshape(4, 3)]
    assert tracing.faster_pass(loss_of, LeftGradients([weight]), samples) is None


def figures(model, x, y):
    settings = dict(batch_size=14, epochs=3, shards=1, workers=1, verbose=0)
    return phalanx.fit(model, x, y, **settings).history


def test_metrics_know_what_is_masked(monkeypatch):
    def found():
        keras.utils.set_random_seed(0)
        layers = keras.layers
        model = keras.Sequential(
            [keras.Input((5,)), layers.Embedding(12, 4, mask_zero=True),
             layers.LSTM(3, return_sequences=True), layers.Dense(3)]
        )  # fmt: skip
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        return figures(model, km.TOKENS, km.TOKENS % 3)

    by_keras = found()
    used = tapes(monkeypatch)
    assert found() == by_keras
    assert len(used) == 1
    assert None not in used


class Keeping(keras.Model):
    """Its metric gets what its loss has kept."""

    def __init__(self):
        super().__init__()
        self.hidden, self.last = keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)
        self.tracker = keras.metrics.Mean(name="error")

    def call(self, x):
        return self.last(self.hidden(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.errors = keras.ops.mean((y - y_pred) ** 2, axis=-1)
        return keras.ops.mean(self.errors)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.tracker.update_state(self.errors)
        return self.get_metrics_result()


class Telling(Keeping):
    """Its loss tells its metric itself."""

    compute_metrics = keras.Model.compute_metrics

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        self.tracker.update_state(self.errors)
        return loss


@pytest.mark.parametrize(("kind", "count"), [(Keeping, 0), (Telling, 1)])
def test_metrics_of_what_only_the_loss_knows(kind, count, monkeypatch):
    def found():
        keras.utils.set_random_seed(0)
        model = kind()
        model.compile("adam")
        return figures(model, km.X, km.VALUES)

    by_keras = found()
    np.testing.assert_allclose(by_keras["error"], by_keras["loss"], rtol=1e-5)
    used = tapes(monkeypatch)
    assert found() == by_keras
    assert len(used) == count
    assert None not in used

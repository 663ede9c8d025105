"""What a checkpoint tells of a user's own objects: another training is refused."""

from __future__ import annotations

from functools import partial

import pytest

import keras_models
import phalanx
import torch_models
from keras_models import keras, layers
from phalanx import CheckpointError
from phalanx.fitting.told import name_of, text_of
from phalanx.training import checkpoint
from phalanx.training.facts import differing

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional
pytestmark = keras_models.marks


def weighted(outputs, target, factor=1.0):
    return factor * functional.cross_entropy(outputs, target)


def module(p=0.1, activation=nn.ReLU):
    return torch_models.made(
        lambda: nn.Sequential(nn.Linear(6, 8), activation(), nn.Dropout(p), nn.Linear(8, 3))
    )


def fit(folder, net=None, epochs=3, lr=0.1, optimizer=None, loss="cross_entropy", **more):
    net = net or module()
    options = {"weight_decay": 0.01, "momentum": 0.9, **more.pop("settings", {})}
    optimizer = optimizer or torch.optim.SGD(net.parameters(), lr=lr, **options)
    return phalanx.fit(
        net, (torch_models.X, torch_models.CLASSES), loss=loss, optimizer=optimizer, epochs=epochs,
        batch_size=16, shards=2, workers=1, checkpoint=folder, resume=True, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"net": (0.2,)}, r"module: 2\.p \(0\.1 there, 0\.2 here\)"),
        ({"net": (0.1, nn.Tanh)}, r"module: 1 \(ReLU there, Tanh here\)"),
        ({"lr": 0.2}, r"settings: lr of group 0 \(0\.1 there, 0\.2 here\)"),
        ({"settings": {"momentum": 0.8}}, "settings: momentum of group 0"),
        ({"settings": {"weight_decay": 0}}, "settings: weight_decay of group 0"),
        ({"settings": {"nesterov": True}}, "settings: nesterov of group 0"),
        ({"loss": weighted}, r"objective: loss \(torch\.nn.functional\.cross_entropy there, "),
        ({"loss": partial(weighted, factor=2.0)}, r"weighted\(factor=2\)"),
        ({"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "objective: loss"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_another_training_of_a_module_is_refused(tmp_path, change, named):
    fit(tmp_path, epochs=1)
    if "net" in change:
        change = {"net": module(*change["net"])}
    with pytest.raises(CheckpointError, match=f"differs in {named}|differs in .*{named}"):
        fit(tmp_path, **change)


def test_the_loss_is_told_by_what_it_was_created_with(tmp_path):
    fit(tmp_path, epochs=1, loss=nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 1.0])))
    with pytest.raises(CheckpointError, match=r"loss\.weight \([0-9a-f]{12} there"):
        fit(tmp_path, loss=nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 1.0])))
    with pytest.raises(CheckpointError, match=r"loss\.label_smoothing \(0 there, 0\.5 here"):
        fit(tmp_path, loss=nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 1.0]), label_smoothing=0.5))


class Features(nn.Module):
    """Random features, a frozen layer, and buffers of every kind that a step leaves alone."""

    def __init__(self):
        super().__init__()
        self.register_buffer("random", torch.randn(6, 8))
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("complex", torch.ones(3, dtype=torch.complex64).conj())
        self.register_buffer("flag", torch.tensor(True))
        self.register_buffer("short", torch.ones(3, dtype=torch.bfloat16), persistent=False)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.norm(self.frozen(torch.cos(x @ self.random))))


@pytest.mark.parametrize("name", ["random", "sparse", "complex", "flag", "short", "frozen.bias"])
def test_what_is_not_trained_is_told(tmp_path, name):
    net = torch_models.made(Features)
    fit(tmp_path, net, epochs=1)
    assert fit(tmp_path, net, epochs=2).events[0].what == "resumed"
    assert fit(tmp_path, torch_models.made(Features)).events[0].what == "resumed"
    other = torch_models.made(Features)
    named = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    with torch.no_grad():
        named[name].zero_()
    with pytest.raises(CheckpointError, match=rf"differs in constants: {name} \([0-9a-f]{{12}} th"):
        fit(tmp_path, other, epochs=4)


def test_frozen_weights_of_a_loss_are_told(tmp_path):
    class Distance(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.eyes = torch_models.made(lambda: nn.Linear(3, 4), seed).requires_grad_(False)

        def forward(self, outputs, target):
            wanted = functional.one_hot(target, 3).float()
            return functional.mse_loss(self.eyes(outputs), self.eyes(wanted))

    fit(tmp_path, epochs=1, loss=Distance(0))
    with pytest.raises(CheckpointError, match=r"objective: loss\.eyes\.bias"):
        fit(tmp_path, loss=Distance(1))


def test_an_optimizer_that_has_begun_goes_on(tmp_path):
    """A scheduler has changed its rate meanwhile."""
    net = module()
    live = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(live, 1, 0.5)
    fit(tmp_path, net, 2, optimizer=live, scheduler=scheduler)
    assert live.param_groups[0]["lr"] < 0.1
    assert fit(tmp_path, net, 3, optimizer=live).events[0].what == "resumed"


def test_a_refused_checkpoint_leaves_the_optimizer_alone(tmp_path):
    fit(tmp_path, epochs=2)
    net = module(0.2)
    live = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(live, 1, 0.5)
    with pytest.raises(CheckpointError, match="module"):
        fit(tmp_path, net, optimizer=live, scheduler=scheduler)
    assert live.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("is_scheduled", [False, True])
@pytest.mark.parametrize("every", ["2 steps", "1 epoch"])
@pytest.mark.parametrize("sync_every", [1, 3])
def test_a_rate_that_a_callback_has_set_is_kept(tmp_path, is_scheduled, every, sync_every):
    def train(folder, stop=None):
        net = module()
        live = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.01, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(live, 3, 0.9) if is_scheduled else None

        def callback(epoch, logs):
            if epoch == 2:
                live.param_groups[0]["lr"] = 0.002
            return epoch == stop

        more = {"callbacks": callback, "checkpoint_every": every, "sync_every": sync_every}
        return fit(folder, net, 6, optimizer=live, scheduler=scheduler, **more)

    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", stop=4)
    resumed = train(tmp_path / "parts")
    assert resumed.events[0].what == "resumed"
    assert resumed.digest == whole.digest
    assert resumed.rates == whole.rates
    assert whole.rates[2] == 0.002


def test_a_checkpoint_that_tells_nothing_is_accepted(tmp_path):
    """An earlier Phalanx wrote it."""
    fit(tmp_path, epochs=1)
    saved = checkpoint.load(tmp_path)
    facts = {name: fact for name, fact in saved.facts.items() if name != "settings"}
    kinds = ("module", "constants", "objective", "settings")
    facts["identity"] = {k: v for k, v in facts["identity"].items() if k not in kinds}
    checkpoint.save(tmp_path, saved.step, saved.arrays, facts)
    assert fit(tmp_path, lr=0.3).events[0].what == "resumed"


def model(rate=0.1, activation="relu", regularizer=None, optimizer=None, loss=None):
    keras.utils.set_random_seed(1)
    hidden = layers.Dense(8, activation, kernel_regularizer=regularizer)
    made = keras.Sequential([keras.Input((6,)), hidden, layers.Dropout(rate), layers.Dense(3)])
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return keras_models.compiled(made, loss, optimizer or keras.optimizers.SGD(0.1, momentum=0.9))


def keras_fit(folder, made, epochs=3, **more):
    settings = {**keras_models.SETTINGS, "epochs": epochs, "workers": 1, **more}
    kept = {"checkpoint": folder, "resume": True}
    return phalanx.fit(made, keras_models.X, keras_models.LABELS, **settings, **kept).run


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rate": 0.2}, r"layers: 3 \(Dropout\)\.rate \(0\.1 there, 0\.2 here\)"),
        ({"activation": "tanh"}, r"layers: 2 \(Dense\)\.activation \(relu there, tanh here\)"),
        ({"regularizer": "l2"}, "kernel_regularizer"),
        ({"optimizer": lambda: keras.optimizers.SGD(0.2, momentum=0.9)}, "settings: learning_rate"),
        ({"optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.8)}, "settings: momentum"),
        ({"loss": keras.losses.SparseCategoricalCrossentropy(True, ignore_class=7)}, "compiled"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_another_training_of_a_keras_model_is_refused(tmp_path, change, named):
    keras_fit(tmp_path, model(), 1)
    made = {name: value() if name == "optimizer" else value for name, value in change.items()}
    with pytest.raises(CheckpointError, match=f"differs in .*{named}"):
        keras_fit(tmp_path, model(**made))


def test_a_keras_model_that_has_begun_goes_on(tmp_path):
    """A callback has changed its rate meanwhile; layers made anew have other names."""
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=9.0)
    made = model()
    keras_fit(tmp_path, made, 3, callbacks=[plateau])
    assert float(made.optimizer.learning_rate) < 0.1
    for again in (made, model()):
        assert keras_fit(tmp_path, again, 4).events[0].what == "resumed"


def with_constants(spread=1.0, seed=1):
    """A layer with what it has seen of data, a frozen one, and one with running statistics."""
    known = layers.Normalization()
    known.adapt(spread * keras_models.X)
    keras.utils.set_random_seed(seed)
    frozen = layers.Dense(8, trainable=False)
    parts = [keras.Input((6,)), known, frozen, layers.BatchNormalization(), layers.Dense(3)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return keras_models.compiled(keras.Sequential(parts), loss, "sgd")


def test_weights_of_keras_that_are_not_trained_are_told(tmp_path):
    made = with_constants()
    keras_fit(tmp_path, made, 1)
    for again in (made, with_constants()):
        assert keras_fit(tmp_path, again, 2).events[0].what == "resumed"
    with pytest.raises(CheckpointError, match=r"differs in constants: \d \(mean\) "):
        keras_fit(tmp_path, with_constants(spread=2.0))
    with pytest.raises(CheckpointError, match=r"differs in constants: \d \(kernel\) "):
        keras_fit(tmp_path, with_constants(seed=2))


def test_code_of_keras_lambdas_is_not_told():
    from phalanx.fitting.keras3.told import told_of

    one, other = (
        told_of(model(activation=function), []) for function in (lambda x: x, lambda x: x * 2)
    )
    assert one == other
    assert differing(one, told_of(model(activation="relu"), []))


def test_texts():
    assert text_of((1, 2.0, "a", None, True)) == "(1, 2, a, None, True)"
    assert text_of(1) == text_of(1.0)
    assert text_of([object()]) is None
    assert name_of(partial(weighted, factor=3)) == f"{__name__}.weighted(factor=3)"
    assert " at 0x" not in name_of(object())

"""Keras models: the same bits for any number of workers, whatever happens to them."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
import torch

import keras_models as km
import phalanx
from phalanx.testing import Fault, scripted

pytestmark = km.marks
ops = km.keras.ops
STEPS = 6  # two epochs of three


def trained(make, x, y=km.LABELS, workers=1, **more):
    model = make()
    history = phalanx.fit(model, x, y, workers=workers, **{**km.SETTINGS, **more})
    return model, history


def assert_same_for_any_workers(make, x, y=km.LABELS, workers=(2, 3, 4), **more):
    model, alone = trained(make, x, y, **more)
    assert len(alone.run.digest) == 64
    assert alone.run.steps == STEPS
    for n in workers:
        other, together = trained(make, x, y, n, **more)
        assert together.run.workers == n
        assert together.run.digest == alone.run.digest, n
        assert together.history == alone.history
        for a, b in zip(km.weights_of(model), km.weights_of(other), strict=True):
            np.testing.assert_array_equal(a, b)
    return alone


MODELS = {
    "mlp": (km.mlp, km.X),
    "cnn": (km.cnn, km.IMAGES),
    "images": (lambda: km.images(0.3), km.IMAGES),
    "lstm": (km.lstm, km.SERIES),
    "recurrent": (km.recurrent, km.SERIES),
    "masked": (km.masked, km.TOKENS),
    "transformer": (km.transformer, km.TOKENS),
    "tied": (km.tied, km.X),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_model(name):
    assert_same_for_any_workers(*MODELS[name])


@pytest.mark.parametrize("name", MODELS)
def test_another_seed_is_another_training(name):
    make, x = MODELS[name]
    assert trained(make, x, seed=4)[1].run.digest != trained(make, x)[1].run.digest


@pytest.mark.parametrize("clip", [{"global_clipnorm": 0.1}, {"clipnorm": 0.1}, {"clipvalue": 0.01}])
def test_clipping(clip):
    def make():
        return km.mlp(km.keras.optimizers.SGD(0.1, momentum=0.9, **clip))

    def free():
        return km.mlp(km.keras.optimizers.SGD(0.1, momentum=0.9))

    clipped = assert_same_for_any_workers(make, km.X)
    assert clipped.run.digest != trained(free, km.X)[1].run.digest


def test_clip_norm_of_phalanx():
    alone = assert_same_for_any_workers(km.mlp, km.X, clip_norm=0.1, workers=(3,))
    assert alone.run.digest != trained(km.mlp, km.X)[1].run.digest


def test_numbers_of_numpy_are_pythons():
    whole = dict(epochs=3, initial_epoch=1, batch_size=16, steps_per_epoch=2, seed=3, shards=2)
    pythons = trained(km.mlp, km.X, clip_norm=0.1, **whole)[1]
    of_numpy = {name: np.int64(value) for name, value in whole.items()}
    for n in (1, 2):
        run = trained(km.mlp, km.X, workers=n, clip_norm=np.float64(0.1), **of_numpy)[1]
        assert (run.run.digest, run.history) == (pythons.run.digest, pythons.history), n
        assert run.epoch == [1, 2]


def test_mixed_bfloat16():
    alone = assert_same_for_any_workers(lambda: km.mlp(dtype="mixed_bfloat16"), km.X)
    assert alone.run.digest != trained(km.mlp, km.X)[1].run.digest


OPTIMIZERS = (
    "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion",
    "Adafactor", "Lamb", "Muon",
)  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_though_blocks_change_hands(name):
    def make():
        return km.mlp(getattr(km.keras.optimizers, name)(0.01))

    undisturbed = trained(make, km.X)[1]
    with scripted(Fault(0, 3, "update"), Fault(1, 4, "commit")):
        disturbed = trained(make, km.X, workers=2)[1]
    assert disturbed.run.digest == undisturbed.run.digest


@pytest.mark.parametrize("aggregation", ["mean", "sum", "max", "median", "trimmed_mean"])
def test_any_aggregation(aggregation):
    assert_same_for_any_workers(km.mlp, km.X, workers=(3,), aggregation=aggregation)


@pytest.mark.parametrize("assignment", ["load_balanced", "dynamic"])
@pytest.mark.parametrize("distribution", ["sequential", "strided", "stratified"])
def test_any_distribution_and_assignment(distribution, assignment):
    more = dict(data_distribution=distribution, task_assignment=assignment)
    assert_same_for_any_workers(km.mlp, km.X, workers=(3,), **more)


def test_the_run_says_that_fewer_workers_took_part_than_were_asked_for():
    run = trained(km.mlp, km.X, workers=2, shards=1)[1].run
    assert run.workers == 1
    [event] = run.events
    assert event.what == "fewer workers"
    asked, why = event.detail.split(": ")
    assert asked == "2 workers were asked for and 1 took part"
    assert why.startswith("each batch is a single shard, which one worker computes")
    assert "Pass shards=N to let N of them work, or a larger batch_size" in why
    advised = trained(km.mlp, km.X, workers=2, shards=2)[1].run
    assert (advised.workers, advised.events) == (2, [])


def test_validation_and_weights():
    weights = km.RNG.random(km.N).astype(np.float32)
    more = dict(
        validation_split=0.2, class_weight={0: 2.0, 1: 0.5}, sample_weight=weights, epochs=3,
        batch_size=17,
    )  # fmt: skip
    alone = assert_same_for_any_workers(km.cnn, km.IMAGES, workers=(3,), **more)
    assert len(alone.history["val_loss"]) == 3


@cache
def undisturbed():
    """Of the network with the most that could go wrong: running statistics and dropout."""
    return trained(km.cnn, km.IMAGES)[1].run


def survives(n_workers, *faults):
    with scripted(*faults):
        run = trained(km.cnn, km.IMAGES, workers=n_workers)[1].run
    assert run.digest == undisturbed().digest
    assert run.losses == undisturbed().losses
    return [event for event in run.events if event.what in ("worker lost", "worker stuck")]


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("phase", ["enter", "compute", "publish", "reduce", "update", "commit"])
def test_a_worker_dies(phase, worker):
    lost = survives(2, Fault(worker, 2, phase))
    assert [event.worker for event in lost] in ([worker], [])
    assert lost or phase in ("compute", "publish", "reduce", "update", "commit")


def test_all_workers_die_in_the_same_step():
    lost = survives(3, *(Fault(worker, 2, "enter") for worker in range(3)))
    assert {event.worker for event in lost} == {0, 1, 2}


def test_a_worker_hangs():
    events = survives(2, Fault(1, 2, "enter", "hang"))
    assert {event.worker for event in events} <= {1}
    assert events


def test_a_replacement_dies_too():
    lost = survives(2, Fault(0, 1, "enter"), Fault(0, 1, "join", life=2))
    assert {event.worker for event in lost} == {0}


@pytest.mark.parametrize("step", range(1, 6))
def test_blocks_of_one_element_whoever_computes_their_shards(step):
    """A bias of one output is a block of its own where each variable is clipped by its norm; the
    shards that others compute in somebody's place are gathered before they are added."""

    def fitted(workers):
        keras = km.keras
        keras.utils.set_random_seed(3)
        layers = [keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.Adam(0.01, clipnorm=0.3), "mse")
        x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
        history = phalanx.fit(
            model, x, x.sum(axis=1), batch_size=12, epochs=2, shards=4, workers=workers, verbose=0
        )
        return history.run.digest

    with scripted(Fault(1, step, "compute", "kill")):
        shaken = fitted(2)
    assert shaken == fitted(1)


def test_statistics_that_the_first_rows_leave_are_trained_all_the_same():
    x = km.X.copy()
    x[:4] = 0  # blank, as the corners of images are

    def make():
        km.keras.utils.set_random_seed(1)
        parts = [
            km.keras.Input((6,)),
            km.layers.BatchNormalization(),
            km.layers.Dense(3, "softmax"),
        ]
        return km.compiled(km.keras.Sequential(parts))

    assert_same_for_any_workers(make, x, workers=(2,))
    model, history = trained(make, x, validation_data=(km.X, km.LABELS))
    assert np.abs(model.layers[0].moving_mean).max() > 0.001
    again = trained(make, x, workers=2, validation_data=(km.X, km.LABELS))[1]
    assert again.history == history.history


DRAWS = {
    "Keras": lambda n: km.keras.random.normal((n,)),
    "NumPy": np.random.rand,
    "Python": lambda n: [random.random() for _ in range(n)],
}


class Drawing(km.layers.Layer):
    """Has no generator of its own."""

    def __init__(self, of, **more):
        super().__init__(**more)
        self.of = of

    def get_config(self):
        return {**super().get_config(), "of": self.of}

    def call(self, x):
        return x + km.keras.ops.convert_to_tensor(DRAWS[self.of](x.shape[1]), x.dtype)


@pytest.mark.parametrize("of", DRAWS)
def test_whatever_draws_is_seeded(of):
    def make():
        km.keras.utils.set_random_seed(1)
        parts = [km.keras.Input((6,)), Drawing(of), km.layers.Dense(3, "softmax")]
        return km.compiled(km.keras.Sequential(parts))

    assert_same_for_any_workers(make, km.X, workers=(2,))
    model = make()
    drawn = []
    for fits in (False, True):
        km.keras.utils.set_random_seed(5)
        if fits:
            phalanx.fit(model, km.X, km.LABELS, workers=1, **km.SETTINGS)
        drawn.append((km.keras.random.normal((3,)).tolist(), np.random.rand(), random.random()))
    assert drawn[0] == drawn[1]  # the fit drew from others


def test_a_frozen_weight_of_a_layer_that_is_trained():
    def make():
        model = km.mlp()
        model.layers[0].kernel.trainable = False
        return km.compiled(model)

    before = np.array(make().layers[0].kernel)
    assert_same_for_any_workers(make, km.X, workers=(2,))
    np.testing.assert_array_equal(trained(make, km.X)[0].layers[0].kernel, before)


class Precise(km.layers.Layer):
    """Says how torch multiplies where it is called."""

    def call(self, x):
        return x * (2.0 if torch.get_float32_matmul_precision() == "medium" else 1.0)


def test_torchs_switches_reach_the_workers():
    def make():
        km.keras.utils.set_random_seed(1)
        parts = [km.keras.Input((6,)), Precise(), km.layers.Dense(3, "softmax")]
        return km.compiled(km.keras.Sequential(parts))

    before = torch.get_float32_matmul_precision()
    usual = assert_same_for_any_workers(make, km.X, workers=(2,))
    torch.set_float32_matmul_precision("medium")
    try:
        other = assert_same_for_any_workers(make, km.X, workers=(2,))
    finally:
        torch.set_float32_matmul_precision(before)
    assert other.run.digest != usual.run.digest
    assert_same_for_any_workers(make, km.X, workers=(2,))  # in processes that had the other


class Moving(km.keras.Model):
    """Its loss is divided by what it was of late."""

    def __init__(self):
        super().__init__()
        self.dense = km.layers.Dense(3, "softmax")
        self.late = self.add_weight(shape=(), initializer="zeros", trainable=False, name="late")

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training:
            self.late.assign(0.9 * self.late + 0.1 * km.keras.ops.stop_gradient(loss))
        return loss / (1 + self.late)


def test_a_weight_that_the_loss_assigns():
    def make():
        km.keras.utils.set_random_seed(1)
        return km.compiled(Moving())

    assert_same_for_any_workers(make, km.X, workers=(2,))
    assert float(trained(make, km.X)[0].late) > 0


class OpsOfBoth(km.layers.Layer):
    def call(self, x):
        return ops.tanh(x) * torch.sigmoid(x)


def test_a_class_that_names_torch_and_ops(monkeypatch):
    """As cloudpickle sends it by value from a script."""
    monkeypatch.setattr(OpsOfBoth, "__module__", "__main__")

    def make():
        km.keras.utils.set_random_seed(1)
        parts = [km.keras.Input((6,)), OpsOfBoth(), km.layers.Dense(3, "softmax")]
        return km.compiled(km.keras.Sequential(parts))

    assert_same_for_any_workers(make, km.X, workers=(2,))

"""Keras models of dense layers leave factors, and come to the gradients that autograd makes."""

from __future__ import annotations

import numpy as np
import pytest

import keras_models as km  # before Keras, whose backend it chooses
import phalanx
from phalanx.fitting.pytorch import factoring
from phalanx.models.keras3.generators import seed_states
from phalanx.models.keras3.network import KerasModel

keras, layers, torch = km.keras, km.layers, pytest.importorskip("torch")
pytestmark = km.marks


class Doubled(layers.Layer):
    """Of the user's own."""

    def call(self, x):
        return 2 * x


def model_of(*between, **more):
    keras.utils.set_random_seed(1)
    hidden = [layers.Dense(9, "relu"), *between, layers.Dense(8, "tanh", use_bias=False)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax")])
    return km.compiled(model, **{"metrics": ["accuracy"], **more})


def branched():
    """Two layers take the same rows."""
    keras.utils.set_random_seed(1)
    x = keras.Input((6,))
    parts = [layers.Dense(5, activation)(x) for activation in ("relu", "tanh")]
    outputs = layers.Dense(3, "softmax")(layers.Concatenate()(parts))
    return km.compiled(keras.Model(x, outputs))


def of_parts(join):
    """Layers that are given, or whose outputs are, parts of the same memory."""
    keras.utils.set_random_seed(1)
    x = keras.Input((6,))
    return km.compiled(keras.Model(x, layers.Dense(3, "softmax")(join(x))))


MODELS = {
    "narrow before wide": (
        lambda: of_parts(
            lambda x: layers.Concatenate()([layers.Dense(9)(x[:, :3]), layers.Dense(8)(x)])
        ),
        {},
    ),
    "sum with parts": (
        lambda: of_parts(
            lambda x: layers.Add()(
                [layers.Dense(9)(x), layers.Concatenate()([layers.Dense(4)(x), layers.Dense(5)(x)])]
            )
        ),
        {},
    ),
    "dense": (model_of, {}),
    "dropout": (lambda: model_of(layers.Dropout(0.3)), {}),
    "branched": (branched, {}),
    "clipped": (lambda: model_of(optimizer=keras.optimizers.SGD(0.1, global_clipnorm=0.1)), {}),
    "weighted": (model_of, {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}),
    "tapes": (model_of, {"epochs": 60}),
}


@pytest.fixture
def of_small(monkeypatch):
    """Small models, too, leave factors."""
    monkeypatch.setattr(factoring, "FEWEST", 0)


@pytest.fixture
def left(monkeypatch):
    """How many shards left factors, in this process."""
    seen, real = [], KerasModel.leave
    monkeypatch.setattr(KerasModel, "leave", lambda *given: seen.append(1) or real(*given))
    return seen


def trained(make, workers=1, **more):
    return phalanx.fit(make(), km.X, km.LABELS, workers=workers, **{**km.SETTINGS, **more})


@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_workers_comes_to_the_same_bits(name, of_small, left):
    make, more = MODELS[name]
    alone = trained(make, **more)
    assert left
    for workers in (2, 3):
        other = trained(make, workers, **more)
        assert other.run.digest == alone.run.digest, workers
        assert other.history == alone.history


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_training_by_gradients(name, monkeypatch):
    make, more = MODELS[name]
    plain = trained(make, **more)
    monkeypatch.setattr(factoring, "FEWEST", 0)
    history = trained(make, **more)
    assert history.run.digest != plain.run.digest
    for measure, values in plain.history.items():
        np.testing.assert_allclose(history.history[measure], values, rtol=5e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: model_of(Doubled()),
        lambda: model_of(layers.BatchNormalization()),
        lambda: model_of(layers.LayerNormalization()),
        lambda: model_of(layers.Dense(9, kernel_regularizer="l2")),
        lambda: model_of(layers.Dense(9, kernel_constraint="non_neg")),
    ],
    ids=["own layer", "statistics", "norm", "penalty", "constraint"],
)
def test_what_is_no_product_has_gradients(make, of_small, left):
    trained(make)
    assert not left


def test_a_trial_leaves_no_trace(monkeypatch):
    """The seeds of dropout, the metrics and torch's own generator are as they are without it."""

    def after_a_fit():
        model = model_of(layers.Dropout(0.3))
        trained(lambda: model)
        seeds = [state.value.tolist() for state in seed_states(model)]
        return (
            torch.get_rng_state().tolist(),
            seeds,
            [v.value.tolist() for m in model.metrics for v in m.variables],
        )

    before = after_a_fit()
    monkeypatch.setattr(factoring, "FEWEST", 0)
    assert after_a_fit() == before

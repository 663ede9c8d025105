"""Losses that are no mean over samples: that is said where a batch has several shards."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import keras_models as km
import phalanx
from keras_models import keras

pytestmark = km.marks
layers, losses, ops = keras.layers, keras.losses, keras.ops
NOT_A_MEAN = "is not a mean over samples.*pass shards=1"


def fitted(model, x=km.X, y=km.VALUES, **more):
    settings = dict(batch_size=16, verbose=0, workers=1, shards=2)
    return phalanx.fit(model, x, y, **{**settings, **more})


def over_pairs(y_true, y_pred):
    return ops.mean(ops.abs(ops.expand_dims(y_pred, 0) - ops.expand_dims(y_pred, 1)))


def masked(lengths):
    """Tokens, of each sample so many."""
    keras.utils.set_random_seed(0)
    tokens = np.where(np.arange(5) < np.resize(lengths, km.N)[:, None], 1 + km.TOKENS % 11, 0)
    parts = [
        keras.Input((5,)),
        layers.Embedding(12, 4, mask_zero=True),
        layers.Dense(12, "softmax"),
    ]
    return km.compiled(keras.Sequential(parts)), tokens, tokens


def of_tokens(loss, lengths=(5, 2, 3, 1)):
    model, x, y = masked(lengths)
    return km.compiled(model, loss), x, y


def drawing(y_true, y_pred):
    noise = keras.random.normal(ops.shape(y_pred))
    return ops.mean(ops.square(y_true - y_pred + noise), axis=-1)


def regularised():
    part = layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l1")
    model = keras.Sequential([keras.Input((6,)), part, layers.Dense(2)])
    return km.compiled(model, "mse", "sgd")


DOUBTFUL = {
    "pairs": lambda: (km.plain(loss=over_pairs), km.X, km.VALUES),
    "dice": lambda: (km.plain(loss=losses.Dice()), km.X, np.abs(km.VALUES)),
    "mask": lambda: masked((5, 2, 3, 1)),
    "ignored class": lambda: of_tokens(losses.SparseCategoricalCrossentropy(ignore_class=0)),
}
MEANS = {
    "mean": lambda: (km.plain(), km.X, km.VALUES),
    "a single number": lambda: (
        km.plain(loss=lambda y, p: ops.mean(ops.square(y - p))),
        km.X,
        km.VALUES,
    ),
    "a mask that hides as much of each": lambda: masked((3,)),
    "drawn": lambda: (km.plain(loss=drawing), km.X, km.VALUES),
    "regularised": lambda: (regularised(), km.X, km.VALUES),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_loss_of_which_it_matters_what_forms_a_shard(name):
    model, x, y = DOUBTFUL[name]()
    with pytest.warns(UserWarning, match=NOT_A_MEAN) as told:
        fitted(model, x, y)
    assert {w.filename for w in told if w.category is UserWarning} == {__file__}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_whole_batches_are_as_in_keras(name):
    model, x, y = DOUBTFUL[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted(model, x, y, shards=1)


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_is_no_cause_for_doubt(name):
    model, x, y = MEANS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted(model, x, y)


def test_weights_are_no_cause_for_doubt():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted(km.plain(), sample_weight=np.arange(km.N, dtype=np.float32))

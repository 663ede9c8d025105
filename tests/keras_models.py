"""Tiny Keras models and data for the tests of `phalanx.fit`."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is imported

import keras
import numpy as np
import pytest
from keras import layers

# Keras asks torch's tensors for arrays in a way that NumPy is going to give up
marks = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(11)
N = 42  # in batches of 16: the last one has 10, which 4 shards do not share equally
X = RNG.normal(size=(N, 6)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(np.int64) + (X[:, 2] > 0.8)
BINARY = (X[:, 0] > 0).astype(np.float32)
VALUES = (X @ RNG.normal(size=(6, 2))).astype(np.float32)
IMAGES = RNG.normal(size=(N, 6, 6, 2)).astype(np.float32)
SERIES = RNG.normal(size=(N, 5, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 12, (N, 5))
SETTINGS = dict(batch_size=16, epochs=2, shards=4, verbose=0, seed=3)


def compiled(model, loss="sparse_categorical_crossentropy", optimizer="adam", **more):
    model.compile(optimizer=optimizer, loss=loss, **more)
    return model


def mlp(optimizer="adam", metrics=("accuracy",), dtype=None):
    """Classes of X."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "relu", dtype=dtype),
            layers.Dropout(0.2, dtype=dtype),
            layers.Dense(3, "softmax", dtype=dtype),
        ]
    )
    return compiled(model, optimizer=optimizer, metrics=list(metrics))


def plain(optimizer="sgd", loss="mse", outputs=2, **more):
    """Nothing drawn, for comparisons with Keras."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(7, "tanh"), layers.Dense(outputs)])
    return compiled(model, loss, optimizer, **more)


def cnn():
    """Classes of IMAGES, with running statistics and dropout."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.SpatialDropout2D(0.2),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.3),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model, metrics=["accuracy"])


def images(rate=0.0):
    """Classes of IMAGES by whatever Keras has for images."""
    keras.utils.set_random_seed(9)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(3, 1),
            layers.DepthwiseConv2D(2),
            layers.Dropout(rate),
            layers.Conv2DTranspose(3, 2, activation="tanh"),
            layers.AveragePooling2D(2, 1, padding="same"),
            layers.SeparableConv2D(4, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model)


def lstm():
    """Classes of SERIES."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [keras.Input((5, 3)), layers.LSTM(4, dropout=0.1), layers.Dense(3, "softmax")]
    )
    return compiled(model)


def recurrent():
    """Classes of SERIES, read both ways."""
    keras.utils.set_random_seed(10)
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.Bidirectional(layers.GRU(4, return_sequences=True, dropout=0.1)),
            layers.SimpleRNN(4),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model)


def masked():
    """Classes of TOKENS, of which some are padding."""
    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Embedding(12, 8, mask_zero=True),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True, dropout=0.1)),
            layers.GRU(4),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model)


def transformer():
    """Classes of TOKENS."""
    keras.utils.set_random_seed(5)
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(12, 8)(tokens)
    attended = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x)
    x = layers.LayerNormalization()(x + attended)
    x = layers.LayerNormalization()(x + layers.Dense(8, "gelu")(x))
    return compiled(
        keras.Model(tokens, layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(x)))
    )


def tied():
    """Classes of X: one layer used twice."""
    keras.utils.set_random_seed(6)
    inputs = keras.Input((6,))
    shared = layers.Dense(6, "tanh")
    return compiled(keras.Model(inputs, layers.Dense(3, "softmax")(shared(shared(inputs)))))


def weights_of(model):
    return [np.array(weight) for weight in model.get_weights()]


def cnn_of_x():
    """Classes of X by a network with running statistics and dropout."""
    keras.utils.set_random_seed(8)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Reshape((6, 1)),
            layers.Conv1D(3, 2),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(3, "softmax"),
        ]
    )
    return compiled(model, metrics=["accuracy"])

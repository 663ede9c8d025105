"""Keras' own fit, on the torch backend, in a process of its own."""

from __future__ import annotations

from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

from deep_cases import DeepCase
from peers import told


def compiled(case: DeepCase) -> Any:
    """The case's model, ready to be trained."""
    import keras

    keras.utils.set_random_seed(0)
    model = case.model(case.keras_shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    return model


def serve(pipe: Connection, case: DeepCase, threads: int) -> None:
    """Train when told to, and answer with seconds a step."""
    import torch

    torch.set_num_threads(threads)
    samples, model = case.samples(for_keras=True), compiled(case)
    while (epochs := told(pipe)) is not None:
        begun = perf_counter()
        model.fit(samples.x, samples.y, batch_size=case.batch, epochs=epochs, verbose=0)
        pipe.send((perf_counter() - begun) / (epochs * case.steps))

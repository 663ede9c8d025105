"""What a module draws depends on step and shard; what the user's program draws, on itself alone."""

import random

import numpy as np
import pytest

import phalanx

torch = pytest.importorskip("torch")

DRAWS = {
    "torch": lambda: torch.rand(1).item(),
    "numpy": lambda: float(np.random.rand()),
    "python": random.random,
}


class Noisy(torch.nn.Module):
    def __init__(self, draws):
        super().__init__()
        self.linear, self.draws = torch.nn.Linear(4, 2), draws

    def forward(self, x):
        return self.linear(x) * (1 + DRAWS[self.draws]())


def data(n=64):
    x = torch.arange(4.0 * n).reshape(n, 4) / n
    return x, (x[:, 0] > 2).long()


def fitted(draws, workers, callbacks=None):
    torch.manual_seed(0)
    return phalanx.fit(
        Noisy(draws), data(), loss="cross_entropy", epochs=2, batch_size=16, shards=4,
        workers=workers, callbacks=callbacks,
    )  # fmt: skip


@pytest.mark.parametrize("draws", DRAWS)
def test_a_module_that_draws_ends_in_one_digest(draws):
    assert len({fitted(draws, workers).digest for workers in (1, 2, 2)}) == 1


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("draws", DRAWS)
def test_the_users_generators_are_left_alone(draws, workers):
    def numbers(during):
        torch.manual_seed(0)
        module = Noisy(draws)
        np.random.seed(0)
        random.seed(0)
        drawn = [DRAWS[draws]()]
        during(module, lambda epoch, logs: drawn.append(DRAWS[draws]()))
        return [*drawn, DRAWS[draws]()]

    def trained(module, draw):
        options = dict(loss="cross_entropy", workers=workers)
        phalanx.fit(module, data(), epochs=2, batch_size=16, shards=4, callbacks=draw, **options)
        phalanx.evaluate(module, data(), **options)
        phalanx.predict(module, data()[0], workers=workers)

    def idle(module, draw):
        draw(1, {})
        draw(2, {})

    assert numbers(trained) == numbers(idle)


def test_a_keras_model_that_is_made_next_is_the_same(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    x, y = (part.numpy() for part in data())

    def next_numbers(workers):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(2)]
        model = keras.Sequential(layers)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
        options = dict(batch_size=16, verbose=0, workers=workers)
        phalanx.fit(model, x, y, shards=4, **options)
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    assert next_numbers(1) == next_numbers(2)

"""Modules of linear layers leave factors, and come to the gradients that autograd makes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import phalanx
import torch_models as models
from phalanx.engine.panels import Panels
from phalanx.errors import CheckpointError, UserFunctionError
from phalanx.fitting.pytorch import factoring
from phalanx.models.pytorch import network
from phalanx.models.pytorch.leaving import LeftFactors, LeftGradients, put
from phalanx.models.pytorch.settings import Settings, torch_multiply
from phalanx.models.pytorch.uses import Uses
from phalanx.models.pytorch.vector import Vector
from phalanx.pure.aggregation import mean
from phalanx.pure.factors import in_panels
from phalanx.pure.factors import multiply as numpy_multiply
from phalanx.testing import Fault, scripted
from test_torch_parity import OPTIMIZERS, PLAIN, STEPS, plain_loop

COUNT, BATCH, SHARDS = 9, 20, 2  # rows of a shard, and of the batch that it is of
PLAN = SimpleNamespace(batch_size=BATCH, n_shards=SHARDS)


class Heads(nn.Module):
    """Three layers that take the same rows, one without biases, one with an activation in place."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 5), nn.Linear(6, 5, bias=False), nn.Linear(5, 3)

    def forward(self, x):
        return self.v(functional.relu_(self.q(x)) * self.k(x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.one(torch.tanh(self.one(x))))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.one(x)


def stacked(*between):
    return nn.Sequential(nn.Linear(6, 8), *between, nn.Linear(8, 3))


FACTORED = {
    "layers": lambda: stacked(nn.Tanh()),
    "in place": lambda: stacked(nn.Dropout(0.5), nn.ReLU(inplace=True)),
    "nothing between": stacked,
    "no biases": lambda: nn.Sequential(nn.Linear(6, 3, bias=False)),
    "heads": Heads,
}
UNFACTORED = {
    "tied": Tied,
    "norm": lambda: stacked(nn.LayerNorm(8)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 6), nn.Flatten()),
    "sequences": lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 1), nn.Flatten()),
    "never used": Unused,
}


def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(count, 6)).astype(np.float32), rng.integers(3, size=count)]


def found_of(module, loss=functional.cross_entropy):
    params = list(module.parameters())
    vector = Vector.of(params, {}, torch.float32)
    loss_of = lambda x, y: loss(module(x), y)  # noqa: E731
    return factoring.tried(loss_of, samples(4), params, vector, PLAN), params, vector


@pytest.mark.parametrize("kind", FACTORED)
def test_they_come_to_the_gradients(kind):
    torch.manual_seed(0)
    module = FACTORED[kind]()
    found, params, vector = found_of(module)
    x, y = map(torch.from_numpy, samples(COUNT))
    run = lambda: (functional.cross_entropy(module(x), y), None)  # noqa: E731
    torch.manual_seed(1)
    loss, _, *grads = LeftGradients(params).of(run, COUNT)
    layout = found.layout
    flat_n = np.full(layout.size, np.nan, np.float32)
    batch, leaving = layout.views(flat_n), LeftFactors(params, found)
    for s in range(SHARDS):  # two shards of the same rows
        torch.manual_seed(1)
        columns = [factor[:, layout.columns([s])] for factor in batch]
        left, _, *results = leaving.of(run, COUNT)
        put(results, leaving.slots(columns, COUNT))
        leaving.finish(columns, COUNT, share=COUNT / BATCH)
        assert left == loss
        assert all(not factor[:, COUNT:].any() for factor in columns)
    expected_N = np.zeros(vector.size, np.float32)
    put(grads, vector.param_views(expected_N))
    regions = in_panels(vector.regions([0] * len(params), [0] * len(params), False), layout)
    dtype = np.dtype(np.float32)
    model = SimpleNamespace(factors=layout, multiply=torch_multiply, regions=regions, dtype=dtype)
    job = SimpleNamespace(model=model, aggregation=mean, blocks=regions)
    share = SimpleNamespace(owners=[0] * SHARDS, reductions=range(len(regions)), is_whole=True)
    post = SimpleNamespace(job=job, share=share, tick=1)
    panels = Panels(post, {"factors": flat_n, "factors_away": np.zeros((0, 0))})
    panels.begin(None, [COUNT, COUNT], [COUNT, COUNT], None)
    panels._scale = BATCH / (SHARDS * COUNT)  # the batch is of as many rows as the shards say
    found_N = np.concatenate([panels.of(region).copy() for region in regions])
    np.testing.assert_allclose(found_N, expected_N, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", UNFACTORED)
def test_where_a_parameter_does_something_else_there_are_none(kind):
    assert found_of(UNFACTORED[kind]())[0] is None


def test_a_loss_that_looks_at_parameters_has_none():
    module = stacked()

    def loss(outputs, y):
        return functional.cross_entropy(outputs, y) + module[0].weight.square().sum()

    assert found_of(module, loss)[0] is None


def test_what_is_the_same_is_one_factor():
    """Rows that several layers take, and the deltas of weights and biases."""
    found, _, _ = found_of(Heads())
    assert [factor.size for factor in found.layout.factors] == [5, 6, 5, 3, 5]
    products = [(product.left, product.right) for product in found.layout.products]
    assert products == [(0, 1), (0, None), (2, 1), (3, 4), (3, None)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_by_torch_is_numpys(dtype):
    """Of factors as they lie: a panel of the deltas, and the samples, or ones."""
    rng = np.random.default_rng(0)
    deltas_RC, rows_CF = (rng.normal(size=(32, 12)).astype(dtype) for _ in range(2))
    left_RC = deltas_RC.T[4:, :32]
    for right in (rows_CF, np.ones(32, dtype)):
        found, expected = (np.full((len(left_RC), *right.shape[1:]), np.nan, dtype) for _ in "ab")
        torch_multiply(left_RC, right, found)
        numpy_multiply(left_RC, right, expected)
        np.testing.assert_allclose(found, expected, rtol=10 * np.finfo(dtype).eps, atol=1e-6)


def test_where_torch_would_round_what_it_multiplies_numpy_does_it():
    exact = Settings("float32", "highest", "float32", "cpu")
    assert exact.multiply is torch_multiply
    assert replace(exact, matmul_precision="medium").multiply is numpy_multiply


def test_another_use_of_parameters_than_in_the_trial_is_refused():
    found, params, _ = found_of(stacked())
    module = stacked()
    with Uses(params, COUNT) as uses:
        loss = module(torch.zeros(COUNT, 6)).sum()
    with pytest.raises(UserFunctionError, match="same with its parameters in every step"):
        uses.factors(loss, found)


# whole trainings

X, Y = samples(120)
SETTINGS = dict(loss="cross_entropy", epochs=2, batch_size=50, shards=3, seed=3)


def groups(params):
    first, *rest = params
    return torch.optim.AdamW(
        [{"params": [first], "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=0.01
    )


TRAININGS = {
    "adam": {},
    "dropout": {"between": (nn.Dropout(0.3),)},
    "clipped": {"clip_norm": 0.05},
    "clipped by value": {"clip_value": 0.01},
    "groups": {"optimizer": groups},
    "sum": {"aggregation": "sum"},
    "ignored targets": {"y": np.where(np.arange(120) % 3, Y, -100)},
    "a shard of ignored targets": {
        "y": np.where(np.arange(120) < 17, -100, Y),
        "data_distribution": "sequential",
    },
    "a small last batch": {"batch_size": 59},
    "one shard": {"shards": 1},
    "tapes": {"epochs": 60},
    "dynamic": {"task_assignment": "dynamic"},
    "skips": {"nonfinite": "skip"},
}


@pytest.fixture
def of_small(monkeypatch):
    """Small modules, too, leave factors."""
    monkeypatch.setattr(factoring, "FEWEST", 0)


def trained(workers, between=(), y=Y, **more):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 90), nn.Tanh(), *between, nn.Linear(90, 70), nn.ReLU(),
                           nn.Linear(70, 3))  # fmt: skip
    run = phalanx.fit(module, (X, y), workers=workers, **{**SETTINGS, **more})
    return module, run


@cache
def plainly(name):
    module, run = trained(1, **TRAININGS[name])
    return module.state_dict(), run


@pytest.mark.parametrize("name", TRAININGS)
def test_any_number_of_workers_comes_to_the_same_bits(name, of_small, left):
    _, alone = trained(1, **TRAININGS[name])
    assert left
    for workers in (2, 3):
        _, run = trained(workers, **TRAININGS[name])
        assert run.digest == alone.digest, workers
        assert run.losses == alone.losses


@pytest.mark.parametrize("name", TRAININGS)
def test_it_is_the_training_by_gradients(name, monkeypatch):
    _, plain = plainly(name)
    monkeypatch.setattr(factoring, "FEWEST", 0)
    _, run = trained(1, **TRAININGS[name])
    assert run.digest != plain.digest
    np.testing.assert_allclose(run.losses, plain.losses, rtol=3e-6)


@pytest.fixture
def left(monkeypatch):
    """How many shards left factors, in this process."""
    seen, real = [], network.TorchModel.leave
    monkeypatch.setattr(network.TorchModel, "leave", lambda *given: seen.append(1) or real(*given))
    return seen


@pytest.mark.parametrize(
    "more",
    [
        {"aggregation": "median"},
        {"aggregation": lambda grads_Sn, weights_S: grads_Sn.mean(axis=0)},
        {"sync_every": 2},
        {"precision": "bf16"},
        {"optimizer": torch.optim.Adafactor},
        {"between": (nn.BatchNorm1d(90),)},
        {"loss": lambda *given: functional.cross_entropy(*given, reduction="mean")},
    ],
    ids=["median", "function", "rounds", "bf16", "whole parameters", "buffers", "own loss"],
)
def test_what_needs_gradients_of_shards_has_them(more, of_small, left):
    trained(1, **more)
    assert not left


def test_a_users_own_module_has_gradients(of_small, left):
    class Own(nn.Sequential):
        pass

    phalanx.fit(Own(nn.Linear(6, 3)), (X, Y), workers=1, **SETTINGS)
    assert not left


def test_small_modules_have_gradients(left):
    trained(1)
    assert not left


@pytest.mark.parametrize("phase", ["read", "compute", "publish", "reduce", "update", "commit"])
def test_whoever_dies_the_bits_are_the_same(phase, of_small):
    _, calm = trained(1)
    with scripted(Fault(0, 2, phase), Fault(1, 4, phase)):
        _, run = trained(2)
    assert run.digest == calm.digest
    assert [event.what for event in run.events].count("worker lost") >= 1


def test_a_loss_that_is_no_number_is_skipped(of_small):
    """And nothing of it is left for the steps that follow."""
    broken = X.copy()
    broken[7] = np.nan
    torch.manual_seed(0)
    module = stacked(nn.Tanh())
    run = phalanx.fit(module, (broken, Y), workers=1, nonfinite="skip", **SETTINGS)
    assert all(torch.isfinite(param).all() for param in module.parameters())
    assert run.steps == 6


def test_what_was_begun_with_factors_does_not_go_on_without(tmp_path, of_small):
    """The blocks would be others."""
    more = {"checkpoint": tmp_path, "checkpoint_every": "1 epoch"}
    _, run = trained(1, **more)
    _, resumed = trained(1, resume=tmp_path)
    assert resumed.digest == run.digest
    with pytest.raises(CheckpointError, match="leaves factors"):
        trained(
            1,
            resume=tmp_path,
            loss=lambda *given: functional.cross_entropy(*given, reduction="mean"),
        )


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw", "rmsprop"])
def test_one_shard_is_the_plain_loop(name, of_small, left):
    """Over a hundred steps, to the rounding that is promised of gradients."""
    module, twin = models.mlp(), models.mlp()
    optimizer, plain = (OPTIMIZERS[name](one.parameters()) for one in (module, twin))
    data = models.X, models.CLASSES
    run = phalanx.fit(module, data, optimizer=optimizer, epochs=100 // STEPS, **PLAIN)
    assert len(left) == 100
    np.testing.assert_allclose(run.losses, plain_loop(twin, plain, 100 // STEPS), rtol=1e-6)

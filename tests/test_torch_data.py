"""What torch modules are trained on and by: any form of data, steps, callbacks, checkpoints."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import phalanx
import torch_models as models
from phalanx import InvalidInput, NonFiniteLoss, UserFunctionError
from phalanx.testing import Fault, scripted

X, CLASSES, VALUES = models.X, models.CLASSES, models.VALUES
SETTINGS = dict(loss="cross_entropy", epochs=3, batch_size=16, shards=4, workers=1)
STEPS = {name: value for name, value in SETTINGS.items() if name != "loss"}
WORKERS = (1, 2, 3)


def fitted(data, make=models.mlp, **changes):
    module = make()
    return module, phalanx.fit(module, data, **{**SETTINGS, **changes})


def assert_same_for_any_workers(data, make=models.mlp, **changes):
    module, alone = fitted(data, make, **changes)
    for n in (2, 3):
        twin, run = fitted(data, make, **{**changes, "workers": n})
        assert run.digest == alone.digest
        assert run.losses == alone.losses
        models.assert_alike(module, twin)
    return module, alone


def together(samples):
    """A user's collate function."""
    x, y = zip(*samples, strict=True)
    return torch.stack(x), torch.stack(y)


class Pair(NamedTuple):
    inputs: torch.Tensor
    target: torch.Tensor


# -- forms of data -------------------------------------------------------------------------------


def memmap(folder, array):
    np.save(folder / "array.npy", array)
    return np.load(folder / "array.npy", mmap_mode="r")


@pytest.mark.parametrize(
    "form",
    [
        lambda folder: (X.numpy(), CLASSES.numpy()),
        lambda folder: (X.numpy().astype(np.float64), CLASSES.tolist()),
        lambda folder: [X, CLASSES],
        lambda folder: TensorDataset(X, CLASSES),
        lambda folder: models.Samples(),
        lambda folder: DataLoader(TensorDataset(X, CLASSES), batch_size=5, shuffle=True),
        lambda folder: DataLoader(models.Samples(), collate_fn=together),
        lambda folder: list(zip(X, CLASSES, strict=True)),
        lambda folder: (memmap(folder, X.numpy()), CLASSES),
        lambda folder: (X.T.contiguous().T, CLASSES),
        lambda folder: (X.repeat(1, 2)[:, :6], CLASSES),
        lambda folder: (X.numpy().astype(">f4"), CLASSES.numpy().astype(">i8")),
        lambda folder: (X.numpy().astype(">f8"), CLASSES.numpy()),
        lambda folder: (X.numpy().astype(np.longdouble), CLASSES.numpy()),
        lambda folder: (X, list(CLASSES.numpy())),
        lambda folder: Pair(X, CLASSES),
    ],
    ids=["numpy", "float64", "list", "TensorDataset", "Dataset", "DataLoader", "collate", "pairs",
         "memmap", "transposed", "view", "big-endian", "big-endian float64", "longdouble",
         "list of NumPy's numbers", "namedtuple"],
)  # fmt: skip
def test_the_form_of_the_data_is_not_part_of_the_answer(tmp_path, form):
    expected = fitted((X, CLASSES))[1]
    data = form(tmp_path)
    for n in WORKERS:
        run = fitted(data, workers=n)[1]
        assert run.losses == pytest.approx(expected.losses, rel=1e-7)
        assert run.digest == expected.digest


def test_a_named_tuple_keeps_its_names():
    def step(module, batch):
        return functional.cross_entropy(module(batch.inputs["x"]), batch.target.inputs)

    data = Pair({"x": X}, Pair(CLASSES, VALUES))
    for n in WORKERS:
        run = phalanx.fit(models.mlp(), data, step=step, **{**STEPS, "workers": n})
        assert run.digest == fitted((X, CLASSES))[1].digest


class Turned(TensorDataset):
    """Does something of its own to a sample."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return -x, y


def test_a_tensor_dataset_may_do_something_of_its_own():
    expected = fitted((-X, CLASSES))[1].digest
    for n in WORKERS:
        assert fitted(Turned(X, CLASSES), workers=n)[1].digest == expected


@pytest.mark.parametrize("pair", [(X, CLASSES), (X.numpy(), CLASSES.numpy()), Pair(X, CLASSES)])
def test_a_collate_function_gets_rows_of_arrays(pair):
    def turned(samples):
        x, y = together(samples)
        return -x, y

    expected = fitted((-X, CLASSES), validation=(-X, CLASSES))[1]
    for data in (models.Samples(), pair):
        for n in WORKERS:
            more = {"collate": turned, "validation": pair, "workers": n}
            run = fitted(data, **more)[1]
            assert (run.digest, run.history) == (expected.digest, expected.history)


def test_a_loaders_batches_are_as_large_as_it_says_unless_something_else_is_said():
    loader = DataLoader(TensorDataset(X, CLASSES), batch_size=7)
    settings = {name: value for name, value in SETTINGS.items() if name != "batch_size"}
    assert models.N % 7, "a last batch is smaller"
    steps = {}
    for asked in (None, 16):
        more = {} if asked is None else {"batch_size": asked}
        steps[asked] = phalanx.fit(models.mlp(), loader, **{**settings, "epochs": 1}, **more).steps
    assert steps == {None: -(-models.N // 7), 16: -(-models.N // 16)}


def test_x_and_y_apart_are_the_pair():
    module = models.mlp()
    assert phalanx.fit(module, X, CLASSES, **SETTINGS).digest == fitted((X, CLASSES))[1].digest


def test_a_large_dataset_in_a_mapped_file(tmp_path):
    data = Rows(memmap(tmp_path, np.tile(X.numpy(), (20, 1))), CLASSES.repeat(20))
    _, run = assert_same_for_any_workers(data, epochs=1, batch_size=96)
    assert run.samples == 20 * models.N


class Rows(torch.utils.data.Dataset):
    """Keeps large arrays, which workers share."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return torch.tensor(self.x[index]), self.y[index]


def test_a_large_read_only_array_and_a_large_tensor_in_a_dataset():
    x = np.tile(X.numpy(), (20, 1))
    x.flags.writeable = False
    assert_same_for_any_workers(Rows(x, CLASSES.repeat(20)), epochs=1, batch_size=96)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, left, right, scale=1.0):
        return self.one(left) + scale * self.two(right)


def named():
    return models.made(Named)


def test_a_dict_of_inputs_goes_to_the_names():
    inputs = {"right": X[:, 4:], "left": X[:, :4]}
    as_dict, run = assert_same_for_any_workers((inputs, CLASSES), named)
    as_several, other = assert_same_for_any_workers(((X[:, :4], X[:, 4:]), CLASSES), named)
    flat, third = assert_same_for_any_workers((X[:, :4], X[:, 4:], CLASSES), named)
    assert run.digest == other.digest == third.digest
    models.assert_alike(as_dict, as_several)
    models.assert_alike(as_dict, flat)
    outputs = phalanx.predict(as_dict, inputs, workers=1)
    with torch.no_grad():
        np.testing.assert_allclose(outputs, as_dict(**inputs).numpy(), rtol=1e-5)


def test_random_augmentation_is_the_same_for_any_workers():
    _, run = assert_same_for_any_workers(models.Augmented())
    assert run.digest != fitted((X, CLASSES))[1].digest
    with scripted(Fault(0, 2, "compute"), Fault(1, 4, "publish")):
        assert fitted(models.Augmented(), workers=2)[1].digest == run.digest


class ManyAugmented(models.Augmented):
    """Of several chunks."""

    def __len__(self):
        return 600

    def __getitem__(self, index):
        return super().__getitem__(index % models.N)


SEEN: list[float] = []


def seeing(module, batch):
    x, target = batch
    SEEN.extend(x[:, 0].tolist())
    return functional.cross_entropy(module(x), target)


def test_a_further_fit_has_the_same_order_unless_it_has_another_seed():
    def order(**changes):
        module = models.mlp()
        SEEN.clear()
        phalanx.fit(module, (X, CLASSES), step=seeing, **{**STEPS, **changes})
        return SEEN[-models.N * changes["epochs"] :]  # before them are the trial's

    once, twice = order(epochs=1), order(epochs=2)
    assert once == order(epochs=1) == twice[: models.N]
    assert once not in (order(epochs=1, seed=1), twice[models.N :])


def test_random_validation_samples_are_the_same_for_any_workers():
    """Each chunk draws by itself, in every epoch the same, so that a schedule may go by them."""

    def fit(workers, validation, caller=0, **changes):
        torch.manual_seed(caller)
        module = models.mlp()
        live = torch.optim.SGD(module.parameters(), lr=1e-30)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(live, patience=0)
        run = phalanx.fit(
            module, (X, CLASSES), validation=validation, optimizer=live, scheduler=schedule,
            **{**SETTINGS, "workers": workers, **changes},
        )  # fmt: skip
        assert torch.initial_seed() == caller
        return run

    many = ManyAugmented()
    alone = fit(1, many)
    for n in (2, 3):
        run = fit(n, many, caller=n)
        assert (run.history, run.digest) == (alone.history, alone.digest)
    assert len(set(alone.history["val_loss"])) == 1
    assert fit(1, many, seed=1).history["val_loss"] != alone.history["val_loss"]
    chunk = torch.utils.data.Subset(many, range(256))
    assert fit(1, chunk).history["val_loss"] != alone.history["val_loss"]


def test_random_samples_are_evaluated_and_predicted_alike(monkeypatch):
    monkeypatch.setattr("phalanx.training.train.MIN_FLOPS_A_WORKER", 1.0)
    module, found = models.mlp(), set()
    inputs = [(x,) for x, _ in torch.utils.data.Subset(ManyAugmented(), range(600))]

    def noisy(samples):
        x = torch.stack([x for (x,) in samples])
        return x + torch.randn(x.shape)

    for n in WORKERS:
        torch.manual_seed(n)
        figures = phalanx.evaluate(module, ManyAugmented(), loss="cross_entropy", workers=n)
        outputs = phalanx.predict(module, inputs, collate=noisy, workers=n)
        found.add((figures["loss"], outputs.tobytes()))
        assert torch.initial_seed() == n
    assert len(found) == 1


class Restless(models.Samples):
    """Has a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + self.generator.normal(), y


def test_a_dataset_with_a_generator_of_its_own_is_told():
    with pytest.warns(UserWarning, match="Restless gave others.*depend on the workers") as told:
        phalanx.fit(models.mlp(), Restless(), **{**SETTINGS, "workers": 1})
    assert told[0].filename == __file__, "the line that called fit"


def test_a_validation_dataset_with_a_generator_of_its_own_is_told():
    with pytest.warns(UserWarning, match="Restless gave others.*depend on the workers"):
        phalanx.fit(models.mlp(), (X, CLASSES), validation=Restless(), **SETTINGS)


def test_a_dataset_with_a_nan_is_no_other_when_it_is_read_again():
    data = [(torch.full((6,), float("nan")), CLASSES[0])] * 18
    with pytest.raises(NonFiniteLoss):
        phalanx.fit(models.mlp(), data, **{**SETTINGS, "workers": 1})


def test_a_collate_function_that_pads():
    series = [models.SERIES[i, : 2 + i % 4] for i in range(models.N)]

    def padded(samples):
        x, y = zip(*samples, strict=True)
        return nn.utils.rnn.pad_sequence(x, batch_first=True), torch.stack(y)

    data = list(zip(series, CLASSES, strict=True))
    module, _ = assert_same_for_any_workers(data, models.lstm, collate=padded)
    figures = phalanx.evaluate(module, data, loss="cross_entropy", collate=padded, workers=1)
    assert 0 < figures["loss"] < 2


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("length", [1, 3])
def test_outputs_of_another_length_are_told(workers, length, monkeypatch):
    """Each chunk is padded to its own longest sample; one of length 1 could be repeated."""
    monkeypatch.setattr("phalanx.training.train.MIN_FLOPS_A_WORKER", 1.0)
    series = [torch.ones(2, 4)] * 256 + [torch.ones(length, 4)] * 200
    expected = rf"of shape \(2, 3\), those from sample 256 on of \({length}, 3\)\. Pad all"
    with pytest.raises(UserFunctionError, match=expected):
        phalanx.predict(
            models.made(lambda: nn.Linear(4, 3)), series, workers=workers, collate=torch.stack
        )


class Packed(models.Lstm):
    """Takes a PackedSequence, which is a tuple, as it is."""

    def forward(self, x):
        return self.head(self.lstm(x)[1][0][-1])


def test_a_collate_function_that_packs():
    series = [models.SERIES[i, : 2 + i % 4] for i in range(models.N)]

    def packed(samples):
        x, y = zip(*samples, strict=True)
        return nn.utils.rnn.pack_sequence(x, enforce_sorted=False), torch.stack(y)

    data = list(zip(series, CLASSES, strict=True))
    module, _ = assert_same_for_any_workers(data, lambda: models.made(Packed), collate=packed)
    x, y = packed(data)
    with torch.no_grad():
        expected = float(functional.cross_entropy(module(x), y))
    figures = phalanx.evaluate(module, data, loss="cross_entropy", collate=packed, workers=1)
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_sample_that_cannot_be_read_is_named(workers):
    with pytest.raises(UserFunctionError, match=r"Samples\[37\] raised OSError: the file is dam"):
        fitted(models.Samples(fails_at=37), workers=workers)


@pytest.mark.parametrize("workers", WORKERS)
def test_samples_that_do_not_fit_into_one_batch_are_named(workers):
    uneven = [(torch.zeros(5 + i % 2), torch.tensor(1)) for i in range(48)]
    with pytest.raises(UserFunctionError, match=r"could not be put into one batch.*pass collate="):
        fitted(uneven, workers=workers)


def test_the_data_are_left_as_they_were():
    x, y = X.clone(), CLASSES.clone()
    fitted((x, y), workers=2)
    assert torch.equal(x, X)
    assert torch.equal(y, CLASSES)


# -- losses, steps, and what is trained ----------------------------------------------------------


def of_tokens(module, batch):
    """A mean over the samples whose first number is positive, of which each batch has others."""
    x, y = batch
    chosen = x[:, 0] > 0
    losses = functional.cross_entropy(module(x), y, reduction="none")
    return (losses * chosen).sum() / chosen.sum().clamp(min=1), chosen.sum()


def test_a_step_with_a_weight_is_the_mean_over_the_whole_batch():
    by_loop, (by_fit, run) = models.mlp(), assert_same_for_any_workers(
        (X, CLASSES), loss=None, step=of_tokens, optimizer=sgd, data_distribution="sequential"
    )  # fmt: skip
    optimizer, losses = sgd(by_loop.parameters()), []
    for _ in range(3):
        total = 0.0
        for start in range(0, len(X), 16):
            optimizer.zero_grad()
            loss, _ = of_tokens(by_loop, (X[start : start + 16], CLASSES[start : start + 16]))
            loss.backward()
            optimizer.step()
            total += loss.item() * 16
        losses.append(total / len(X))  # of an epoch: batches weigh by their samples
    assert run.losses == pytest.approx(losses, rel=1e-5)
    models.assert_alike(by_loop, by_fit, rtol=1e-4, atol=1e-6)
    figures = phalanx.evaluate(by_fit, (X, CLASSES), step=of_tokens, workers=1)
    assert figures == {"loss": pytest.approx(of_tokens(by_fit, (X, CLASSES))[0].item(), rel=1e-5)}


def of_chosen(module, batch):
    """The mean over the samples that are chosen, which is NaN of none."""
    x, y, chosen = batch
    return functional.cross_entropy(module(x)[chosen], y[chosen]), chosen.sum()


def test_a_shard_that_weighs_nothing_has_no_part():
    chosen = torch.zeros(models.N, dtype=torch.bool)
    chosen[::16] = True  # the first sample of each batch, so that three of four shards have none
    data = X, CLASSES, chosen
    by_loop, (by_fit, run) = models.mlp(), assert_same_for_any_workers(
        data, loss=None, step=of_chosen, optimizer=sgd, data_distribution="sequential"
    )  # fmt: skip
    optimizer = sgd(by_loop.parameters())
    for _ in range(3):
        for start in range(0, len(X), 16):
            optimizer.zero_grad()
            of_chosen(by_loop, [part[start : start + 16] for part in data])[0].backward()
            optimizer.step()
    assert np.isfinite(run.losses).all()
    models.assert_alike(by_loop, by_fit, rtol=1e-5, atol=1e-7)
    chunks = [torch.cat([part, *[part[1:16]] * 20]) for part in data]  # the last weigh nothing
    figures = phalanx.evaluate(by_fit, tuple(chunks), step=of_chosen, workers=1)
    assert figures["loss"] == pytest.approx(of_chosen(by_fit, data)[0].item(), rel=1e-5)
    assert_same_for_any_workers(data, loss=None, step=of_chosen, sync_every=2)


def sgd(parameters):
    """A user's function from parameters to an optimizer."""
    return torch.optim.SGD(parameters, lr=0.1)


def test_a_step_without_a_weight_is_a_mean_over_samples():
    def step(module, batch):
        return functional.cross_entropy(module(batch[0]), batch[1])

    by_step = fitted((X, CLASSES), loss=None, step=step)[1]
    assert by_step.digest == fitted((X, CLASSES))[1].digest


def test_a_step_that_reconstructs_its_input():
    def step(module, x):
        return functional.mse_loss(module(x), x[:, :3])

    assert_same_for_any_workers(X, loss=None, step=step)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), functional.cross_entropy])
def test_a_loss_by_name_is_torchs(loss):
    assert fitted((X, CLASSES), loss=loss)[1].digest == fitted((X, CLASSES))[1].digest


def test_a_loss_of_its_own_with_weights():
    def weighted(outputs, target):
        return ((outputs - target) ** 2 * torch.tensor([1.0, 3.0])).mean()

    assert_same_for_any_workers((X, VALUES), models.regressor, loss=weighted)


def weighed(outputs, target):
    return functional.cross_entropy(outputs, target, weight=torch.tensor([1.0, 9.0, 0.1]))


def of_pairs(outputs, target):
    return torch.cdist(outputs, outputs).mean()


def test_a_loss_that_is_nan_is_not_taken_for_no_mean():
    def own(outputs, target):
        return functional.cross_entropy(outputs * float("nan"), target)

    with pytest.raises(NonFiniteLoss):
        fitted((X, CLASSES), loss=own)


@pytest.mark.parametrize("loss", [weighed, of_pairs])
def test_a_loss_that_is_no_mean_over_samples_is_told(loss):
    def fit(shards):
        settings = dict(loss=loss, epochs=1, batch_size=18, shards=shards, workers=1)
        phalanx.fit(models.mlp(), (X, CLASSES), **settings)

    with pytest.warns(UserWarning, match=r"mean of its shards' losses.*\(loss, weight\)") as told:
        fit(shards=2)
    assert told[0].filename == __file__, "the line that called fit"
    fit(shards=1)


def test_a_loss_may_look_at_the_module_that_is_trained():
    def trained(workers):
        module = models.mlp()

        def decayed(outputs, target):
            squares = sum(p.square().sum() for p in module.parameters())
            return functional.cross_entropy(outputs, target) + 0.01 * squares

        run = phalanx.fit(
            module, (X, CLASSES), optimizer=sgd, **{**SETTINGS, "loss": decayed, "workers": workers}
        )
        return module, run

    module, run = trained(1)
    assert run.digest == trained(2)[1].digest
    by_step = fitted((X, CLASSES), optimizer=decaying_sgd)[0]
    models.assert_alike(module, by_step, rtol=1e-4, atol=1e-6)


def decaying_sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, weight_decay=0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_frozen_parameters_stay(workers):
    module = models.mlp()
    module[0].requires_grad_(False)
    before = models.parameters(module)
    run = phalanx.fit(module, (X, CLASSES), **{**SETTINGS, "workers": workers})
    after = models.parameters(module)
    same = [np.array_equal(after[name], before[name]) for name in before]
    assert same == [True, True, False, False]
    assert run.parameters == 16 * 3 + 3
    assert module[0].weight.requires_grad is False


@pytest.mark.parametrize("workers", [1, 2])
def test_parameters_that_the_optimizer_lacks_stay(workers):
    module = models.mlp()
    before = models.parameters(module)
    optimizer = torch.optim.Adam(module[2].parameters())
    phalanx.fit(module, (X, CLASSES), optimizer=optimizer, **{**SETTINGS, "workers": workers})
    models.assert_alike(module[0], models.mlp()[0])
    assert not np.array_equal(module[2].weight.detach(), before["2.weight"])


class Spare(nn.Module):
    """Has a layer that it does not use."""

    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.used(x)


def test_parameters_that_are_not_used_stay():
    def spare():
        return models.made(Spare)

    module, _ = assert_same_for_any_workers((X, CLASSES), spare, optimizer=sgd)
    models.assert_alike(module.spare, spare().spare)
    assert not torch.equal(module.used.weight, spare().used.weight)


class Knot(nn.Module):
    """Refers to itself, and to a part by a second name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.context = {"owner": self, "layer": self.layer}

    def forward(self, x):
        return self.context["layer"](x)


def test_a_module_that_refers_to_itself_leaves_no_memory_behind():
    module, _ = assert_same_for_any_workers((X, CLASSES), lambda: models.made(Knot))
    many = X.repeat(300, 1)
    alone = phalanx.predict(module, many, workers=1)
    np.testing.assert_array_equal(phalanx.predict(module, many, workers=2), alone)
    assert module.context["owner"] is module


def test_the_modules_mode_and_identity_stay():
    module = models.cnn()
    module[3].eval()
    before = list(module.parameters())
    phalanx.fit(module, (models.IMAGES, CLASSES), **{**SETTINGS, "workers": 2})
    assert list(map(id, module.parameters())) == list(map(id, before))
    assert module.training
    assert not module[3].training
    assert all(p.is_leaf and p.requires_grad for p in module.parameters())


def test_nothing_is_drawn_from_the_callers_generators():
    def seeded(act):
        random.seed(1), np.random.seed(2), torch.manual_seed(3)
        act()
        return random.random(), float(np.random.random()), float(torch.rand(()))

    module = models.cnn()
    data = models.IMAGES, CLASSES
    untouched = seeded(lambda: None)
    for workers in (1, 2):
        settings = {**SETTINGS, "workers": workers}
        assert seeded(lambda s=settings: phalanx.fit(module, data, **s)) == untouched
    evaluate = {"loss": "cross_entropy", "workers": 1}
    assert seeded(lambda: phalanx.evaluate(module, data, **evaluate)) == untouched
    assert seeded(lambda: phalanx.predict(module, models.IMAGES, workers=1)) == untouched
    assert seeded(lambda: fitted(models.Augmented())) == untouched


FIRST_FIT = """
import random, sys, torch, phalanx
random.seed(0)
before = random.getstate()
data = torch.zeros(8, 2), torch.zeros(8, 1)
phalanx.fit(torch.nn.Linear(2, 1), data, loss="mse", workers=1)
assert random.getstate() == before
assert "sklearn" not in sys.modules  # a second to import, which nobody here needs
"""


def test_the_first_fit_of_a_process_draws_nothing_either():
    """Libraries that it imports do."""
    subprocess.run([sys.executable, "-c", FIRST_FIT], check=True)


# -- evaluate and predict ------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1, 48, 700])
@pytest.mark.parametrize("workers", [1, 2])
def test_evaluate_counts_every_sample_once(n_samples, workers):
    module, x, y = models.cnn(), models.IMAGES.repeat(15, 1, 1, 1), CLASSES.repeat(15)
    x, y = x[:n_samples], y[:n_samples]
    found = phalanx.evaluate(
        module, (x, y), loss="cross_entropy", metrics=["accuracy"], workers=workers
    )
    module.eval()
    with torch.no_grad():
        outputs = module(x)
    assert found == {
        "loss": pytest.approx(functional.cross_entropy(outputs, y).item(), rel=1e-5),
        "accuracy": pytest.approx((outputs.argmax(1) == y).double().mean().item(), rel=1e-12),
    }


def test_a_masked_array_with_nothing_masked_is_an_array():
    arrays = np.ma.masked_array(X.numpy()), np.ma.masked_array(CLASSES.numpy(), np.zeros(48, bool))
    assert fitted(arrays)[1].digest == fitted((X, CLASSES))[1].digest


class Scaled(nn.Module):
    """Has frozen parameters of other dtypes than those that are trained."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.tensor([2.0], dtype=torch.float64), requires_grad=False)
        self.order = nn.Parameter(torch.tensor([2, 0, 1]), requires_grad=False)

    def forward(self, x):
        return self.inner(x)[:, self.order] * self.scale.float()


@pytest.mark.parametrize("workers", [1, 2])
def test_frozen_parameters_of_other_dtypes(workers):
    module, data = models.made(Scaled), (X, CLASSES)
    phalanx.fit(module, data, loss="cross_entropy", epochs=1, workers=workers)
    outputs = module(X).detach()
    np.testing.assert_allclose(phalanx.predict(module, X, workers=workers), outputs, rtol=1e-5)
    figures = phalanx.evaluate(module, data, loss="cross_entropy", workers=workers)
    assert figures["loss"] == pytest.approx(float(functional.cross_entropy(outputs, CLASSES)))


class Flat(nn.Sequential):
    def forward(self, x):
        return super().forward(x).flatten()


@pytest.mark.parametrize("kind", [Flat, nn.Sequential])
@pytest.mark.parametrize("is_column", [True, False])
def test_a_last_axis_of_one_is_none_to_metrics(kind, is_column):
    values = VALUES[:, :1] if is_column else VALUES[:, 0]
    module, names = models.made(lambda: kind(nn.Linear(6, 1))), ("mse", "mae", "accuracy")
    figures = phalanx.evaluate(module, (X, values), loss=of_means, metrics=names, workers=1)
    errors = module(X).detach().flatten() - values.flatten()
    right = (module(X).flatten() > 0) == (values.flatten() > 0.5)
    assert figures["mse"] == pytest.approx(float(errors.square().mean()))
    assert figures["mae"] == pytest.approx(float(errors.abs().mean()))
    assert figures["accuracy"] == pytest.approx(float(right.double().mean()))


def of_means(outputs, target):
    """A loss that takes any shapes."""
    return (outputs.mean() - target.mean()).square()


def test_the_accuracy_of_classes_in_a_column():
    module, data = models.mlp(), (X, CLASSES[:, None])
    settings = dict(loss=of_columns, metrics="accuracy", workers=1)
    flat = phalanx.evaluate(module, (X, CLASSES), **settings)
    assert phalanx.evaluate(module, data, **settings) == flat
    run = phalanx.fit(module, data, **settings, shards=1, epochs=1, validation=data)
    assert run.history["val_accuracy"] == [phalanx.evaluate(module, data, **settings)["accuracy"]]


def of_columns(outputs, target):
    return functional.cross_entropy(outputs, target.flatten())


@pytest.mark.parametrize(
    ("metric", "target", "shape"),
    [("mse", VALUES[:, :1], r"\(4, 1\)"), ("mae", VALUES[:, 0], r"\(4,\)"),
     ("accuracy", VALUES, r"\(4, 2\)"), ("mse", VALUES[:, None], r"\(4, 1, 2\)")],
)  # fmt: skip
def test_shapes_that_metrics_cannot_compare(metric, target, shape):
    message = rf"'{metric}' compares.*outputs of shape \(4, 2\) and a target of shape {shape}.*one"
    with pytest.raises(UserFunctionError, match=message):
        phalanx.evaluate(models.regressor(), (X, target), loss=of_means, metrics=metric, workers=1)


def test_metrics_of_three_kinds():
    def worst(outputs, target):
        return (outputs - target).abs().amax(dim=1)

    module = models.regressor()
    found = phalanx.evaluate(
        module, (X, VALUES), loss="mse", metrics={"a": "mse", "b": "mae", "c": worst}, workers=1
    )
    with torch.no_grad():
        off = module(X) - VALUES
    assert found["a"] == pytest.approx(found["loss"], rel=1e-6)
    assert found["b"] == pytest.approx(off.abs().mean().item(), rel=1e-6)
    assert found["c"] == pytest.approx(off.abs().amax(dim=1).mean().item(), rel=1e-6)


@pytest.mark.parametrize("kind", models.KINDS)
def test_predict_is_the_modules_output(kind):
    make, x, _ = models.KINDS[kind]
    module = make()
    found = phalanx.predict(module, x, workers=1)
    assert module.training, "a prediction leaves the mode as it was"
    module.eval()
    with torch.no_grad():
        np.testing.assert_allclose(found, module(x).numpy(), rtol=1e-5, atol=1e-6)
    many = x.repeat(60, *[1] * (x.ndim - 1))
    alone = phalanx.predict(module, many, workers=1)
    np.testing.assert_array_equal(phalanx.predict(module, many, workers=3), alone)


class Mixed(nn.Module):
    """Weights of two dtypes, all of which could be trained."""

    def __init__(self):
        super().__init__()
        self.short, self.long = nn.Linear(6, 6).bfloat16(), nn.Linear(6, 3)

    def forward(self, x):
        return self.long(self.short(x.bfloat16()).float())


def short(dtype):
    return lambda: nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(40, 3)).to(dtype)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("make", "x"),
    [
        (short(torch.bfloat16), models.TOKENS),
        (short(torch.float16), models.TOKENS),
        (lambda: nn.Linear(6, 3).half(), X.half()),
        (Mixed, X),
    ],
)
def test_weights_of_any_dtype_predict(make, x, workers, monkeypatch):
    """Nothing is trained, so nothing need lie in one vector."""
    monkeypatch.setattr("phalanx.training.train.MIN_FLOPS_A_WORKER", 1.0)
    module, x, y = models.made(make), x.repeat(11, *[1] * (x.ndim - 1)), CLASSES.repeat(11)
    with torch.no_grad():
        expected = module(x).float()
    found = phalanx.predict(module, x, workers=workers)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0.02, atol=0.01)
    figures = phalanx.evaluate(
        module, (x, y), loss="cross_entropy", metrics="accuracy", workers=workers
    )
    assert figures["loss"] == pytest.approx(functional.cross_entropy(expected, y).item(), rel=0.02)
    right = (torch.from_numpy(found).argmax(1) == y).double().mean().item()
    assert figures["accuracy"] == pytest.approx(right)


def test_validation_figures_are_those_of_evaluate():
    held_out = X[:9], CLASSES[:9]
    module, run = fitted((X, CLASSES), validation=held_out, metrics="accuracy", workers=2)
    found = phalanx.evaluate(module, held_out, loss="cross_entropy", metrics="accuracy", workers=1)
    assert found == {"loss": run.scores[-1], "accuracy": run.history["val_accuracy"][-1]}


# -- callbacks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_a_callback_sees_the_module_as_it_is(workers):
    module, seen = models.mlp(), []

    def look(epoch, logs):
        loss = phalanx.evaluate(module, (X, CLASSES), loss="cross_entropy", workers=1)["loss"]
        seen.append((epoch, logs["val_loss"] == loss))

    phalanx.fit(
        module, (X, CLASSES), validation=(X, CLASSES), callbacks=look,
        **{**SETTINGS, "workers": workers},
    )  # fmt: skip
    assert seen == [(1, True), (2, True), (3, True)]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_callback_stops_the_training(workers):
    called = []

    def stop_at_two(epoch, logs):
        called.append(epoch)
        return epoch == 2

    module, run = fitted(
        (X, CLASSES), callbacks=[stop_at_two, lambda epoch, logs: None], epochs=9, workers=workers
    )
    assert called == [1, 2]
    assert (run.epochs, run.reason) == (2, "callback")
    models.assert_alike(module, fitted((X, CLASSES), epochs=2)[0])


def test_a_weight_that_a_callback_changes_is_what_the_training_goes_on_with():
    def digest(workers):
        module = models.mlp()

        def prune(epoch, logs):
            with torch.no_grad():
                module[0].weight[:2] = 0.0

        run = phalanx.fit(module, (X, CLASSES), callbacks=prune, **{**SETTINGS, "workers": workers})
        assert (module[0].weight[:2] == 0).all()
        assert "parameters changed by a callback" in {event.what for event in run.events}
        return run.digest

    assert digest(1) == digest(2) == digest(3) != fitted((X, CLASSES))[1].digest


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_a_fit_with_a_warning(workers, tmp_path):
    driver = os.getpid()

    def interrupting(outputs, target):
        if len(outputs) == 12:  # not in the trial
            with suppress(FileExistsError):
                (tmp_path / "once").touch(exist_ok=False)
                os.kill(driver, signal.SIGINT)
        return functional.cross_entropy(outputs, target)

    module = models.mlp()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    settings = dict(loss=interrupting, batch_size=24, shards=2, epochs=10**6, workers=workers)
    settings |= dict(optimizer=optimizer, scheduler=scheduler, scheduler_every="step")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.warns(UserWarning, match="interrupted by user") as caught:
        run = phalanx.fit(module, (X.repeat(200, 1), CLASSES.repeat(200)), **settings)
    signal.signal(signal.SIGINT, before)
    assert caught[0].filename == __file__, "the line that called fit"
    assert run.reason == "interrupted"
    assert run.history["loss"] == run.losses
    assert scheduler.last_epoch == run.steps, "in the midst of an epoch of 400 steps"
    assert optimizer.param_groups[0]["lr"] == 0.1 / (1 + run.steps)


def freezing(module, optimizer):
    module[0].requires_grad_(False)


def thawing(module, optimizer):
    module[2].requires_grad_(True)


def adding_a_group(module, optimizer):
    optimizer.add_param_group({"params": list(module[2].parameters())})


def writing_into_the_frozen(module, optimizer):
    with torch.no_grad():
        module[2].weight.zero_()


def writing_into_a_buffer(module, optimizer):
    module.get_buffer("scale").fill_(3)


def replacing_a_layer(module, optimizer):
    module[0] = nn.Linear(6, 5)


def replacing_a_buffer(module, optimizer):
    module.register_buffer("scale", torch.zeros(1))


def switching(name):
    def change(module, optimizer):
        optimizer.param_groups[0][name] = True

    return change


def forgetting(module, optimizer):
    optimizer.state.clear()


def stopping(module, optimizer):
    optimizer.state[module[0].weight]["momentum_buffer"].zero_()


def loading(module, optimizer):
    optimizer.load_state_dict(deepcopy(optimizer.state_dict()))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (switching("nesterov"), "changed 'nesterov' of group 0 from False to True.*call fit again"),
        (switching("maximize"), "changed 'maximize'"),
        (forgetting, "changed 'momentum_buffer' of the optimiser's parameter 0"),
        (stopping, "changed 'momentum_buffer'.*begin with the state that the optimiser then has"),
        (loading, "changed 'momentum_buffer'"),
        (writing_into_the_frozen, "not trained stays the same.*changed '2.weight'"),
        (writing_into_a_buffer, "changed 'scale'.*call fit again"),
        (replacing_a_buffer, "changed 'scale'"),
        (replacing_a_layer, "replaced '0.weight' and 1 more.*copy_"),
        (freezing, "requires_grad=False for '0.weight' and 1 more.*call fit again"),
        (thawing, "requires_grad=True for '2.weight'"),
        (adding_a_group, "there are 2 where there were 1.*learning rate of 0"),
    ],
)
def test_what_is_trained_stays_the_same_throughout_a_fit(workers, change, message):
    def fit(when, stops=False):
        module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        module[2].requires_grad_(False)
        module.register_buffer("scale", torch.ones(1))
        optimizer = torch.optim.SGD(module[0].parameters(), 0.1, momentum=0.9)

        def changed(epoch, logs):
            if epoch == when:
                change(module, optimizer)
            return stops

        settings = {**SETTINGS, "workers": workers, "optimizer": optimizer, "epochs": 3}
        return phalanx.fit(module, (X, CLASSES), callbacks=changed, **settings)

    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        fit(when=1)
    assert fit(when=3).epochs == 3, "afterwards it is the user's to change"
    assert fit(when=1, stops=True).epochs == 1


@pytest.mark.parametrize("sync_every", [1, 2])
def test_a_callback_may_look_at_the_optimizer_and_change_its_numbers(sync_every):
    def fit(*callbacks):
        module = models.mlp()
        groups = [{"params": module[0].parameters()}, {"params": module[2].parameters(), "lr": 0.2}]
        optimizer = torch.optim.AdamW(groups, lr=0.01)
        told = [lambda epoch, logs, call=call: call(optimizer) for call in callbacks]
        return fitted(
            (X, CLASSES), lambda: module, optimizer=optimizer, callbacks=told, sync_every=sync_every
        )[1].digest  # fmt: skip

    def look(optimizer):
        deepcopy(optimizer.state_dict())
        torch.optim.lr_scheduler.StepLR(optimizer, 5)
        optimizer.zero_grad()

    def change(optimizer):
        optimizer.param_groups[1].update(lr=0.05, weight_decay=0.1, betas=(0.8, 0.9))

    assert fit() == fit(look) != fit(look, change)


def test_in_rounds_the_optimizers_state_has_no_part():
    module = models.mlp()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    kept = {"optimizer": optimizer, "sync_every": 2}
    fitted((X, CLASSES), lambda: module, **kept, callbacks=lambda *_: optimizer.state.clear())


def test_a_callback_that_raises_leaves_nothing_behind():
    def fail(epoch, logs):
        raise KeyError("mine")

    for workers in (1, 2):
        with pytest.raises(KeyError, match="mine"):
            fitted((X, CLASSES), callbacks=fail, workers=workers)


def test_verbose_says_a_line_an_epoch(capsys):
    fitted((X, CLASSES), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", str(n)] for n in (1, 2, 3)]
    assert all("loss" in line and "lr" in line for line in lines)


@pytest.mark.parametrize(("verbose", "n_lines"), [(0, 0), (1, 3), (np.bool_(False), 0)])
def test_verbose_may_be_the_number_that_keras_takes(verbose, n_lines, capsys):
    fitted((X, CLASSES), verbose=verbose)
    assert len(capsys.readouterr().out.splitlines()) == n_lines


# -- a script ------------------------------------------------------------------------------------

SCRIPT = """
    import torch, phalanx
    from torch import nn

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return helper(self.layer(x))

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 32

        def __getitem__(self, index):
            return torch.full((4,), index / 32), index % 2

    def helper(x):
        return torch.tanh(x)

    def loss(outputs, target):
        return nn.functional.cross_entropy(outputs, target)

    forward = Mine.forward
    print("started")
    for workers in (1, 2):
        torch.manual_seed(0)
        run = phalanx.fit(Mine(), Data(), loss=loss, workers=workers, shards=2, batch_size=8)
        print(run.workers, run.digest)
    print(Mine.forward is forward, Data.__getitem__.__globals__ is globals())
"""


def test_a_script_without_a_main_guard(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    started, one, two, own = made.stdout.splitlines()
    assert (started, one[:2], two[:2]) == ("started", "1 ", "2 ")
    assert one.split()[1] == two.split()[1]
    assert own == "True True", "the script's own classes were changed"
    assert made.stderr == ""


# -- checkpoints ---------------------------------------------------------------------------------


def with_a_schedule(every):
    def make(module):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=40)
        return {"optimizer": optimizer, "scheduler": scheduler, "scheduler_every": every}

    return make


PLANS = {
    "adam": lambda module: {},
    "by step": with_a_schedule("step"),
    "by epoch": with_a_schedule("epoch"),
    "clipped": lambda module: {"clip_norm": 0.1, "optimizer": "nadam"},
    "adafactor": lambda module: {"optimizer": torch.optim.Adafactor(module.parameters())},
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3)])
def test_a_training_goes_on_in_mid_epoch_on_other_workers(tmp_path, plan, before, after):
    def trained(workers, **more):
        module = models.cnn()
        run = phalanx.fit(
            module, (models.IMAGES, CLASSES), validation=(models.IMAGES[:9], CLASSES[:9]),
            **PLANS[plan](module), **{**SETTINGS, "workers": workers, "epochs": 4}, **more
        )  # fmt: skip
        return module, run

    undisturbed, run = trained(1)
    trained(before, checkpoint=tmp_path, checkpoint_every="4 steps")
    first = min(tmp_path.glob("step-*"))
    assert int(first.stem.removeprefix("step-")) % 3 in (1, 2)  # of an epoch's steps
    module, resumed = trained(after, resume=first)
    assert resumed.digest == run.digest
    assert resumed.history == run.history
    models.assert_alike(module, undisturbed)


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_a_training_that_was_killed_goes_on_in_its_folder(tmp_path, every):
    def trained(workers, epochs=4, **more):
        module = models.mlp()
        more = {**with_a_schedule(every)(module), **more}
        settings = {**SETTINGS, "workers": workers, "epochs": epochs}
        return phalanx.fit(module, (X, CLASSES), **settings, **more)

    def interrupt(epoch, logs):
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(2, checkpoint=tmp_path, checkpoint_every="4 steps", callbacks=interrupt)
    resumed = trained(1, checkpoint=tmp_path, resume=True)
    assert resumed.events[0].what == "resumed"
    assert resumed.events[0].step % 3 != 0
    assert resumed.digest == trained(3).digest


# -- losses that are not finite ------------------------------------------------------------------


def poisoned(module, batch):
    """Infinite wherever a sample says so."""
    x, y = batch
    return functional.cross_entropy(module(x), y) * (1 / (x[:, 0] != 99).float()).mean()


def bad_at(*rows):
    x = X.clone()
    x[list(rows), 0] = 99.0
    return x, CLASSES


NONFINITE = dict(loss=None, step=poisoned, data_distribution="sequential", optimizer=sgd)


@pytest.mark.parametrize("workers", WORKERS)
def test_stop_names_the_step_and_leaves_the_last_good_parameters(workers):
    module = models.mlp()
    with pytest.raises(NonFiniteLoss, match=r"inf at step 2 \(epoch 0, shard 1, all c") as caught:
        phalanx.fit(module, bad_at(38), **{**SETTINGS, **NONFINITE, "workers": workers})
    assert (caught.value.step, caught.value.epoch, caught.value.shard) == (2, 0, 1)
    good, _ = fitted((X[:32], CLASSES[:32]), **{**NONFINITE, "epochs": 1})
    models.assert_alike(module, good)


@pytest.mark.parametrize("workers", WORKERS)
def test_skip_leaves_the_step_out(workers):
    module, run = fitted(bad_at(20), **NONFINITE, nonfinite="skip", epochs=1, workers=workers)
    good = models.mlp()
    x, y = torch.cat([X[:16], X[32:]]), torch.cat([CLASSES[:16], CLASSES[32:]])
    phalanx.fit(good, (x, y), **{**SETTINGS, **NONFINITE, "epochs": 1})
    models.assert_alike(module, good)
    assert run.steps == 3


@pytest.mark.parametrize("workers", WORKERS)
def test_keep_goes_on_with_what_is_not_finite(workers):
    module, run = fitted(bad_at(20), **NONFINITE, nonfinite="keep", epochs=1, workers=workers)
    assert not np.isfinite(run.losses).any()
    assert np.isnan(models.parameters(module)["0.weight"]).any()


def test_a_loss_threshold_ends_the_training():
    run = fitted((X, CLASSES), loss_threshold=100.0)[1]
    assert (run.epochs, run.reason) == (1, "loss_threshold")


def test_an_optimizer_of_another_module_is_refused_and_nothing_has_changed():
    module, other = models.mlp(), models.mlp()
    with pytest.raises(InvalidInput, match="must be over parameters of the module"):
        phalanx.fit(module, (X, CLASSES), optimizer=sgd(other.parameters()), **SETTINGS)
    models.assert_alike(module, models.mlp())


def test_nan_among_the_targets_is_told_with_the_loss_that_comes_of_it():
    values = models.VALUES.clone()
    values[7] = torch.nan
    with pytest.raises(NonFiniteLoss) as caught:
        phalanx.fit(models.regressor(), (X, values), loss="mse", workers=1)
    [note] = caught.value.__notes__
    assert note.startswith(
        f"The targets y hold NaN in 1 of {len(X)} rows, the first of which is y[7]"
    )

"""A training of one worker and one shard is the plain torch loop, with any optimiser of torch."""

from __future__ import annotations

from functools import partial, update_wrapper

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional
from torch.optim import lr_scheduler as schedules

import phalanx
import torch_models as models

X, CLASSES, VALUES = models.X, models.CLASSES, models.VALUES
BATCH, STEPS = 12, 4  # of an epoch
PLAIN = dict(
    batch_size=BATCH, shards=1, workers=1, data_distribution="sequential", loss="cross_entropy"
)
OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "dampening": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.3),
    "maximize": lambda p: optim.SGD(p, lr=0.001, maximize=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=1e-2),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.005),
    "centered": lambda p: optim.RMSprop(p, lr=0.005, centered=True, momentum=0.5),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1, lr_decay=0.01),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "radam": lambda p: optim.RAdam(p, lr=0.01),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5),
    "asgd": lambda p: optim.ASGD(p, lr=0.05, t0=20),
    "rprop": lambda p: optim.Rprop(p, lr=0.001),
    "adafactor": lambda p: optim.Adafactor(p, lr=0.01),
    "muon": lambda p: optim.Muon([one for one in p if one.ndim == 2], lr=0.01),
}


def plain_loop(
    module, optimizer, epochs, x=X, y=CLASSES, by_step=(), by_epoch=(), clip=None,
    loss_of=functional.cross_entropy,
):  # fmt: skip
    """The loop that everybody writes; the mean loss of each epoch."""
    losses = []
    for _ in range(epochs):
        total = 0.0
        for start in range(0, len(x), BATCH):
            optimizer.zero_grad()
            rows = slice(start, start + BATCH)
            loss = loss_of(module(x[rows]), y[rows])
            loss.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            for scheduler in by_step:
                scheduler.step()
            total += loss.item() * len(x[rows])
        losses.append(total / len(x))
        for step in by_epoch:
            step()
    return losses


def fitted(module, optimizer, epochs, **more):
    return phalanx.fit(
        module, (X, CLASSES), optimizer=optimizer, epochs=epochs, **{**PLAIN, **more}
    )


def assert_same_state(one, other):
    """Two optimisers hold the same state, in the same form, and the same settings."""
    first, second = one.state_dict(), other.state_dict()
    assert first["param_groups"] == second["param_groups"]
    assert first["state"].keys() == second["state"].keys()
    for place, state in first["state"].items():
        assert state.keys() == second["state"][place].keys()
        for name, value in state.items():
            twin = second["state"][place][name]
            assert type(value) is type(twin), name
            if isinstance(value, torch.Tensor):
                assert (value.dtype, value.shape) == (twin.dtype, twin.shape), name
                torch.testing.assert_close(twin, value, rtol=1e-5, atol=1e-7)
            else:
                assert value == pytest.approx(twin), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_and_the_state_for_a_loop_that_goes_on(name):
    by_loop, by_fit = models.mlp(), models.mlp()
    of_loop = OPTIMIZERS[name](list(by_loop.parameters()))
    of_fit = OPTIMIZERS[name](list(by_fit.parameters()))
    expected = plain_loop(by_loop, of_loop, 25)
    assert fitted(by_fit, of_fit, 25).losses == pytest.approx(expected, rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-5, atol=1e-6)
    assert_same_state(of_loop, of_fit)
    assert plain_loop(by_fit, of_fit, 3) == pytest.approx(plain_loop(by_loop, of_loop, 3), rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_fits_of_three_epochs_are_one_of_six(name):
    twice, once = models.wide(), models.wide()
    of_twice, of_once = (OPTIMIZERS[name](list(m.parameters())) for m in (twice, once))
    losses = fitted(twice, of_twice, 3, shards=3, workers=2).losses
    losses += fitted(twice, of_twice, 3, shards=3, workers=2).losses
    assert losses == fitted(once, of_once, 6, shards=3, workers=1).losses
    models.assert_alike(twice, once)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fit_goes_on_from_the_state_of_a_loop(name):
    by_loop, by_fit = models.mlp(), models.mlp()
    of_loop = OPTIMIZERS[name](list(by_loop.parameters()))
    of_fit = OPTIMIZERS[name](list(by_fit.parameters()))
    plain_loop(by_fit, of_fit, 2)
    expected = plain_loop(by_loop, of_loop, 5)
    assert fitted(by_fit, of_fit, 3).losses == pytest.approx(expected[2:], rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["momentum", "adam", "rmsprop", "adafactor"])
def test_four_shards_are_close_to_the_loop(name):
    by_loop, by_fit = models.mlp(), models.mlp()
    expected = plain_loop(by_loop, OPTIMIZERS[name](list(by_loop.parameters())), 25)
    run = fitted(by_fit, OPTIMIZERS[name](list(by_fit.parameters())), 25, shards=4, workers=2)
    assert run.losses == pytest.approx(expected, rel=1e-5)


def test_a_custom_optimizer_that_works_parameter_by_parameter():
    by_loop, by_fit = models.mlp(), models.mlp()
    expected = plain_loop(by_loop, Lion(by_loop.parameters()), 5)
    run = fitted(by_fit, Lion(by_fit.parameters()), 5)
    assert run.losses == pytest.approx(expected, rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-5)


class Lion(optim.Optimizer):
    """A user's own (Chen et al., 2023)."""

    def __init__(self, params, lr=0.002, beta=0.9):
        super().__init__(params, dict(lr=lr, beta=beta))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                mean = state.setdefault("mean", torch.zeros_like(param))
                mean.lerp_(param.grad, 1 - group["beta"])
                param.add_(mean.sign(), alpha=-group["lr"])


def test_a_custom_optimizer_of_a_module_with_a_scalar_parameter():
    def scaled():
        module = models.mlp()
        module.append(Scale())
        return module

    by_loop, by_fit = scaled(), scaled()
    expected = plain_loop(by_loop, Lion(by_loop.parameters()), 3)
    assert fitted(by_fit, Lion(by_fit.parameters()), 3).losses == pytest.approx(expected, rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-5)


class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.factor * x


def groups_of(kind, module, **more):
    """Two groups: of the weights and the biases."""
    weights = [p for p in module.parameters() if p.ndim > 1]
    biases = [p for p in module.parameters() if p.ndim == 1]
    return kind(
        [{"params": weights, "weight_decay": 0.1}, {"params": biases, "lr": 0.03}], lr=0.01, **more
    )


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.NAdam])
def test_groups_with_settings_of_their_own(kind):
    by_loop, by_fit = models.mlp(), models.mlp()
    expected = plain_loop(by_loop, groups_of(kind, by_loop), 25)
    run = fitted(by_fit, groups_of(kind, by_fit), 25)
    assert run.losses == pytest.approx(expected, rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-5, atol=1e-6)


BY_EPOCH = {
    "step": lambda o: schedules.StepLR(o, 2, 0.5),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 20),
    "restarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 4, 2),
    "exponential": lambda o: schedules.ExponentialLR(o, 0.9),
    "lambda": lambda o: schedules.LambdaLR(o, lambda epoch: 0.95**epoch),
    "milestones": lambda o: schedules.MultiStepLR(o, [3, 8]),
    "polynomial": lambda o: schedules.PolynomialLR(o, 20),
    "one after another": lambda o: schedules.SequentialLR(
        o, [schedules.ConstantLR(o, 0.1, 3), schedules.ExponentialLR(o, 0.9)], [3]
    ),
}


@pytest.mark.parametrize("name", BY_EPOCH)
@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW])
def test_a_schedule_by_epoch(name, kind):
    by_loop, by_fit = models.mlp(), models.mlp()
    of_loop, of_fit = groups_of(kind, by_loop), groups_of(kind, by_fit)
    scheduler, other = BY_EPOCH[name](of_loop), BY_EPOCH[name](of_fit)
    expected = plain_loop(by_loop, of_loop, 20, by_epoch=[scheduler.step])
    run = fitted(by_fit, of_fit, 20, scheduler=other)
    assert run.losses == pytest.approx(expected, rel=1e-6)
    assert other.get_last_lr() == scheduler.get_last_lr()
    assert_same_state(of_loop, of_fit)


BY_STEP = {
    "one cycle": lambda o: schedules.OneCycleLR(o, 0.1, total_steps=10 * STEPS),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 40),
    "cyclic": lambda o: schedules.CyclicLR(o, 0.001, 0.05, 7, cycle_momentum=False),
    "warm up": lambda o: schedules.LinearLR(o, 0.1, total_iters=15),
}


@pytest.mark.parametrize("name", BY_STEP)
@pytest.mark.parametrize(
    ("kind", "more"), [(optim.SGD, {"momentum": 0.9}), (optim.Adam, {}), (optim.RMSprop, {})]
)
def test_a_schedule_by_step(name, kind, more):
    if name == "one cycle" and kind is optim.RMSprop:
        more = {"momentum": 0.5}
    by_loop, by_fit = models.mlp(), models.mlp()
    of_loop, of_fit = groups_of(kind, by_loop, **more), groups_of(kind, by_fit, **more)
    scheduler, other = BY_STEP[name](of_loop), BY_STEP[name](of_fit)
    expected = plain_loop(by_loop, of_loop, 10, by_step=[scheduler])
    run = fitted(by_fit, of_fit, 10, scheduler=other, scheduler_every="step")
    assert run.losses == pytest.approx(expected, rel=1e-6)
    assert other.get_last_lr() == scheduler.get_last_lr()
    assert_same_state(of_loop, of_fit)


class Warmed(schedules.LRScheduler):
    """Holds another scheduler of the optimizer, as those that are found in the wild do."""

    def __init__(self, optimizer):
        self.after = schedules.ExponentialLR(optimizer, 0.9)
        super().__init__(optimizer)

    def get_lr(self):
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self):
        super().step()
        if hasattr(self, "begun") and self.last_epoch > 3:
            self.after.step()
        self.begun = True


WITHIN = {
    **BY_STEP,
    "one after another": BY_EPOCH["one after another"],
    "by a function": lambda o: schedules.LambdaLR(o, lambda step: 0.9**step),
    "chained": lambda o: schedules.ChainedScheduler(
        [schedules.ConstantLR(o, 0.1, 3), schedules.ExponentialLR(o, 0.9)]
    ),
    "around another": Warmed,
}


@pytest.mark.parametrize("name", WITHIN)
@pytest.mark.parametrize("sync_every", [1, 3])
def test_a_fit_that_ends_within_an_epoch_leaves_a_schedule_by_step_there(name, sync_every):
    by_loop, by_fit = models.mlp(), models.mlp()
    of_loop, of_fit = (groups_of(optim.SGD, m, momentum=0.9) for m in (by_loop, by_fit))
    scheduler, other = WITHIN[name](of_loop), WITHIN[name](of_fit)
    plain_loop(by_loop, of_loop, 2, by_step=[scheduler])
    plain_loop(by_loop, of_loop, 1, X[: 3 * BATCH], CLASSES[: 3 * BATCH], by_step=[scheduler])
    broken = X.clone()
    broken[3 * BATCH] = float("nan")
    more = {"scheduler": other, "scheduler_every": "step", "sync_every": sync_every}
    fitted(by_fit, of_fit, 2, **more)
    with pytest.raises(phalanx.NonFiniteLoss):
        phalanx.fit(by_fit, (broken, CLASSES), optimizer=of_fit, epochs=2, **{**PLAIN, **more})
    assert other.get_last_lr() == scheduler.get_last_lr()
    assert of_fit.state_dict()["param_groups"] == of_loop.state_dict()["param_groups"]
    if sync_every == 1:
        models.assert_alike(by_loop, by_fit, rtol=1e-4, atol=1e-6)
        expected = plain_loop(by_loop, of_loop, 2, by_step=[scheduler])
        run = fitted(by_fit, of_fit, 2, scheduler=other, scheduler_every="step")
        assert run.losses == pytest.approx(expected, rel=1e-5)


def test_a_fit_that_fails_leaves_a_schedule_by_step_where_the_module_is():
    module = models.mlp()
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    scheduler = schedules.CosineAnnealingLR(optimizer, 40)

    def failing(outputs, target):
        if outputs.requires_grad and len(outputs) == BATCH and outputs.abs().sum() > 0:
            raise OSError("no more")
        return functional.cross_entropy(outputs, target)

    with pytest.raises(OSError, match="no more"):
        fitted(module, optimizer, 2, scheduler=scheduler, scheduler_every="step", loss=failing)
    models.assert_alike(module, models.mlp())
    assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == (0, 0.1)


def test_one_cycle_moves_the_momentum_too():
    module = models.mlp()
    optimizer = optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    scheduler = schedules.OneCycleLR(optimizer, 0.1, total_steps=10 * STEPS)
    fitted(module, optimizer, 5, scheduler=scheduler, scheduler_every="step")
    steady = models.mlp()
    fixed = optim.SGD(steady.parameters(), lr=0.01, momentum=0.9)
    other = schedules.OneCycleLR(fixed, 0.1, total_steps=10 * STEPS, cycle_momentum=False)
    fitted(steady, fixed, 5, scheduler=other, scheduler_every="step")
    assert optimizer.param_groups[0]["momentum"] < 0.9
    assert models.parameters(module)["0.weight"].tolist() != (
        models.parameters(steady)["0.weight"].tolist()
    )


def test_several_schedules():
    by_loop, by_fit = models.mlp(), models.mlp()
    of_loop, of_fit = (optim.SGD(m.parameters(), lr=0.1) for m in (by_loop, by_fit))
    both = [
        [schedules.ExponentialLR(o, 0.9), schedules.StepLR(o, 3, 0.5)] for o in (of_loop, of_fit)
    ]
    expected = plain_loop(by_loop, of_loop, 10, by_epoch=[s.step for s in both[0]])
    run = fitted(by_fit, of_fit, 10, scheduler=both[1])
    assert run.losses == pytest.approx(expected, rel=1e-6)
    assert of_fit.param_groups[0]["lr"] == of_loop.param_groups[0]["lr"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_plateau_of_the_validation_loss(workers):
    by_loop, by_fit = models.mlp(), models.mlp()
    of_loop, of_fit = (optim.SGD(m.parameters(), lr=2.0) for m in (by_loop, by_fit))
    scheduler, other = (
        schedules.ReduceLROnPlateau(o, patience=0, factor=0.5) for o in (of_loop, of_fit)
    )
    held_out = X[:10].flip(0).contiguous(), CLASSES[:10].contiguous()

    def judge():
        with torch.no_grad():
            scheduler.step(functional.cross_entropy(by_loop(held_out[0]), held_out[1]).item())

    shards = 1 if workers == 1 else 3
    expected = plain_loop(by_loop, of_loop, 12, by_epoch=[judge])
    run = fitted(by_fit, of_fit, 12, scheduler=other, validation=held_out, shards=shards,
                 workers=workers)  # fmt: skip
    assert run.losses == pytest.approx(expected, rel=1e-6 if workers == 1 else 1e-4)
    assert of_fit.param_groups[0]["lr"] == of_loop.param_groups[0]["lr"] < 2.0
    assert run.rates[-1] < run.rates[0] == 2.0


@pytest.mark.parametrize("name", ["momentum", "adam", "adafactor"])
def test_clipping_by_norm_is_torchs(name):
    by_loop, by_fit = models.mlp(), models.mlp()
    expected = plain_loop(by_loop, OPTIMIZERS[name](list(by_loop.parameters())), 25, clip=0.05)
    of_fit = OPTIMIZERS[name](list(by_fit.parameters()))
    run = fitted(by_fit, of_fit, 25, clip_norm=0.05)
    assert run.losses == pytest.approx(expected, rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["cnn", "lstm", "transformer", "tied", "parametrized"])
def test_other_models_without_dropout(kind):
    make, x, y = models.KINDS[kind]
    by_loop, by_fit = make(), make()
    for module in (by_loop, by_fit):
        for part in module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
            if isinstance(part, torch.nn.MultiheadAttention):
                part.dropout = 0.0
    expected = plain_loop(by_loop, optim.SGD(by_loop.parameters(), lr=0.1), 25, x, y)
    run = phalanx.fit(
        by_fit, (x, y), optimizer=optim.SGD(by_fit.parameters(), lr=0.1), epochs=25, **PLAIN
    )
    assert run.losses == pytest.approx(expected, rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-4, atol=1e-6)


def test_double_precision():
    by_loop, by_fit = models.mlp().double(), models.mlp().double()
    x = X.double()
    expected = plain_loop(by_loop, optim.Adam(by_loop.parameters()), 25, x)
    run = phalanx.fit(by_fit, (x.numpy(), CLASSES), epochs=25, **PLAIN)
    assert run.losses == pytest.approx(expected, rel=1e-12)
    models.assert_alike(by_loop, by_fit, rtol=1e-10)
    assert next(by_fit.parameters()).dtype is torch.float64


class Headed(nn.Module):
    """Names the parameters of its head alone; those of the body are frozen, and come first."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 8).requires_grad_(False), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))

    def parameters(self, recurse=True):
        return self.head.parameters(recurse)


@pytest.mark.parametrize("by", ["sgd", lambda p: optim.SGD(p, lr=0.01)], ids=["name", "function"])
def test_a_module_that_names_some_of_its_parameters_alone(by):
    by_loop, by_fit = models.made(Headed), models.made(Headed)
    expected = plain_loop(by_loop, optim.SGD(by_loop.parameters(), lr=0.01), 3)
    assert fitted(by_fit, by, 3).losses == pytest.approx(expected, rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-5, atol=1e-6)
    assert phalanx.evaluate(by_fit, (X, CLASSES), loss="cross_entropy", workers=1) == {
        "loss": pytest.approx(functional.cross_entropy(by_fit(X), CLASSES).item())
    }


class Neighbours(nn.Module):
    """Weights that lie between each other in one matrix, and a constant one that is repeated."""

    def __init__(self):
        super().__init__()
        matrix = torch.randn(6, 9)
        self.first, self.last = nn.Parameter(matrix[:, :6]), nn.Parameter(matrix[:, 6:])
        self.register_buffer("ones", torch.ones(1).expand(6))
        self.register_buffer("some", self.ones[:3])

    def forward(self, x):
        return torch.tanh(x @ self.first) * self.ones @ self.last * self.some


def test_weights_that_lie_between_each_other():
    by_loop, by_fit = models.made(Neighbours), models.made(Neighbours)
    expected = plain_loop(by_loop, optim.SGD(by_loop.parameters(), lr=0.01), 3)
    assert fitted(by_fit, "sgd", 3).losses == pytest.approx(expected, rel=1e-6)
    models.assert_alike(by_loop, by_fit, rtol=1e-5, atol=1e-6)


def test_a_last_batch_that_is_smaller_weighs_less():
    by_loop, by_fit = models.mlp(), models.mlp()
    expected = plain_loop(by_loop, optim.Adam(by_loop.parameters()), 10, X[:40], CLASSES[:40])
    run = phalanx.fit(by_fit, (X[:40], CLASSES[:40]), epochs=10, **PLAIN)
    assert run.losses == pytest.approx(expected, rel=1e-6)
    assert run.steps == 10 * STEPS


SOME_IGNORED = torch.where(torch.arange(len(CLASSES)) % 12 < 4, -100, CLASSES)  # a whole shard


class Subclass(nn.CrossEntropyLoss):
    """Computes what its base does."""


named = update_wrapper(partial(functional.cross_entropy, ignore_index=1), functional.cross_entropy)


WEIGHED = {
    "ignored": ("cross_entropy", functional.cross_entropy, SOME_IGNORED),
    "weights": (nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 0.1])), None, CLASSES),
    "weights, ignored": (
        nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 0.1]), label_smoothing=0.1), None, SOME_IGNORED,
    ),
    "index 0": (nn.CrossEntropyLoss(ignore_index=0), None, CLASSES),
    "none": (nn.CrossEntropyLoss(ignore_index=77), None, CLASSES),
    "partial": (
        partial(functional.cross_entropy, weight=torch.tensor([1.0, 9.0, 0.1]), ignore_index=0),
        None, CLASSES,
    ),
    "nested": (
        partial(named, weight=torch.tensor([1.0, 9, 0.1])),
        None, CLASSES,
    ),
    "subclass": (Subclass(torch.tensor([1.0, 9.0, 0.1])), None, CLASSES),
    "forward": (nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 0.1])).forward, None, CLASSES),
    "bytes": (nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 0.1])), None, CLASSES.byte()),
}  # fmt: skip


@pytest.mark.parametrize("epochs", [1, 40], ids=["short", "taped"])
@pytest.mark.parametrize("name", WEIGHED)
def test_a_mean_over_something_else_than_the_samples_is_the_batchs(name, epochs):
    loss, plain, y = WEIGHED[name]
    theirs = models.mlp()
    plain_loop(theirs, optim.SGD(theirs.parameters(), lr=0.05), epochs, y=y, loss_of=plain or loss)
    digests = set()
    for workers in (1, 2):
        ours = models.mlp()
        settings = {**PLAIN, "shards": 3, "workers": workers, "loss": loss, "epochs": epochs}
        sgd = optim.SGD(ours.parameters(), lr=0.05)
        digests.add(phalanx.fit(ours, (X, y), optimizer=sgd, **settings).digest)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    assert len(digests) == 1
    figures = phalanx.evaluate(ours, (X, y), loss=loss, metrics="accuracy", workers=1)
    with torch.no_grad():
        assert figures["loss"] == pytest.approx(float((plain or loss)(ours(X), y)), rel=1e-5)
        right = (ours(X).argmax(dim=1) == y).double().mean()
        assert figures["accuracy"] == pytest.approx(float(right))


def test_an_output_that_is_infinite_is_no_loss_where_its_target_is_left_out():
    class Masked(nn.Linear):
        def forward(self, x):
            return super().forward(x).masked_fill(torch.tensor([False, True, False]), -torch.inf)

    x, y = X[:8], torch.tensor([-100] * 4 + [0, 2, 0, 2])
    module = models.made(lambda: Masked(6, 3))
    with torch.no_grad():
        expected = float(functional.cross_entropy(module(x), y))
    run = phalanx.fit(module, (x, y), epochs=1, **{**PLAIN, "shards": 2, "batch_size": 8})
    assert run.losses == pytest.approx([expected])


def test_a_step_of_which_every_target_is_left_out_changes_nothing():
    module = models.mlp()
    before = [p.detach().clone() for p in module.parameters()]
    y = torch.full_like(CLASSES, -100)
    run = phalanx.fit(module, (X, y), **{**PLAIN, "shards": 3}, optimizer="sgd")
    assert run.losses == [0.0]
    for mine, old in zip(module.parameters(), before, strict=True):
        assert torch.equal(mine, old)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "radam"])
def test_an_optimizer_by_name_has_torchs_own_settings(name):
    kinds = {kind.lower(): getattr(optim, kind) for kind in dir(optim)}
    more = {"lr": 0.01} if name == "sgd" else {}
    by_name, by_object = models.mlp(), models.mlp()
    fitted(by_name, name, 2)
    fitted(by_object, kinds[name](by_object.parameters(), **more), 2)
    models.assert_alike(by_name, by_object)


def test_the_settings_may_be_changed_between_two_fits():
    by_loop, by_fit = models.mlp(), models.mlp()
    of_loop, of_fit = (optim.Adam(m.parameters(), lr=0.01) for m in (by_loop, by_fit))
    expected, losses = [], []
    for rate in (0.01, 0.001):
        of_loop.param_groups[0]["lr"] = of_fit.param_groups[0]["lr"] = rate
        expected += plain_loop(by_loop, of_loop, 3)
        losses += fitted(by_fit, of_fit, 3).losses
    assert losses == pytest.approx(expected, rel=1e-6)
    assert np.all(np.diff(losses) < 0)


def test_a_scheduler_on_the_optimizer_is_not_stepped_by_trials():
    """It binds the optimiser's own `step`, which a copy for a trial must not have."""
    torch.manual_seed(0)
    module, x, y = nn.Linear(5, 3), torch.randn(64, 5), torch.randint(0, 3, (64,))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, step_size=100)
    loss = nn.functional.cross_entropy(module(x), y)
    loss.backward()  # a gradient that is left from before
    expected = (module.weight - 0.1 * module.weight.grad).detach()
    settings = dict(loss="cross_entropy", batch_size=64, shards=1, workers=1)
    phalanx.fit(module, (x, y), optimizer=optimizer, **settings)
    torch.testing.assert_close(module.weight.detach(), expected, rtol=1e-6, atol=1e-7)


def test_the_state_of_an_optimizer_with_a_scheduler_comes_back():
    torch.manual_seed(0)
    module, x, y = nn.Linear(5, 3), torch.randn(64, 5), torch.randint(0, 3, (64,))
    optimizer = torch.optim.Adafactor(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)
    settings = dict(loss="cross_entropy", batch_size=64, shards=1, workers=1)
    phalanx.fit(module, (x, y), optimizer=optimizer, scheduler=scheduler, **settings)
    assert {*optimizer.state[module.weight]} == {"step", "row_var", "col_var"}

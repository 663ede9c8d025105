"""What a fit warns of before it begins: what would make the answer depend on what it should not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import spectral_norm
from torch.utils.checkpoint import checkpoint

import phalanx
import torch_models as models

X, CLASSES, VALUES = models.X, models.CLASSES, models.VALUES
SETTINGS = dict(epochs=1, batch_size=16, shards=2, workers=1)


class Centred(nn.Module):
    """A loss with a running centre, as that of DINO."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(1, 3))

    def forward(self, outputs, target):
        loss = functional.cross_entropy(outputs - self.centre, target)
        self.centre = 0.9 * self.centre + 0.1 * outputs.detach().mean(0, keepdim=True)
        return loss


class Carrying(nn.Module):
    """Goes on with the hidden state of its last batch."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head, self.h = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 3), None

    def forward(self, x):
        fits = self.h is not None and self.h.shape[1] == len(x)
        y, self.h = self.rnn(x[..., None], self.h.detach() if fits else None)
        return self.head(y[:, -1])


def following(module):
    """A step with a mean teacher."""
    teacher = copy.deepcopy(module).requires_grad_(False)

    def step(module, batch):
        with torch.no_grad():
            for mine, its in zip(teacher.parameters(), module.parameters(), strict=True):
                mine.mul_(0.9).add_(its, alpha=0.1)
        outputs = module(batch[0])
        wanted = teacher(batch[0]).softmax(1)
        return functional.cross_entropy(outputs, batch[1]) + functional.cross_entropy(
            outputs, wanted
        )

    return step


class Noisy(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.inner, self.generator = nn.Linear(6, 3), np.random.default_rng(0)

    def forward(self, x):
        return self.inner(x + torch.from_numpy(self.generator.normal(size=x.shape)).float())


def of_rows(module, batch):
    return functional.cross_entropy(module(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("make", "settings", "what"),
    [
        (models.mlp, lambda module: {"loss": Centred()}, "a loss of .*, and then of"),
        (Carrying, lambda module: {"loss": "cross_entropy"}, "another gradient of 'rnn|a loss of"),
        (models.mlp, lambda module: {"step": following(module)}, "a loss of .*, and then of"),
        (Noisy, lambda module: {"step": of_rows}, "a loss of .*, and then of"),
    ],
)
def test_what_a_step_remembers_is_told(make, settings, what):
    module = models.made(make)
    message = rf"4 samples had ({what}).*depend on the workers.*register_buffer"
    with pytest.warns(UserWarning, match=message) as told:
        phalanx.fit(module, (X, CLASSES), **SETTINGS, **settings(module))
    assert told[0].filename == __file__, "the line that called fit"


class Counting(nn.Module):
    """Counts its calls, which nothing depends on, and keeps what it makes once."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls, self.scale = nn.Linear(6, 3), 0, None

    def forward(self, x):
        self.calls += 1
        if self.scale is None:
            self.scale = torch.linspace(1, 2, 6)
        return self.inner(x * self.scale)


class Saving(nn.Module):
    """Computes a part again when it is gone backward through."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


def mixing(module, batch):
    """Mixup: draws from NumPy's generator and torch's."""
    (x, y), share = batch, float(np.random.beta(1, 1))
    others = torch.randperm(len(x))
    outputs = module(share * x + (1 - share) * x[others])
    both = [functional.cross_entropy(outputs, target) for target in (y, y[others])]
    return share * both[0] + (1 - share) * both[1]


def denoising(module, batch):
    noise = torch.randn_like(batch[0])
    return (module(batch[0] + noise) - noise[:, :3]).square().mean()


def drawing(module, batch):
    """Its loss is mostly chance."""
    return functional.cross_entropy(module(batch[0]), batch[1]) * torch.rand(())


def contrasting(module, batch):
    """Of pairs, for whole shards; with a logarithm of how many rows there are."""
    outputs = functional.normalize(module(batch[0]), dim=1)
    alike = outputs @ functional.normalize(module(batch[0] + 0.1), dim=1).T
    return functional.cross_entropy(alike, torch.arange(len(outputs)))


def own_loss(outputs, target):
    return functional.cross_entropy(outputs, target)


def normed():
    return nn.Sequential(
        spectral_norm(nn.Linear(6, 8)), nn.BatchNorm1d(8, momentum=None), nn.Linear(8, 3)
    )


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (Counting, {"loss": own_loss}),
        (Saving, {"loss": own_loss}),
        (normed, {"loss": own_loss}),
        (normed, {"step": mixing}),
        (models.mlp, {"step": denoising}),
        (models.mlp, {"step": contrasting}),
        (models.mlp, {"step": drawing}),
    ],
)
def test_a_step_that_remembers_nothing_and_is_a_mean_gets_no_warning(make, settings):
    phalanx.fit(models.made(make), (X, CLASSES), **SETTINGS, **settings)


def test_samples_that_are_drawn_when_they_are_put_together_are_nothing_that_a_step_remembers():
    def noisy(samples):
        x, y = torch.utils.data.default_collate(samples)
        return x + torch.randn_like(x) * float(np.random.normal()), y

    phalanx.fit(models.mlp(), models.Samples(), collate=noisy, step=of_rows, **SETTINGS)


class Coder(nn.Module):
    """A variational one: outputs are a tuple."""

    def __init__(self):
        super().__init__()
        self.rise, self.fall = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x):
        mean, log = self.rise(x).chunk(2, 1)
        return self.fall(mean + torch.randn_like(mean) * (0.5 * log - 1.5).exp()), mean, log


def evidence(outputs, x, summed=torch.sum):
    made, mean, log = outputs[0], outputs[1], outputs[2] - 3
    errors = (made - x).square().sum(1) - 0.5 * (1 + log - mean**2 - log.exp()).sum(1)
    return summed(errors)


def of_targets(outputs, target):
    return (outputs - target["all"]).square().sum() + target["all"].square().sum()


@pytest.mark.parametrize(
    ("make", "data", "settings", "message"),
    [
        (Coder, (X, X), {"loss": evidence}, "loss of 7 samples is .* the mean of their losses is"),
        (
            models.regressor,
            (X, {"all": VALUES}),
            {"loss": of_targets},
            "loss of 7 samples is .* the mean of their losses is",
        ),
        (
            Coder,
            X,
            {"step": lambda module, x: evidence(module(x), x)},
            "comes twice: it is a sum over samples.*Let step= return the mean",
        ),
        (
            Saving,
            {"x": X, "y": CLASSES},
            {
                "step": lambda module, batch: functional.cross_entropy(
                    module(batch["x"]), batch.pop("y"), reduction="sum"
                )
            },
            "comes twice: it is a sum over samples",
        ),
    ],
)
def test_a_sum_over_samples_is_told(make, data, settings, message):
    with pytest.warns(UserWarning, match=message) as told:
        phalanx.fit(models.made(make), data, **SETTINGS, **settings)
    assert told[0].filename == __file__, "the line that called fit"
    phalanx.fit(models.made(make), data, **{**SETTINGS, "shards": 1}, **settings)


class Scaled(Coder):
    """One of its outputs is a parameter, with as many elements as there are rows in a trial."""

    def __init__(self):
        super().__init__()
        self.scales = nn.Parameter(torch.linspace(0.5, 2, 4))

    def forward(self, x):
        return (*super().forward(x)[:2], self.scales)


def scaled(outputs, x):
    made, _, scales = outputs
    return (made - x).square().mean() * scales.square().mean()


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": lambda outputs, x: evidence(outputs, x, torch.mean)},
        {"step": lambda module, batch: evidence(module(batch[0]), batch[0], torch.mean)},
    ],
)
def test_a_mean_of_tuples_is_one(settings):
    phalanx.fit(models.made(Coder), (X, X), **SETTINGS, **settings)


def test_what_has_as_many_elements_as_there_are_rows_is_no_row():
    phalanx.fit(models.made(Scaled), (X, X), loss=scaled, **SETTINGS)


class Placed(nn.Module):
    """A loss with centres that are learnt."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(3, 3))

    def forward(self, outputs, target):
        near = (outputs - self.centres[target]).square().mean()
        return functional.cross_entropy(outputs, target) + near


@pytest.mark.parametrize("make", [Placed, lambda: Placed().forward])
def test_a_loss_whose_parameters_nobody_trains_is_told(make):
    with pytest.warns(UserWarning, match=r"Placed, has parameters of its own \('centres'\).*step="):
        phalanx.fit(models.mlp(), (X, CLASSES), loss=make(), **SETTINGS)
    frozen = Placed().requires_grad_(False)
    phalanx.fit(models.mlp(), (X, CLASSES), loss=frozen, **SETTINGS)

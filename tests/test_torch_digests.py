"""G1 for torch modules: the same bits for any number of workers, whichever of them die."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import phalanx
import torch_models as models
from phalanx.pure.aggregation import AGGREGATIONS
from phalanx.pure.assignment import ASSIGNMENTS
from phalanx.pure.plan import DISTRIBUTIONS
from phalanx.pure.registry import name_of
from phalanx.testing import PHASES, Fault, scripted

SETTINGS = dict(
    loss="cross_entropy", epochs=2, batch_size=18, shards=4, seed=3, workers=1
)  # 48 rows: the last batch has 12
WORKERS = (2, 3, 4)
STEPS = 3  # of an epoch


def trained(kind, **changes):
    """A model of that kind and its run."""
    make, x, y = models.KINDS[kind]
    module = make()
    return module, phalanx.fit(module, (x, y), **{**SETTINGS, **changes})


def assert_same_for_any_workers(kind, workers=WORKERS, make_changes=None, **changes):
    more = make_changes or dict
    module, alone = trained(kind, **changes, **more())
    assert len(alone.digest) == 64
    for n in workers:
        twin, together = trained(kind, workers=n, **changes, **more())
        assert together.workers == n
        assert together.digest == alone.digest, n
        assert together.losses == alone.losses
        assert together.history == alone.history
        models.assert_alike(module, twin)
    return alone


@pytest.mark.parametrize("kind", models.KINDS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"clip_norm": 0.1}, {"clip_value": 0.01}, {"precision": "bf16"}],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_any_kind_of_model(kind, changes):
    alone = assert_same_for_any_workers(kind, **changes)
    assert np.isfinite(alone.losses).all()
    if changes:
        assert trained(kind)[1].digest != alone.digest, "it changed nothing"


def backwards(epoch):
    """A user's distribution."""
    return np.arange(epoch.n_samples)[::-1]


@dataclass
class Turned:
    """Another, which has no hash."""

    by: int = 7

    def __call__(self, epoch):
        return np.roll(np.arange(epoch.n_samples), self.by)


def to_the_last(n_tasks, speeds_W):
    """A user's assignment."""
    return [len(speeds_W) - 1] * n_tasks


def signs(grads_Sn, weights_S):
    """A user's aggregation."""
    return np.sign(grads_Sn).mean(axis=0)


@pytest.mark.parametrize("distribution", [*sorted(DISTRIBUTIONS), backwards, Turned()], ids=name_of)
def test_any_distribution(distribution):
    alone = assert_same_for_any_workers("mlp", workers=(2, 4), data_distribution=distribution)
    assert alone.strategies["data_distribution"] in (distribution, "backwards", "Turned")
    assert alone.strategies["optimizer"] == "adam"


@pytest.mark.parametrize("assignment", [*sorted(ASSIGNMENTS), to_the_last])
@pytest.mark.parametrize("kind", ["wide", "cnn"])
def test_any_assignment(kind, assignment):
    alone = assert_same_for_any_workers(kind, task_assignment=assignment, epochs=8)
    assert alone.digest == trained(kind, epochs=8)[1].digest


@pytest.mark.parametrize("aggregation", [*sorted(AGGREGATIONS), signs])
def test_any_aggregation(aggregation):
    alone = assert_same_for_any_workers("wide", workers=(2, 4), aggregation=aggregation)
    is_default = alone.digest == trained("wide")[1].digest
    assert is_default == (aggregation == "mean")


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.001),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "muon": lambda p: torch.optim.Muon([one for one in p if one.ndim == 2], lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer(name):
    def own(parameters):
        return OPTIMIZERS[name](list(parameters))

    assert_same_for_any_workers("wide", workers=(2, 4), optimizer=own, clip_norm=0.2)


def test_a_schedule_by_step_and_groups_of_parameters():
    def run(workers):
        module = models.wide()
        weights, biases = module[::2], [module[0].bias, module[2].bias]
        groups = [{"params": [part.weight for part in weights]}, {"params": biases, "lr": 0.5}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.1, 0.2], 2 * STEPS)
        return phalanx.fit(
            module, (models.X, models.CLASSES), optimizer=optimizer, scheduler=scheduler,
            scheduler_every="step", **{**SETTINGS, "workers": workers}
        )  # fmt: skip

    alone = run(1)
    for n in WORKERS:
        assert run(n).digest == alone.digest
        assert run(n).rates == alone.rates


def test_validation_and_its_metrics():
    _, x, y = models.KINDS["cnn"]
    alone = assert_same_for_any_workers(
        "cnn", workers=(2, 3), validation=(x[:20], y[:20]), metrics=["accuracy"]
    )
    assert set(alone.history) == {"loss", "val_loss", "val_accuracy", "lr"}
    assert alone.scores == alone.history["val_loss"]


def test_averaged_statistics_and_counted_steps_of_a_batch_norm():
    module, run = trained("cnn", workers=2)
    assert int(module[1].num_batches_tracked) == run.steps == 2 * STEPS
    assert module[1].running_mean.abs().sum() > 0


def test_statistics_that_the_first_rows_leave_are_trained_all_the_same():
    x = models.X.clone()
    x[:8] = 0  # blank, as the corners of images are
    digests = set()
    for workers in (1, 2):
        torch.manual_seed(0)
        module = nn.Sequential(nn.BatchNorm1d(x.shape[1]), nn.Linear(x.shape[1], 3))
        labels = torch.arange(len(x)) % 3
        run = phalanx.fit(
            module, (x, labels), loss="cross_entropy", batch_size=16, shards=2, workers=workers
        )
        digests.add(run.digest)
        assert module[0].running_mean.abs().max() > 0
    assert len(digests) == 1


def test_shards_and_seed_are_part_of_the_answer():
    digests = {trained("mlp", **change)[1].digest for change in ({}, {"shards": 3}, {"seed": 4})}
    assert len(digests) == 3


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("every", [1, 2])
def test_numbers_of_numpy_are_pythons(workers, every, tmp_path):
    whole = dict(epochs=2, batch_size=18, shards=4, seed=3, workers=workers, sync_every=every)
    real = dict(clip_norm=0.1, loss_threshold=0.5)
    of_python = trained("wide", **whole, **real)[1]
    of_numpy = {name: np.int64(value) for name, value in whole.items()}
    of_numpy |= {name: np.float64(value) for name, value in real.items()}
    kept = dict(checkpoint=tmp_path, checkpoint_every="2 steps", exact=np.True_)
    run = trained("wide", **of_numpy, **kept)[1]
    assert (run.digest, run.history) == (of_python.digest, of_python.history)
    assert type(run.steps) is int
    for changes in ({"batch_size": np.int8(18)}, {"clip_value": np.float64(0.01)}):
        pythons = {name: value.item() for name, value in changes.items()}
        digests = [trained("mlp", **made)[1].digest for made in (changes, pythons)]
        assert digests[0] == digests[1], changes


def test_more_workers_than_tasks_are_not_asked():
    run = trained("mlp", workers=9)[1]
    assert run.workers == 4
    [event] = run.events
    assert event.what == "fewer workers"
    assert event.detail.startswith("9 workers were asked for and 4 took part: to share were the ")


@pytest.mark.parametrize("workers", [-1, "auto", 4])
def test_where_nobody_is_missing_no_event_says_so(workers):
    run = trained("mlp", workers=workers)[1]
    assert "fewer workers" not in [event.what for event in run.events]


@pytest.mark.parametrize(("shards", "useful"), [(1, 1), (2, 2)])
def test_a_single_shard_with_a_gradient_of_its_own_is_one_workers(shards, useful):
    module = models.made(lambda: nn.Sequential(nn.Linear(6, 9_000), nn.ReLU(), nn.Linear(9_000, 3)))
    settings = {**SETTINGS, "epochs": 1, "shards": shards, "workers": 2}
    run = phalanx.fit(module, (models.X, models.CLASSES), **settings)
    assert run.blocks > 1
    assert run.workers == useful


def test_a_single_shard_whose_factors_all_multiply_is_for_several():
    width = 60_000  # half a million parameters and more
    module = models.made(lambda: nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)))
    settings = {**SETTINGS, "epochs": 1, "shards": 1, "workers": 2}
    run = phalanx.fit(module, (models.X, models.CLASSES), **settings)
    assert run.workers == 2


@pytest.mark.parametrize("hidden", [1, 3])
def test_buffers_that_stand_still_at_first_are_learnt(hidden):
    """The power iterations of a matrix of rank one have converged before the training begins."""

    def fit(workers):
        module = models.made(
            lambda: nn.Sequential(
                nn.utils.parametrizations.spectral_norm(nn.Linear(6, hidden)),
                nn.Tanh(),
                nn.Linear(hidden, 3),
            )
        )
        settings = {**SETTINGS, "workers": workers, "optimizer": "sgd", "epochs": 4}
        validation = (models.X, models.CLASSES)
        run = phalanx.fit(module, validation, validation=validation, **settings)
        module.eval()
        loss = nn.functional.cross_entropy(module(models.X), models.CLASSES)
        assert float(loss.detach()) == pytest.approx(run.scores[-1], rel=1e-5)
        return run.digest

    assert len({fit(workers) for workers in (1, 2, 3)}) == 1


class Late(nn.Module):
    """Changes a buffer from its fourth pass on."""

    def __init__(self):
        super().__init__()
        self.layer, self.passes = nn.Linear(6, 3), 0
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        self.passes += 1
        if self.passes > 3:
            self.scale += 0.1
        return self.layer(x) * self.scale


@pytest.mark.parametrize("workers", [1, 2])
def test_a_buffer_that_changes_late_is_an_error(workers):
    with pytest.raises(phalanx.UserFunctionError, match="'scale' was not changed by the first"):
        phalanx.fit(Late(), (models.X, models.CLASSES), **{**SETTINGS, "workers": workers})


@pytest.mark.parametrize("shards", [1, 4])
def test_the_number_of_workers_may_be_left_to_phalanx(shards):
    run = trained("mlp", workers="auto", shards=shards, epochs=20)[1]
    assert run.digest == trained("mlp", shards=shards, epochs=20)[1].digest


# -- faults --------------------------------------------------------------------------------------

FAULTY = dict(epochs=4, shards=5, clip_norm=0.05)  # 12 steps
VARIANTS = ("wide", "cnn")
IN_A_STEP = [phase for phase in PHASES if phase not in ("join", "open", "evaluate")]


@cache
def undisturbed(kind, evaluates):
    return _shaken(kind, 1, evaluates)


def _shaken(kind, workers, evaluates, **more):
    _, x, y = models.KINDS[kind]
    validation = {"validation": (x[:20], y[:20])} if evaluates else {}
    return trained(kind, **FAULTY, **validation, **more, workers=workers)


def survives(kind, workers, faults, evaluates=False, **more):
    """Train under the faults, and compare; returns the run."""
    with scripted(*faults):
        module, run = _shaken(kind, workers, evaluates, **more)
    twin, calm = undisturbed(kind, evaluates)
    assert run.digest == calm.digest
    assert run.history == calm.history
    models.assert_alike(module, twin)
    return run


def lost(run):
    return [event for event in run.events if event.what == "worker lost"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("kind", VARIANTS)
def test_one_of_two_dies(kind, phase, worker):
    evaluates = phase == "evaluate"
    step = 6 if evaluates else 4
    fault = Fault(worker, step, phase)
    run = survives(kind, 2, [fault], evaluates)
    if (worker, phase) != (1, "open"):  # the other one leads
        assert [event.worker for event in lost(run)] == [worker] or phase in (
            "read", "compute", "publish", "evaluate",  # the other one may be quicker
        )  # fmt: skip


@pytest.mark.parametrize("phase", IN_A_STEP)
def test_all_die_in_the_same_phase(phase):
    run = survives("wide", 3, [Fault(worker, 5, phase) for worker in range(3)])
    assert lost(run)


@pytest.mark.parametrize("seed", range(10))
def test_several_die_anywhere(seed):
    rng, workers = random.Random(seed), 2 + seed % 3
    faults = [
        Fault(worker, rng.randrange(1, 9), rng.choice(IN_A_STEP), rng.choice(["kill", "segfault"]))
        for worker in range(workers)
    ]
    assignment = sorted(ASSIGNMENTS)[seed % 3]
    run = survives(VARIANTS[seed % 2], workers, faults, task_assignment=assignment)
    assert run.losses


@pytest.mark.parametrize("phase", ["compute", "norm", "update"])
@pytest.mark.parametrize("action", ["stop", "hang"])
def test_a_worker_stops_or_hangs(phase, action):
    run = survives("wide", 2, [Fault(0, 5, phase, action)])
    assert ["stuck" in event.detail for event in lost(run)] == [True]


def test_one_dies_at_the_norm_again_and_again():
    faults = [Fault(0, step, "norm", life=step - 1) for step in (2, 3, 4)]
    assert lost(survives("wide", 2, faults))


def test_fits_in_two_threads_draw_each_from_its_own():
    """Generators are the process's, and a lone worker computes in it."""
    make, x, y = models.KINDS["mlp"]
    modules = [make() for _ in range(5)]

    def fitted(module):
        return phalanx.fit(module, (x, y), **SETTINGS | {"epochs": 5}).digest

    alone, state = fitted(modules.pop()), torch.get_rng_state()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fitted, modules)) == [alone] * 4
    assert torch.equal(torch.get_rng_state(), state)

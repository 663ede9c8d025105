"""Rounds of local steps: DiLoCo's result, the same for any workers, whichever of them die."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

import keras_models
import phalanx
import torch_models as models
from phalanx import MLPClassifier, MLPRegressor
from phalanx.errors import CheckpointError, InvalidInput
from phalanx.pure.optimizers import Adam, Slice
from phalanx.pure.plan import Plan, random, sequential
from phalanx.pure.rounds import OUTER_MOMENTUM, OUTER_RATE, Outer, Rounds
from phalanx.testing import Fault, scripted

EVERY, SHARDS = 3, 4
SETTINGS = dict(
    loss="cross_entropy", epochs=2, batch_size=9, shards=SHARDS, seed=3, workers=1, sync_every=EVERY
)  # 48 rows: 6 steps an epoch, the last with 3 rows; two rounds of 27 and 21 rows
X, CLASSES = models.X, models.CLASSES


def fitted(make=models.cnn, x=models.IMAGES, **changes):
    module = make()
    return module, phalanx.fit(module, (x, CLASSES), **{**SETTINGS, **changes})


def classifier(**changes):
    settings = dict(
        hidden_layer_sizes=(8,), batch_size=9, shards=SHARDS, max_iter=3, random_state=0,
        dropout=0.2, sync_every=EVERY,
    )  # fmt: skip
    return MLPClassifier(**{**settings, **changes})


class TestAnyWorkers:
    """The digest is the same for any number of them."""

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"optimizer": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9)},
            {"clip_norm": 0.1},
            {"clip_value": 0.01},
            {"validation": (models.IMAGES, CLASSES), "metrics": "accuracy"},
        ],
        ids=lambda changes: "-".join(changes) or "plain",
    )
    def test_torch_with_dropout_and_batch_norm(self, changes):
        module, alone = fitted(**changes)
        assert alone.steps == 4, "rounds"
        assert alone.strategies["sync_every"] == "3"
        for workers in (2, 3, 4):
            twin, together = fitted(workers=workers, **changes)
            assert together.workers == workers
            assert together.digest == alone.digest
            assert together.history == alone.history
            models.assert_alike(module, twin)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("solver", ["adam", "sgd"])
    def test_numpy(self, solver):
        alone = classifier(solver=solver).fit(X, CLASSES).run_
        for workers in (2, 3, 4):
            together = classifier(solver=solver, n_jobs=workers).fit(X, CLASSES).run_
            assert together.digest == alone.digest
            assert together.losses == alone.losses

    @keras_models.marks
    @pytest.mark.parametrize("optimizer", ["adam", "nadam", "adagrad"])
    def test_keras(self, optimizer):
        def fit(workers):
            model = keras_models.mlp(optimizer)
            settings = {**keras_models.SETTINGS, "batch_size": 6, "sync_every": EVERY}
            data = keras_models.X, keras_models.LABELS
            run = phalanx.fit(model, *data, workers=workers, **settings).run
            assert int(model.optimizer.iterations) == 7 * settings["epochs"], "single steps"
            return run

        alone = fit(1)
        for workers in (2, 3, 4):
            assert fit(workers).digest == alone.digest

    @pytest.mark.parametrize("phase", ["compute", "publish", "update", "commit"])
    def test_a_worker_is_killed(self, phase):
        _, alone = fitted()
        with scripted(Fault(worker=1, step=1, phase=phase)):
            _, shaken = fitted(workers=3)
        assert any(event.what == "worker lost" for event in shaken.events)
        assert shaken.digest == alone.digest

    @pytest.mark.parametrize("workers", [1, 3])
    def test_validation_is_of_what_the_outer_step_made(self, workers):
        data = models.IMAGES, CLASSES
        module, run = fitted(workers=workers, validation=data)
        found = phalanx.evaluate(module, data, loss="cross_entropy", workers=1)
        assert run.history["val_loss"][-1] == found["loss"]

    def test_it_is_part_of_the_answer(self):
        digests = {fitted(sync_every=every)[1].digest for every in (1, 2, 3)}
        assert len(digests) == 3


class TestCheckpoints:
    def test_going_on_in_mid_epoch(self, tmp_path):
        _, whole = fitted()
        fitted(epochs=1, checkpoint=tmp_path, checkpoint_every="1 steps")
        newest = sorted(tmp_path.glob("step-*"))
        for path in newest[:2]:
            _, gone_on = fitted(resume=path, workers=2)
            assert gone_on.digest == whole.digest

    def test_of_another_rhythm_it_is_refused(self, tmp_path):
        fitted(checkpoint=tmp_path)
        with pytest.raises(CheckpointError, match="model"):
            fitted(resume=tmp_path, sync_every=2)


def by_hand(module, make_optimizer, x, y, plan, every, epochs, set_rate=None):
    """DiLoCo with S replicas, written out; returns the mean losses of the epochs."""
    losses, velocity = [], [torch.zeros_like(p) for p in module.parameters()]
    total = -(-plan.n_samples // plan.batch_size)
    for epoch in range(epochs):
        order, sums = plan.order(epoch), 0.0
        for first in range(0, total, every):
            rows = order[first * plan.batch_size : (first + every) * plan.batch_size]
            steps = min(every, total - first)
            start = [p.detach().clone() for p in module.parameters()]
            changed = [torch.zeros_like(p) for p in start]
            for part in np.array_split(rows, plan.n_shards):
                replica = copy.deepcopy(module)
                optimizer = make_optimizer(replica.parameters())
                for h, batch in enumerate(np.array_split(part, steps)):
                    if set_rate:
                        optimizer.param_groups[0]["lr"] = set_rate(epoch * total + first + h)
                    optimizer.zero_grad()
                    loss = functional.cross_entropy(replica(x[batch]), y[batch])
                    loss.backward()
                    optimizer.step()
                    sums += float(loss.detach()) * len(batch)
                for change, p, before in zip(changed, replica.parameters(), start, strict=True):
                    change += (before - p.detach()) * len(part) / len(rows)
            with torch.no_grad():
                for p, v, change in zip(module.parameters(), velocity, changed, strict=True):
                    v.mul_(OUTER_MOMENTUM).add_(change)
                    p -= OUTER_RATE * (change + OUTER_MOMENTUM * v)
        losses.append(sums / len(order))
    return losses


@pytest.fixture
def outer_mean(monkeypatch):
    """The outer step goes to the replicas' mean."""
    monkeypatch.setattr("phalanx.local.Outer", lambda inner, every: Outer(inner, every, 1.0, 0.0))


class TestTheAlgorithm:
    """The result is that of a plain loop over replicas."""

    @pytest.mark.parametrize("every", [2, 4, 100])
    @pytest.mark.parametrize(
        "make_optimizer",
        [
            lambda params: torch.optim.Adam(params, 0.01),
            lambda params: torch.optim.SGD(params, 0.1, momentum=0.9, weight_decay=0.01),
        ],
        ids=["adam", "sgd"],
    )
    def test_by_hand(self, make_optimizer, every):
        mine, theirs = models.wide().double(), models.wide().double()
        x, settings = X.double(), {**SETTINGS, "epochs": 3, "sync_every": every}
        run = phalanx.fit(mine, (x, CLASSES), optimizer=make_optimizer, **settings)
        plan = Plan(len(X), SETTINGS["batch_size"], SHARDS, SETTINGS["seed"], random)
        losses = by_hand(theirs, make_optimizer, x, CLASSES, plan, every, 3)
        models.assert_alike(mine, theirs, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(run.losses, losses, rtol=1e-6)

    def test_a_schedule_goes_by_single_steps(self):
        def rate(step):
            return 0.1 * 0.8**step

        mine, theirs = models.mlp(), models.mlp()
        optimizer = torch.optim.SGD(mine.parameters(), 0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        settings = {**SETTINGS, "scheduler": scheduler, "scheduler_every": "step"}
        phalanx.fit(mine, (X, CLASSES), optimizer=optimizer, **settings)
        plan = Plan(len(X), SETTINGS["batch_size"], SHARDS, SETTINGS["seed"], random)
        make = torch.optim.SGD
        by_hand(theirs, lambda p: make(p, 0.1), X, CLASSES, plan, EVERY, 2, rate)
        models.assert_alike(mine, theirs, rtol=1e-5, atol=1e-6)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_one_replica_without_an_outer_step_is_plain_training(self, outer_mean):
        settings = dict(shards=1, solver="sgd", momentum=0.0, alpha=0.5, dropout=0.0, batch_size=8)
        local, plain = (
            classifier(sync_every=every, **settings).fit(X.numpy().astype(float), CLASSES)
            for every in (EVERY, 1)
        )
        np.testing.assert_allclose(local.coefs_[0], plain.coefs_[0], rtol=1e-9)
        np.testing.assert_allclose(local.loss_curve_, plain.loss_curve_, rtol=1e-9)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_the_penalty_is_that_of_the_whole_batch(self, outer_mean):
        """Steps so small that it does not matter who makes them: replicas, or all together."""
        settings = dict(solver="sgd", momentum=0.0, alpha=5.0, dropout=0.0, batch_size=24)
        settings |= dict(learning_rate_init=1e-6, max_iter=1)
        x = X.numpy().astype(float)
        local, plain, start = (
            classifier(sync_every=every, **{**settings, **more}).fit(x, CLASSES)
            for every, more in ((2, {}), (1, {}), (1, {"learning_rate_init": 1e-300}))
        )
        for changed, other, first in zip(local.coefs_, plain.coefs_, start.coefs_, strict=True):
            np.testing.assert_allclose(changed - first, other - first, rtol=1e-3)
        np.testing.assert_allclose(local.loss_curve_, plain.loss_curve_, rtol=1e-5)

    @keras_models.marks
    def test_a_new_optimizer_of_keras_need_not_begin_at_zero(self, outer_mean):
        """Adagrad's sums begin at 0.1; a round is an epoch, so that both begin anew once."""

        def weights(sync_every):
            model = keras_models.plain("adagrad")
            settings = dict(batch_size=7, shards=1, verbose=0, seed=3, workers=1)
            data = keras_models.X, keras_models.VALUES
            phalanx.fit(model, *data, epochs=1, sync_every=sync_every, **settings)
            return [weight.numpy() for weight in model.weights]

        for local, plain in zip(weights(6), weights(1), strict=True):
            np.testing.assert_allclose(local, plain, rtol=1e-5, atol=1e-7)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_a_regressor_learns(self):
        y = models.VALUES.numpy()
        settings = dict(hidden_layer_sizes=16, random_state=0, batch_size=8, sync_every=4)
        model = MLPRegressor(**settings, max_iter=200)
        assert model.fit(X, y).score(X, y) > 0.9


class TestRounds:
    def plan(self, **changes):
        return replace(Plan(50, 8, 2, 0, sequential), **changes)

    def test_every_row_is_in_one_step(self):
        plan = self.plan()
        rounds = Rounds.of(plan, 3)
        whole = rounds.plan(plan)
        assert (rounds.count, whole.n_steps) == (3, 3)
        seen = [
            (start + first, start + last)
            for nth in range(rounds.count)
            for start, stop in whole.shards(nth)
            for first, last in rounds.batches(stop - start, nth)
        ]
        assert [first for first, _ in seen] == [0, *(last for _, last in seen[:-1])]
        assert seen[-1][1] == 50
        assert max(last - first for first, last in seen) == plan.max_shard_rows

    def test_settings_there_and_back(self):
        rounds = Rounds(3, 7)
        table_TGX = np.random.default_rng(0).normal(size=(7, 2, 4))
        folded = rounds.folded(table_TGX)
        assert folded.shape == (3, 2, 12)
        back = np.concatenate([rounds.unfolded(settings_GX) for settings_GX in folded])
        np.testing.assert_array_equal(back[:7], table_TGX)
        np.testing.assert_array_equal(back[7:], np.repeat(table_TGX[-1:], 2, axis=0))

    def test_the_outer_step_is_pytorchs_nesterov(self):
        rng = np.random.default_rng(0)
        start, grads = rng.normal(size=5), rng.normal(size=(4, 5))
        param = torch.tensor(start, requires_grad=True)
        theirs = torch.optim.SGD([param], 0.7, momentum=0.9, nesterov=True)
        mine = start.copy()
        at = Slice(mine, np.zeros((1, 5)), np.empty(5), np.empty(5))
        update = Outer(Adam(), 4, 0.7, 0.9).bind(at)
        for grad in grads:
            at.grad_n = grad.copy()
            update(None, 123.0)
            param.grad = torch.tensor(grad)
            theirs.step()
        np.testing.assert_allclose(mine, param.detach().numpy(), rtol=1e-12)


class TestTheUsersOptimizer:
    def test_its_state_is_neither_used_nor_changed(self):
        module = models.mlp()
        optimizer = torch.optim.Adam(module.parameters())
        _, fresh = fitted(models.mlp, X, optimizer="adam")
        functional.cross_entropy(module(X), CLASSES).backward()
        with torch.no_grad():
            before = [p.clone() for p in module.parameters()]
            optimizer.step()
            for param, value in zip(module.parameters(), before, strict=True):
                param.copy_(value)
        state = copy.deepcopy(optimizer.state_dict()["state"])
        _, run = fitted(lambda: module, X, optimizer=optimizer)
        assert run.digest == fresh.digest
        for i, kept in optimizer.state_dict()["state"].items():
            assert all(torch.equal(kept[name], state[i][name]) for name in kept)


class TestBadInput:
    @pytest.mark.parametrize("value", [0, -1, 1.5, "20", None, True])
    def test_it_must_be_a_positive_integer(self, value):
        with pytest.raises(InvalidInput, match="sync_every must be an integer at least 1; got"):
            fitted(sync_every=value)
        with pytest.raises(InvalidInput, match="sync_every must be an integer at least 1; got"):
            classifier(sync_every=value).fit(X, CLASSES)

    def test_l_bfgs_has_no_steps_of_its_own(self):
        with pytest.raises(InvalidInput, match="solver='lbfgs'"):
            classifier(solver="lbfgs").fit(X, CLASSES)

    @keras_models.marks
    def test_an_epoch_must_not_end_in_mid_round(self):
        data = keras_models.X, keras_models.LABELS
        with pytest.raises(InvalidInput, match="multiple of sync_every"):
            phalanx.fit(
                keras_models.mlp(), *data, batch_size=4, steps_per_epoch=5, sync_every=2, verbose=0
            )

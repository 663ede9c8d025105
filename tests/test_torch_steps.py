"""What code of the user's may do in a step, whoever computes it: nothing of it reaches the next."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import phalanx
import torch_models as models

X, CLASSES = models.X, models.CLASSES
SETTINGS = dict(epochs=2, batch_size=16, shards=2)


def sgd(params):
    return torch.optim.SGD(params, lr=0.5)


def assert_same_for_any_workers(step, make=models.mlp, data=(X, CLASSES), **changes):
    """Returns the run."""
    options = {**SETTINGS, "step": step, "optimizer": sgd, **changes}
    runs = [phalanx.fit(make(), data, workers=w, **options) for w in (1, 2)]
    assert runs[0].digest == runs[1].digest
    return runs[0]


def casting(module, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return functional.cross_entropy(module(batch[0]), batch[1])


def plain_losses(step, module, epochs):
    optimizer, losses = sgd(module.parameters()), []
    for _ in range(epochs):
        total = 0.0
        for x, y in zip(X.split(16), CLASSES.split(16), strict=True):
            optimizer.zero_grad()
            loss = step(module, (x, y))
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x) / len(X)
        losses.append(total)
    return losses


def test_autocast_in_a_step_casts_the_weights_of_every_step():
    in_order = dict(epochs=6, shards=1, data_distribution="sequential")
    run = assert_same_for_any_workers(casting, **in_order)
    assert run.losses == pytest.approx(plain_losses(casting, models.mlp(), 6), rel=1e-2)
    assert run.losses[-1] < 0.8 * run.losses[0]


def casting_by_default(module, batch):
    with torch.no_grad(), torch.autocast("cpu"):
        module(batch[0])  # torch would remember these casts, which have no gradient
    with torch.autocast("cpu"):
        return functional.cross_entropy(module(batch[0]), batch[1])


def test_autocast_around_a_fit_has_no_part_in_it():
    apart = assert_same_for_any_workers(casting_by_default)
    with torch.autocast("cpu", dtype=torch.float16, cache_enabled=False):
        assert assert_same_for_any_workers(casting_by_default).digest == apart.digest
        assert torch.is_autocast_enabled("cpu"), "it is again what the caller has set"
        assert torch.get_autocast_dtype("cpu") is torch.float16
        assert not torch.is_autocast_cache_enabled()
    assert torch.autocast_increment_nesting() == 1
    assert torch.autocast_decrement_nesting() == 0


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_a_mode_without_gradients_around_a_fit_has_no_part_in_it(around):
    apart = assert_same_for_any_workers(casting_by_default)
    modules = [models.mlp() for _ in range(2)]  # made within inference_mode, they would be refused
    with around():
        data = X.clone(), CLASSES.clone()
        within = assert_same_for_any_workers(casting_by_default, modules.pop, data)
        assert not torch.is_grad_enabled(), "it is again what the caller has set"
    assert within.digest == apart.digest


class Casting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x).float()


def test_predictions_and_figures_by_a_module_that_casts_are_of_its_weights_now():
    module = models.made(Casting)
    for _ in range(2):
        assert torch.equal(torch.from_numpy(phalanx.predict(module, X, workers=1)), module(X))
        figures = phalanx.evaluate(module, (X, CLASSES), loss="cross_entropy", workers=1)
        assert figures["loss"] == pytest.approx(
            functional.cross_entropy(module(X), CLASSES).item(), rel=1e-5
        )
        phalanx.fit(module, (X, CLASSES), loss="cross_entropy", workers=1, optimizer=sgd)


def attacking(module, batch):
    """FGSM, as in torch's tutorial."""
    x, y = batch
    x.requires_grad = True
    functional.cross_entropy(module(x), y).backward()
    return functional.cross_entropy(module((x + 0.1 * x.grad.sign()).detach()), y)


def popping(module, batch):
    y = batch.pop("y")
    return functional.cross_entropy(module(batch["x"]), y)


def spoiling(module, batch):
    """Noise in place, then a penalty of the gradient by the inputs."""
    x, y = batch
    x += 0.1 * torch.randn_like(x)
    loss = functional.cross_entropy(module(x.requires_grad_(True)), y)
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    return loss + grad.square().sum(1).mean()


@pytest.mark.parametrize(
    ("step", "data"),
    [(attacking, (X, CLASSES)), (popping, {"x": X, "y": CLASSES}), (spoiling, (X, CLASSES))],
)
def test_a_step_may_change_its_batch(step, data):
    x, y = X.clone(), CLASSES.clone()
    assert_same_for_any_workers(step, data=data)
    assert torch.equal(x, X)
    assert torch.equal(y, CLASSES)


def test_a_gradient_of_the_batch_is_that_of_this_step_alone():
    def step(module, batch):
        x, y = batch
        x.requires_grad = True
        functional.mse_loss(x, torch.zeros_like(x), reduction="sum").backward()
        assert torch.equal(x.grad, 2 * x.detach())
        return functional.cross_entropy(module(x), y)

    phalanx.fit(models.mlp(), (X, CLASSES), step=step, workers=1, **SETTINGS)


def attracting(module, batch):
    """Of samples of class 0, if there are any; the first rows have none."""
    outputs = module(batch[0])[batch[1] == 0]
    return outputs.var(0).sum() if len(outputs) > 1 else torch.zeros((), requires_grad=True)


def test_a_loss_may_be_zero_where_there_is_nothing_to_learn():
    order = torch.argsort(CLASSES, descending=True, stable=True)
    run = assert_same_for_any_workers(attracting, data=(X[order], CLASSES[order]), epochs=6)
    assert run.losses[-1] < run.losses[0]


class Adding(nn.Module):
    """Has buffers for a sum over samples, and for how many there were."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("total", torch.zeros(6))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.total += x.detach().sum(0)
        self.count += len(x)
        return self.layer(x)


def test_of_buffers_the_mean_of_the_shards_is_taken_and_of_integers_the_first_shards():
    module = models.made(Adding)
    phalanx.fit(module, (X, CLASSES), loss="cross_entropy", batch_size=len(X), shards=2, workers=1)
    torch.testing.assert_close(module.total, X.sum(0) / 2)
    assert int(module.count) == len(X) // 2


def dropping():
    return models.made(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)))


def labelling(module, batch):
    """Pseudo-labels; who wrote it calls train() once an epoch."""
    loss = functional.cross_entropy(module(batch[0]), batch[1])
    module.eval()
    with torch.no_grad():
        guess = module(batch[0]).argmax(1)
    return loss + 0.1 * functional.cross_entropy(module(batch[0]), guess)


def test_a_step_that_calls_eval_leaves_dropout_to_the_next():
    assert_same_for_any_workers(labelling, dropping, shards=4)


class Convolved(nn.Module):
    """A graph's, whose adjacency matrix is a sparse buffer."""

    def __init__(self, layout):
        super().__init__()
        matrix = torch.eye(8) + torch.diag(torch.ones(7), 1)
        self.register_buffer("adjacency", matrix.to_sparse(layout=layout))
        self.register_buffer("features", X[:8].clone())
        self.inner = nn.Linear(6, 3)

    def forward(self, nodes):
        return torch.mm(self.adjacency, self.inner(self.features))[nodes]


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_sparse_buffer_that_stays_as_it_is(layout):
    data = torch.arange(8), CLASSES[:8]
    changes = dict(step=None, loss="cross_entropy", batch_size=4)
    assert_same_for_any_workers(
        data=data, make=lambda: models.made(lambda: Convolved(layout)), **changes
    )


class Grown(Convolved):
    def forward(self, nodes):
        out = super().forward(nodes)
        self.adjacency = self.adjacency * 0.9
        return out


def test_a_sparse_buffer_that_a_step_changes_is_refused():
    with pytest.raises(phalanx.InvalidInput, match=r"must be dense.*'adjacency'.*to_dense\(\)"):
        phalanx.fit(Grown(torch.sparse_coo), (torch.arange(8), CLASSES[:8]), loss="cross_entropy")

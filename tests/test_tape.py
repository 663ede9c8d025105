"""A tape plays the operations that a function called, to the same bits, or is refused."""

import gc

import numpy as np
import pytest

import phalanx

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

from phalanx.fitting import worth  # noqa: E402
from phalanx.fitting.pytorch import known  # noqa: E402
from phalanx.fitting.pytorch.arguments import objective_of, settings_of  # noqa: E402
from phalanx.models.pytorch import tracing  # noqa: E402
from phalanx.models.pytorch.batches import Batch  # noqa: E402
from phalanx.models.pytorch.leaving import LeftGradients  # noqa: E402
from phalanx.models.pytorch.playing import played  # noqa: E402
from phalanx.models.pytorch.tape import Tape, Unrecordable, memory_of  # noqa: E402


def perceptron(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), *more, nn.Linear(5, 3))


def samples(n):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0)


def loss_of(module):
    return lambda x, y: (functional.cross_entropy(module(x), y), None)


class TestPlaying:
    def test_numbers_that_are_changed_in_place_begin_anew(self):
        def function(x):
            total = torch.tensor(0.0)
            total += x.sum()
            total += 1
            return [total]

        play = played(Tape(function, [torch.ones(2)]), n_kept=1, holds_still=True)
        assert [play((torch.full((2,), value),)) for value in (1.0, 1.0, 2.0)] == [3, 3, 5]

    def test_what_nothing_comes_of_is_left_out_and_what_is_changed_is_not(self):
        outside = torch.zeros(2)

        def function(x):
            x.exp()
            outside.add_(x)
            return [x * 2]

        play = played(Tape(function, [torch.ones(2)]), n_kept=1, holds_still=True)
        play((torch.ones(2),))
        assert torch.equal(outside, torch.full((2,), 2.0))
        called = {str(play.__globals__.get(name)) for name in play.__code__.co_names}
        assert called >= {"aten.add_.Tensor", "aten.mul.Tensor"}
        assert "aten.exp.default" not in called

    def test_a_product_is_made_where_it_is_wanted(self):
        def function(x, y):
            product = x.t() @ y
            return [y.sum(), product.t().t(), product + 1, None]

        x, y, slots = torch.rand(4, 3), torch.rand(4, 2), [torch.ones(3, 2) for _ in range(3)]
        play = played(Tape(function, [x, y]), n_kept=1, holds_still=True)
        assert play((x, y), slots) == y.sum()
        assert torch.equal(slots[0], x.t() @ y)
        assert torch.equal(slots[1], x.t() @ y + 1)
        assert torch.equal(slots[2], torch.zeros(3, 2))

    def test_views_of_parameters_follow_them_to_other_memory(self):
        weight = nn.Parameter(torch.ones(2, 3))
        with tracing.lent([weight]):
            weight.data = torch.zeros(2, 3)
            tape = Tape(lambda x: [functional.linear(x, weight)], [torch.ones(4, 3)])
        play = played(tape, n_kept=1, holds_still=True)
        assert torch.equal(play((torch.ones(4, 3),)), torch.full((4, 2), 3.0))
        with torch.no_grad():
            weight.mul_(2)
        assert torch.equal(play((torch.ones(4, 3),)), torch.full((4, 2), 6.0))

    @pytest.mark.parametrize(
        "number",
        [
            lambda x: float(x.sum()), lambda x: x.numpy().sum(), lambda x: x.tolist()[0],
            lambda x: 1 if x[0] > 0 else 2, lambda x: len(x.nonzero()),
            lambda x: torch.tensor([x.sum(), 1.0]).sum(), lambda x: x.new_tensor([x.sum()]),
            lambda x: torch.as_tensor([[x[0]], [x[1]]]).sum(), lambda x: torch.asarray([x[0]]),
            lambda x: torch.tensor(data=(x.sum(), 1.0)).sum(),
            lambda x: torch.FloatTensor([x.sum()]), lambda x: x.new([x.sum()]),
            lambda x: len(torch.tensor_split(x, torch.tensor([1]))),
            lambda x: x.to_sparse().indices().size(1),
        ],
    )  # fmt: skip
    def test_a_number_that_leaves_torch_is_refused(self, number):
        with pytest.raises(Unrecordable):
            Tape(lambda x: [x * number(x)], [torch.ones(3)])

    def test_tensors_that_are_made_of_numbers_or_of_one_tensor_are_not(self):
        made = lambda x: torch.tensor([1.0, 2.0, 3.0]) + torch.as_tensor(x) + x.new_zeros(3)  # noqa: E731
        play = played(Tape(lambda x: [made(x)], [torch.ones(3)]), n_kept=1, holds_still=True)
        x = torch.arange(3.0)
        assert torch.equal(play((x,)), made(x))


class TestGradients:
    @pytest.mark.parametrize(
        "make",
        [
            perceptron,
            lambda: perceptron(nn.Dropout(0.4)),
            lambda: perceptron(nn.LayerNorm(5), nn.Tanh()),
            lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2), nn.Flatten(),
                                  nn.Linear(8, 3, bias=False)),
        ],
        ids=["plain", "dropout", "norm", "convolution"],
    )  # fmt: skip
    def test_they_are_those_of_autograd(self, make):
        module = make()
        params, batch = list(module.parameters()), samples(9)
        played, draws = tracing.faster_pass(loss_of(module), LeftGradients(params), batch)
        assert draws == any(isinstance(part, nn.Dropout) for part in module)
        x, y = samples(9)
        found = []
        for way in (played, tracing.pass_of(loss_of(module), LeftGradients(params))):
            torch.manual_seed(7)
            slots = [torch.full_like(p, 9.0, requires_grad=False) for p in params]
            loss, _ = way((x * 2, y), slots)
            found.append([loss, *slots])
        assert all(map(torch.equal, *found))

    def test_what_differs_in_the_trial_is_left_to_autograd(self):
        weight, calls = nn.Parameter(torch.ones(6)), []

        def counted(x):
            calls.append(x)
            out = x @ weight * len(calls)
            return out.mean(), out

        assert tracing.faster_pass(counted, LeftGradients([weight]), [samples(4)[0]]) is None
        assert len(calls) > 1, "it was refused by the recording already"

    def test_constants_that_are_changed_through_a_view_begin_anew(self):
        weight = nn.Parameter(torch.ones(6))

        def loss_of(x, y):
            factor = torch.ones(len(x), 2)
            factor[:, 0].mul_((y == 1) * 4 + 1)
            out = x @ weight
            return (out * factor[:, 0]).mean(), out

        x, _ = samples(4)
        play, _ = tracing.faster_pass(loss_of, LeftGradients([weight]), [x, torch.zeros(4).long()])
        for y in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]):
            batch = [x, torch.tensor(y)]
            assert torch.equal(play(batch, [torch.zeros(6)])[0], loss_of(*batch)[0])

    def test_checks_of_torch_are_made(self):
        weight = nn.Parameter(torch.eye(2))

        def loss_of(x):
            return torch.linalg.cholesky(x[0]).sum() * weight.sum(), x

        play, _ = tracing.faster_pass(loss_of, LeftGradients([weight]), [torch.eye(2)[None]])
        with pytest.raises(torch.linalg.LinAlgError):
            play([-torch.eye(2)[None]], [torch.zeros(2, 2)])

    def test_nothing_of_the_trial_is_left(self):
        def tensors():
            kinds = torch.Tensor, nn.Parameter
            return {id(part): part for part in gc.get_objects() if type(part) in kinds}

        module = perceptron()
        params, batch = list(module.parameters()), samples(4)
        gc.collect()
        before = tensors()
        gc.disable()
        try:
            play, _ = tracing.faster_pass(loss_of(module), LeftGradients(params), batch)
            left = [part for place, part in tensors().items() if place not in before]
        finally:
            gc.enable()
        known = {memory_of(param) for param in params}
        assert play
        assert not [part for part in left if part.ndim and memory_of(part) not in known]

    def test_parameters_and_generators_are_as_before(self):
        module = perceptron(nn.Dropout(0.4))
        params = list(module.parameters())
        before = [(p.data_ptr(), p.detach().clone()) for p in params]
        state = torch.get_rng_state()
        assert tracing.faster_pass(loss_of(module), LeftGradients(params), samples(4)) is not None
        assert all(
            p.data_ptr() == at and torch.equal(p, v)
            for p, (at, v) in zip(params, before, strict=True)
        )
        assert torch.equal(torch.get_rng_state(), state)

    def test_one_that_is_sparse_is_left_to_autograd(self):
        table = nn.Embedding(5, 3, sparse=True)
        index = torch.tensor([1, 2])
        params = list(table.parameters())
        assert (
            tracing.faster_pass(lambda i: (table(i).sum(), None), LeftGradients(params), [index])
            is None
        )


def trained(make, **options):
    module = make()
    options = {"epochs": 120, "batch_size": 25, "shards": 2, "workers": 1} | options
    return phalanx.fit(module, samples(60), loss="cross_entropy", **options).digest


class TestTraining:
    @pytest.mark.parametrize("more", [(), (nn.Dropout(0.4),)], ids=["plain", "dropout"])
    def test_it_ends_in_the_same_bits_with_and_without(self, more, monkeypatch):
        played = {trained(lambda: perceptron(*more), workers=n) for n in (1, 3)}
        monkeypatch.setattr(worth, "WORTHWHILE", 10**9)
        assert played == {trained(lambda: perceptron(*more))}

    def test_a_tape_is_played_in_every_step_of_its_size(self, monkeypatch):
        plays = []
        faster = tracing.faster_pass

        def counted(*given):
            play, draws = faster(*given)
            return lambda batch, slots: plays.append(len(batch[0])) or play(batch, slots), draws

        monkeypatch.setattr("phalanx.models.pytorch.network.faster_pass", counted)
        trained(perceptron, epochs=60)  # 2 batches of 25, in shards of 13 and 12, and one of 10
        assert {size: plays.count(size) for size in plays} == {13: 120, 12: 120}

    def test_tapes_are_for_sizes_that_occur_often(self, monkeypatch):
        sizes = []
        faster = tracing.faster_pass
        monkeypatch.setattr(
            "phalanx.models.pytorch.network.faster_pass",
            lambda loss, params, batch: sizes.append(len(batch[0])) or faster(loss, params, batch),
        )
        trained(perceptron, epochs=60, shards=1)  # 2 batches of 25, and one of 10, an epoch
        assert sizes == [25]


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.scale = nn.Linear(6, 3), 1.0

    def forward(self, x):
        return self.inner(x) * self.scale


def hooked():
    module = perceptron()
    module[0].register_forward_hook(lambda *_: None)
    return module


def patched():
    module = perceptron()
    module[0].forward = lambda x: x[:, :5]
    return module


class TestKnownParts:
    def example(self, module, loss="cross_entropy", step=None, content=None, precision="float32"):
        objective = objective_of(None if step else loss, step, None)
        batch = Batch(samples(4) if content is None else content, 4)
        return known.example_of(module, objective, settings_of(precision, "cpu"), batch)

    def test_torchs_own_modules_and_losses_have_an_example(self):
        for loss in ("cross_entropy", nn.CrossEntropyLoss(), functional.cross_entropy):
            x, y = self.example(perceptron(), loss)
            np.testing.assert_array_equal(x, samples(4)[0].numpy())
            assert y.dtype == np.int64

    @pytest.mark.parametrize(
        "make",
        [Own, hooked, patched, lambda: perceptron(nn.BatchNorm1d(5)), lambda: perceptron(Own()),
         lambda: perceptron(nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)))],
        ids=["own", "hooked", "patched", "buffers", "inside", "parametrized"],
    )  # fmt: skip
    def test_what_may_behave_otherwise_later_has_none(self, make):
        assert self.example(make()) is None

    def test_nor_has_an_activation_of_the_users(self):
        def made(activation):
            return nn.TransformerDecoderLayer(6, 1, 4, 0.0, activation)

        assert self.example(made("gelu")) is not None
        assert self.example(made(lambda x: functional.relu(x))) is None  # noqa: PLW0108

    @pytest.mark.parametrize(
        "change",
        [lambda x: x.to_sparse(), lambda x: x[:3], lambda x: x.bfloat16(), lambda x: x.sum(),
         lambda x: x.requires_grad_()],
        ids=["sparse", "few rows", "bfloat16", "number", "followed"],
    )  # fmt: skip
    def test_nor_have_batches_of_another_kind(self, change):
        x, y = samples(4)
        assert self.example(perceptron(), content=(change(x), y)) is None

    def test_nor_has_a_loss_or_a_step_of_the_users(self):
        assert self.example(perceptron(), lambda z, y: functional.cross_entropy(z, y + 0)) is None
        assert self.example(perceptron(), step=lambda module, batch: module(batch[0]).sum()) is None
        assert self.example(perceptron(), precision="bf16") is None
        assert self.example(perceptron(), content={"x": samples(4)[0]}) is None


def test_images_that_are_turned_in_memory_are_trained_without_a_tape():
    def turned(batch):
        x, y = torch.utils.data.default_collate(batch)
        return (x.mT.contiguous().mT if len(x) > 4 else x), y

    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    x, y = samples(30)
    data = torch.utils.data.TensorDataset(x.reshape(30, 2, 3), y)
    run = phalanx.fit(
        module, data, loss="cross_entropy", collate=turned, epochs=120, batch_size=10, workers=1
    )
    assert run.losses[-1] < run.losses[0]


def test_the_precision_around_a_fit_is_not_the_fits():
    plain = trained(perceptron, epochs=60)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert trained(perceptron, epochs=60) == plain

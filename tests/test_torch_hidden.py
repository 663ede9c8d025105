"""What an optimiser keeps beside its state: counts of steps are shared, as state is; whatever else
is refused, since each worker would have its own."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import phalanx
import torch_models as models
from phalanx import InvalidInput
from phalanx.models.pytorch.hidden import are_same, counts_of
from test_torch_parity import OPTIMIZERS

DATA = models.X, models.CLASSES


class Plain(torch.optim.Optimizer):
    """SGD, and what a case adds to it."""

    def __init__(self, params, **more):
        super().__init__(params, dict(lr=0.1, **more))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            self.before(group)
            for param in group["params"]:
                param.sub_(self.rate(group, param) * param.grad)

    def before(self, group):
        pass

    def rate(self, group, param):
        return group["lr"]


class CountsInGroup(Plain):
    def __init__(self, params):
        super().__init__(params, k=0)

    def before(self, group):
        group["k"] += 1

    def rate(self, group, param):
        return group["lr"] / group["k"]


class AddsToGroup(CountsInGroup):
    def __init__(self, params):
        Plain.__init__(self, params)

    def before(self, group):
        group["k"] = group.get("k", 0) + 1


class CountsParams(CountsInGroup):
    """Which goes on beside whatever is counted."""

    def before(self, group):
        pass

    def rate(self, group, param):
        group["k"] += 1
        return group["lr"]


class CountsSums(CountsInGroup):
    def before(self, group):
        group["k"] += 1
        group["sum"] = group.get("sum", 0.0) + 1.0


class CountsWithMoments(CountsInGroup):
    """As Adam is written in apex and timm: one count for a group."""

    def rate(self, group, param):
        state = self.state[param]
        state.setdefault("mean", torch.zeros_like(param)).lerp_(param.grad, 0.1)
        return group["lr"] * state["mean"] / (1 - 0.9 ** group["k"])


class CountsItself(Plain):
    def __init__(self, params):
        super().__init__(params)
        self.k = 0

    def before(self, group):
        self.k += 1


class Remembers(Plain):
    def __init__(self, params):
        super().__init__(params)
        self.seen = {"norms": []}

    def before(self, group):
        self.seen["norms"].append(float(group["params"][0].grad.norm()))


class Draws(Plain):
    def __init__(self, params):
        super().__init__(params)
        self.generator = torch.Generator()

    def rate(self, group, param):
        return torch.rand(param.shape, generator=self.generator)


class ByNumPy(Plain):
    def __init__(self, params):
        super().__init__(params)
        self.generator = np.random.default_rng(0)

    def rate(self, group, param):
        return self.generator.random()


class Around(Plain):
    def __init__(self, params):
        params = list(params)
        super().__init__(params)
        self.inner = torch.optim.SGD(params, lr=0.1)


class Large(Plain):
    def rate(self, group, param):
        state = self.state[param]
        state.setdefault("history", torch.zeros(3, *param.shape))
        return group["lr"]


class InState(Plain):
    def rate(self, group, param):
        state = self.state[param]
        state["k"] = state.get("k", 0) + 1
        return group["lr"] / state["k"]


class NeedsClosure(Plain):
    def step(self, closure):
        closure()


class SecondOrder(Plain):
    """As AdaHessian, it asks for the gradient of a gradient where parameters have one."""

    def before(self, group):
        params = [p for p in group["params"] if p.requires_grad]
        if params:
            torch.autograd.grad([p.grad.sum() for p in params], params)


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"gamma": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                param.sub_(group["gamma"] * param.grad)


class NotInTraining(Plain):
    def before(self, group):
        raise ValueError("call optimizer.train() first")


CASES = [
    (
        CountsParams,
        r"CountsParams keeps 'k' in its param_groups.*state\[param\]\['k'\]",
    ),
    (CountsSums, "CountsSums keeps 'sum' in its param_groups"),
    (CountsItself, "CountsItself keeps 'k' as an attribute of its own.*optimizer.state"),
    (Remembers, "keeps 'seen' as an attribute"),
    (Draws, "keeps 'generator' as an attribute"),
    (ByNumPy, "keeps 'generator' as an attribute"),
    (Around, "Around has another one inside, 'inner'"),
    (Large, r"no more elements than its parameter.*'history' of shape \(3, .*several tensors"),
    (NeedsClosure, "by step.. without arguments; a trial of NeedsClosure.*TypeError"),
    (SecondOrder, "a trial of SecondOrder .*raised RuntimeError: .*does not require grad"),
    (NotInTraining, "raised ValueError: call optimizer.train.. first. Bring it"),
]


@pytest.mark.parametrize(("kind", "message"), CASES, ids=lambda part: getattr(part, "__name__", ""))
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_kept_elsewhere_is_refused(kind, message, workers):
    module = models.mlp()
    optimizer = kind(module.parameters())
    before = [p.detach().clone() for p in module.parameters()]
    attributes = {k: v for k, v in vars(optimizer).items() if k not in ("state", "param_groups")}
    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        phalanx.fit(module, DATA, loss="cross_entropy", optimizer=optimizer, workers=workers)
    assert all(map(torch.equal, before, module.parameters()))
    assert not optimizer.state
    assert getattr(optimizer, "k", 0) == 0
    assert vars(optimizer).keys() >= attributes.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torchs_own_are_taken(name):
    module = models.mlp()
    optimizer = OPTIMIZERS[name](list(module.parameters()))
    assert counts_of(optimizer) == ()
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # which puts a `step` and counts into it
    assert counts_of(optimizer) == ()


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"capturable": False}])
def test_torchs_own_with_any_kernel_are_taken(options):
    assert counts_of(torch.optim.Adam(models.mlp().parameters(), **options)) == ()


@pytest.mark.parametrize(
    "kind", [InState, Plain, WithoutRate, type("Mine", (torch.optim.AdamW,), {})]
)
def test_state_is_where_a_count_belongs(kind):
    digests = set()
    for changes in ({"workers": 1}, {"workers": 3}, {"task_assignment": "dynamic", "workers": 2}):
        module = models.mlp()
        optimizer = kind(module.parameters())
        run = phalanx.fit(
            module, DATA, loss="cross_entropy", optimizer=optimizer, epochs=2, batch_size=16,
            shards=4, **changes,
        )  # fmt: skip
        digests.add(run.digest)
    assert len(digests) == 1
    if kind is InState:
        assert {state["k"] for state in optimizer.state.values()} == {2 * 3}


@pytest.mark.parametrize("kind", [CountsInGroup, AddsToGroup, CountsWithMoments])
def test_a_count_of_steps_in_a_group_goes_on(kind):
    """As torch counts it: in each of several groups, from one fit to the next, for any workers."""

    def groups(module):
        *most, last = module.parameters()
        return [{"params": most}, {"params": [last], "lr": 0.05}]

    digests = set()
    for changes in ({"workers": 1}, {"workers": 3}, {"task_assignment": "dynamic", "workers": 2}):
        module, plain = models.mlp(), models.mlp()
        optimizer, theirs = kind(groups(module)), kind(groups(plain))
        plain.load_state_dict(module.state_dict())
        for epochs in (1, 2):
            run = phalanx.fit(
                module, DATA, loss="cross_entropy", optimizer=optimizer, epochs=epochs,
                batch_size=len(models.X), shards=2, data_distribution="sequential", **changes,
            )  # fmt: skip
        digests.add(run.digest)
        assert [group["k"] for group in optimizer.param_groups] == [3, 3]
        for _ in range(3):
            theirs.zero_grad()
            torch.nn.functional.cross_entropy(plain(models.X), models.CLASSES).backward()
            theirs.step()
        for mine, other in zip(module.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, other)
    assert len(digests) == 1


def test_what_is_the_same():
    nan = torch.tensor([1.0, float("nan")])
    assert are_same({"a": [1, (nan, "b")]}, {"a": [1, (nan.clone(), "b")]})
    assert not are_same([nan], [nan[:1]])
    assert not are_same(nan, nan + 1)
    flags = torch.tensor([True, False])
    assert are_same(flags, flags.clone())
    assert not are_same(flags, ~flags)
    assert not are_same({"a": 1}, {"b": 1})
    assert not are_same(1, 1.0)
    assert are_same(are_same, are_same)
    assert are_same(*(iter([1]) for _ in range(2)))
    assert are_same(*((lambda: 1) for _ in range(2)))


def test_an_attribute_that_cannot_be_pickled():
    class Locked(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params, lr=0.1)
            self.lock = threading.Lock()

    with pytest.raises(InvalidInput, match=r"can be pickled.*Locked.*cannot pickle"):
        counts_of(Locked([torch.nn.Parameter(torch.zeros(3))]))

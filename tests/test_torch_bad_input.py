"""Bad input for torch modules gets a clear error before any work: rule, what came, what to do."""

from __future__ import annotations

import threading
import warnings
from functools import partial, update_wrapper

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler as schedules
from torch.utils.checkpoint import checkpoint
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

import phalanx
import torch_models as models
from phalanx import InvalidInput, UserFunctionError
from phalanx.clusters import pool

X, CLASSES, VALUES = models.X, models.CLASSES, models.VALUES
GOOD = dict(loss="cross_entropy", epochs=1, batch_size=16, workers=2, shards=2)
ERRORS = (InvalidInput, UserFunctionError)


def assert_refused(message, module=None, data=(X, CLASSES), error=ERRORS, **changes):
    """A fit raises before any work: neither the module has changed nor is a worker busy."""
    module = models.mlp() if module is None else module
    changes = {name: made(module) if is_made(made) else made for name, made in changes.items()}
    before = [p.detach().clone() for p in parameters_of(module)]
    pool.shutdown()
    with pytest.raises(error, match=f"(?s){message}"):
        phalanx.fit(module, data, **{**GOOD, **changes})
    assert pool._pool is None, "workers were started"
    assert all(map(torch.equal, before, parameters_of(module)))


def is_made(value):
    """Whether a case's argument is to be made from its module."""
    return getattr(value, "__name__", "") == "<lambda>"


def parameters_of(module):
    if not isinstance(module, nn.Module):
        return []
    return [p for p in module.parameters() if not torch.nn.parameter.is_lazy(p)]


class OfSamples:
    def __call__(self, outputs, target):
        return functional.cross_entropy(outputs, target, reduction="none")


NUMBERS = [
    ("epochs", 0, "epochs must be an integer at least 1; got 0"),
    ("epochs", 1.5, "epochs must be an integer"),
    ("batch_size", 0, "batch_size must be an integer at least 1"),
    ("batch_size", "auto", "batch_size must be an integer"),
    ("shards", 0, "shards must be an integer at least 1; got 0.*'auto'"),
    ("shards", 17, "shards must be at most the number of rows in a batch.*shards=17"),
    ("workers", 0, "workers must not be 0.*got 0.*-1 for one"),
    ("workers", "two", "workers must be an integer; got 'two'"),
    ("workers", None, "workers must be a positive integer.*got None"),
    ("workers", -999, "workers=-999.*leaves nobody"),
    ("seed", -1, "seed must be an integer at least 0"),
    ("clip_norm", 0, "clip_norm must be a number above 0.*Or None"),
    ("clip_value", float("nan"), "clip_value must be a number above 0"),
    ("loss_threshold", "low", "loss_threshold must be a number"),
    ("nonfinite", "ignore", "nonfinite must be one of 'keep', 'skip', 'stop'; got 'ignore'"),
    ("exact", "yes", "exact must be True or False; got 'yes'"),
    ("precision", "fp16", "precision must be one of.*Did you mean|precision must be one of"),
    ("scheduler_every", "batch", "scheduler_every must be one of 'epoch', 'step'; got 'batch'"),
    ("data_distribution", "randm", "Did you mean 'random'"),
    ("task_assignment", 3, r"task_assignment must be one of.*\(n_tasks, speeds \[W\]\)"),
    ("aggregation", "average", "aggregation must be one of"),
    ("loss", "cross_entropi", "loss must be one of.*Did you mean 'cross_entropy'"),
    ("loss", 3, "loss must be one of.*or a function; got 3"),
    ("loss", nn.MSELoss, r"loss must be.*got the class MSELoss. Pass an object, MSELoss\(\)"),
    ("loss", OfSamples, r"loss must be.*got the class OfSamples. Pass an object, OfSamples\(\)"),
    ("loss", None, "either loss.*or step.*must be given; got neither"),
    ("optimizer", "adaam", "optimizer must be one of.*Did you mean 'adam'"),
    ("optimizer", 0.01, r"optimizer must be a torch.optim.Optimizer.*got float.*Pass e\.g\."),
    ("optimizer", torch.optim.LBFGS, "LBFGS evaluates the loss.*Use e.g. torch.optim.Adam"),
    ("optimizer", torch.optim.SparseAdam, "SparseAdam needs sparse gradients"),
    ("metrics", "acuracy", "metrics must be one of.*Did you mean 'accuracy'"),
    ("metrics", {"a": 7}, r"metrics\['a'\] must be one of.*or a function"),
    ("metrics", {"a": OfSamples}, r"metrics\['a'\] must be.*Pass an object, OfSamples\(\)"),
    ("metrics", nn.L1Loss, r"-> \[n\]; got the class L1Loss.*L1Loss\(reduction='none'\)"),
    ("metrics", {"loss": "mse"}, "every metric needs a name of its own, other than 'loss'"),
    ("metrics", [partial(max), partial(min)], "needs a name of its own.*'metric', 'metric'"),
    ("metrics", ["mse", "mse"], "needs a name of its own.*Pass a dict"),
    ("metrics", "accuracy", "metrics are those of the validation samples; got 'accuracy' and no"),
    ("callbacks", "stop", "callbacks must be functions.*got"),
    ("callbacks", [print, 3], "callbacks must be functions.*got 3 of type int"),
    ("collate", 3, "collate must be a function.*got 3 of type int"),
    ("checkpoint_every", "2 epochs", "needs a folder"),
    ("resume", True, "checkpoint= names"),
    ("verbose", "yes", "verbose must be True or False, or 1 or 0; got 'yes'"),
    ("verbose", 2, "verbose must be True or False, or 1 or 0; got 2 of type int"),
    ("device", "gpu", "device must be one that this machine.*got 'gpu'.*Use device='cpu'"),
    ("device", "cuda", "device must be one that this machine.*got 'cuda'.*Use device='cpu'"),
    ("learning_rate", 0.1, "no argument 'learning_rate'.*set in the optimizer"),
    ("batchsize", 32, "no argument 'batchsize'.*Did you mean 'batch_size'"),
    ("n_jobs", 2, "no argument 'n_jobs'. It is called 'workers' here"),
]


@pytest.mark.parametrize(("name", "value", "message"), NUMBERS)
def test_arguments(name, value, message):
    if (name, value) == ("device", "cuda") and torch.cuda.is_available():
        pytest.skip("there is one")
    assert_refused(message, error=InvalidInput, **{name: value})


def test_means_of_hosts_need_the_mean():
    told = "aggregation must be 'mean'; got 'median'. Leave exact=True"
    assert_refused(told, error=InvalidInput, exact=False, aggregation="median")


def of_another(kind=torch.optim.SGD, **more):
    return kind(models.mlp().parameters(), lr=0.1, **more)


class Odd(torch.optim.Optimizer):
    """Scales by the norm of all gradients together."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        everything = [p for group in self.param_groups for p in group["params"]]
        norm = sum(p.grad.square().sum() for p in everything).sqrt()
        for p in everything:
            p -= 0.1 * p.grad / norm


def no_scalar(outputs, target):
    return (outputs - target.unsqueeze(1)) ** 2


def a_number(outputs, target):
    return 0.5


def of_integers(outputs, target):
    return outputs.argmax()


def fails(outputs, target):
    raise ZeroDivisionError("mine")


def without_gradient(outputs, target):
    return functional.cross_entropy(outputs.detach(), target)


def mean_accuracy(outputs, target):
    return (outputs.argmax(1) == target).float().mean()


def forgets(params):
    torch.optim.SGD(params, lr=0.1)


def nested(**options):
    """Within a partial that has attributes of its own, which another one does not take apart."""
    inner = partial(functional.cross_entropy, **options)
    return partial(update_wrapper(inner, functional.cross_entropy), ignore_index=1)


def a_pair(module, batch):
    return "loss", 1


def with_figures(module, batch):
    outputs = module(batch[0])
    return functional.cross_entropy(outputs, batch[1]), {"outputs": outputs.detach()}


ANOTHER = models.mlp()


def of_another_module(module, batch):
    return functional.cross_entropy(ANOTHER(batch[0]), batch[1])


def of_turned(module, batch):
    return functional.cross_entropy(module(batch[0].T), batch[1])


def compiled():
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return torch.compile(of_turned)


OBJECTIVES = [
    ({"optimizer": of_another()}, "must be over parameters of the module; 4 of its 4 are others"),
    ({"optimizer": Odd}, "each parameter from its own gradient.*Odd gives another.*clip_norm="),
    ({"optimizer": forgets}, "optimizer must be a torch.optim.Optimizer.*got NoneType"),
    ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "reduction='sum'. Use reduction='mean'"),
    (
        {"loss": nn.CrossEntropyLoss(torch.tensor([1.0, 0.0, 2.0]), label_smoothing=0.1)},
        r"label smoothing needs class weights above 0.*\[1.0, 0.0, 2.0\]",
    ),
    ({"loss": nn.MSELoss(reduction="none")}, "reduction='none'. Use reduction='mean'"),
    (
        {"loss": partial(functional.cross_entropy, reduction="sum")},
        "got cross_entropy with reduction='sum'. Use reduction='mean'",
    ),
    ({"loss": nested(reduction="sum")}, "cross_entropy with reduction='sum'"),
    ({"loss": partial(nested(reduction="none"), weight=None)}, "reduction='none'"),
    (
        {"loss": partial(functional.mse_loss, size_average=False)},
        "mse_loss with size_average=False",
    ),
    ({"loss": partial(nn.MSELoss(reduction="sum"))}, "MSELoss with reduction='sum'"),
    ({"loss": nn.MSELoss(reduction="sum").forward}, "got MSELoss with reduction='sum'"),
    ({"loss": nn.MSELoss(reduction="none").__call__}, "got MSELoss with reduction='none'"),
    ({"loss": no_scalar}, r"one floating-point number.*no_scalar returned a tensor of shape \(4"),
    ({"loss": a_number}, "one floating-point number.*a_number returned a float"),
    ({"loss": of_integers}, "one floating-point number.*dtype torch.int64"),
    ({"loss": fails}, "raised ZeroDivisionError: mine.*Try loss"),
    ({"loss": without_gradient}, "does not require grad"),
    ({"step": a_pair}, "either loss.*or step.*got both"),
    ({"loss": None, "step": "forward"}, "step must be a function.*got 'forward'"),
    ({"loss": None, "step": a_pair}, "one floating-point number.*a_pair returned a str"),
    (
        {"loss": None, "step": with_figures},
        r"mean loss, or \(mean loss, weight\).*with_figures returned a dict beside.*loss alone",
    ),
    (
        {"loss": None, "step": of_another_module},
        "loss must depend on the module.*none of its parameters. Let step= call the module that",
    ),
    ({"loss": None, "step": of_turned}, r"step\(module, batch\) must take.*Try it yourself, with"),
    (
        {"loss": None, "step": lambda module: compiled()},
        "step must be a function.*been through torch.compile. Pass the function uncompiled",
    ),
    ({"optimizer": [of_another()] * 2}, "one optimizer; got a list of 2.*ModuleDict"),
    ({"optimizer": of_another()}, "a loss with parameters of its own can be a part of the module"),
    ({"loss": None, "step": a_pair, "metrics": "accuracy"}, "with step= there are none. Leave"),
    (
        {"metrics": mean_accuracy, "validation": (X, CLASSES)},
        "one value a sample.*'mean_accuracy' returned.*Leave out the final mean",
    ),
    ({"scheduler": "cosine"}, "scheduler must be one of torch.optim.lr_scheduler.*got str"),
    (
        {"scheduler": schedules.StepLR(of_another(), 3)},
        "the scheduler must be of the optimizer that is passed",
    ),
    ({"scheduler": [3]}, "scheduler must be one of torch.optim.lr_scheduler.*got int"),
]


@pytest.mark.parametrize(("changes", "message"), OBJECTIVES)
def test_losses_optimizers_and_metrics(changes, message):
    if isinstance(changes.get("optimizer"), type):
        kind = changes["optimizer"]
        changes = {**changes, "optimizer": lambda module: kind(module.parameters())}
    assert_refused(message, **changes)


def test_a_plateau_cannot_be_stepped_by_step():
    module = models.mlp()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    plateau = schedules.ReduceLROnPlateau(optimizer)
    assert_refused(
        "ReduceLROnPlateau.*scheduler_every='epoch'",
        module, optimizer=optimizer, scheduler=plateau, scheduler_every="step",
    )  # fmt: skip


def test_a_plateau_sees_the_loss_and_so_looks_for_the_least():
    module = models.mlp()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    plateau = schedules.ReduceLROnPlateau(optimizer, mode="max")
    assert_refused(
        r"sees the validation loss, or else the loss.*mode='max'.*step it in a callback",
        module, optimizer=optimizer, scheduler=plateau,
    )  # fmt: skip


class Locked(nn.Linear):
    """Holds what cannot be pickled."""

    def __init__(self):
        super().__init__(6, 3)
        self.guard = {"lock": threading.Lock()}


class Frozen(nn.Linear):
    def __init__(self):
        super().__init__(6, 3)
        self.requires_grad_(False)


class Reentrant(nn.Module):
    """Whose first layer has a gradient by loss.backward() alone."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(checkpoint(self.first, x.requires_grad_(), use_reentrant=True))


class Grows(nn.Module):
    """Makes its last layer when it is called first."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), None

    def forward(self, x):
        if self.last is None:
            self.last = nn.Linear(4, 3)
        return self.last(self.first(x))


class Meeting(nn.Module):
    """What `meet(layer)` returns has memory in common with the layer's weight."""

    def __init__(self, meet):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        other = meet(self.first)
        if isinstance(other, nn.Parameter):
            self.other = other
        else:
            self.register_buffer("other", other)

    def forward(self, x):
        return self.last(self.first(x)) * self.other.sum()


class Both(nn.Module):
    """A buffer that each pass changes, and one that is a row of it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros(2, 3))
        self.register_buffer("last", self.seen[1])

    def forward(self, x):
        self.seen += 1
        return self.layer(x) + self.last


def made_in_inference(make):
    def within():
        with torch.inference_mode():
            made = make()
        return nn.Sequential(nn.Linear(6, 3), made)

    return within


class Several(nn.Module):
    """Returns a tuple."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x), x


def scripted():
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return nn.Sequential(nn.ReLU(), torch.jit.script(nn.Linear(6, 3)))


def hooked(register):
    def make():
        module = models.mlp()
        getattr(module[2].weight, register)(lambda grad: None)
        return module

    return make


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, dtype=torch.cfloat))

    def forward(self, x):
        return (x.to(torch.cfloat) @ self.weight).abs()


MODULES = [
    (Complex, "must be real; got complex ones.*torch.complex64.*torch.view_as_real"),
    (hooked("register_hook"), "must have no hooks.*'2.weight' has one.*Take it off"),
    (hooked("register_post_accumulate_grad_hook"), "must have no hooks.*'2.weight' has one"),
    (lambda: nn.LazyLinear(3), "must have their shapes; 'weight' is not initialised.*Call the mod"),
    (lambda: nn.Sequential(nn.EmbeddingBag(9, 3, sparse=True)), "embedding '0' has sparse=True"),
    (nn.ReLU, "must have parameters to train; ReLU has none"),
    (Frozen, "must have parameters to train; Frozen has none.*requires_grad_"),
    (lambda: models.mlp().half(), "one dtype, float32 or float64; got torch.float16.*float()"),
    (lambda: models.mlp().bfloat16(), "got torch.bfloat16.*precision='bf16'"),
    (lambda: nn.Sequential(nn.Linear(6, 4).double(), nn.Linear(4, 3)), "float32, torch.float64"),
    (Locked, r"must be picklable.*module\.guard\['lock'\] \(a lock\) is not.*__getstate__"),
    (scripted, "been through torch.jit.*as it was before"),
    (lambda: nn.Linear(5, 3), r"must take the data; a trial with 4 samples raised.*Try loss"),
    (lambda: nn.Linear(6, 2), "must take the data; a trial with 4 samples raised"),
    (Several, "must take the data; a trial"),
    (Reentrant, "torch.autograd.grad.*none of 'first.weight', and.*use_reentrant=False"),
    (Grows, "all its parameters.*made 'last.weight'. Call the module once.*then make the opt"),
    (
        lambda: Meeting(lambda layer: nn.Parameter(layer.weight.data)),
        "no memory.*'other' and 'first.weight' do. Tie weights by one parameter",
    ),
    (
        lambda: Meeting(lambda layer: nn.Parameter(layer.weight.data[2:], requires_grad=False)),
        "'first.weight' and 'other' do",
    ),
    (lambda: Meeting(lambda layer: layer.weight.data), r"'first.weight' and 'other' do.*clone\(\)"),
    (Both, "'seen' and 'last' do"),
    (
        made_in_inference(lambda: nn.Linear(3, 3)),
        r"may be written into; '1.weight' was made within torch.inference_mode\(\). Make",
    ),
    (
        made_in_inference(lambda: nn.BatchNorm1d(3, affine=False)),
        "may be written into; '1.running_mean' was made within",
    ),
    (lambda: nn.Linear, "must be an object of torch.nn.Module.*got the class Linear"),
    (lambda: print, "must be an object of torch.nn.Module.*MLPClassifier"),
    (lambda: {"model": 1}, "must be an object of torch.nn.Module.*got dict"),
]


@pytest.mark.parametrize(("make", "message"), MODULES)
def test_modules(make, message):
    assert_refused(message, make(), error=InvalidInput)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([(X[0], CLASSES[0])])


class Endless(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return X[0], CLASSES[0]


class Empty(models.Samples):
    def __len__(self):
        return 0


class Held(models.Samples):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def loader(**options):
    return torch.utils.data.DataLoader(models.Samples(), **options)


class Shifted(torch.utils.data.DataLoader):
    """Does something to each batch."""

    def __iter__(self):
        for x, y in super().__iter__():
            yield x + 1, y


DATA = [
    (Stream(), "got an IterableDataset.*Give it __len__ and"),
    (torch.utils.data.DataLoader(Stream()), "got an IterableDataset"),
    (loader(sampler=SubsetRandomSampler(range(5))), "visited once.*a SubsetRandomSampler.*Subset"),
    (loader(sampler=WeightedRandomSampler([1.0] * 48, 48)), "once.*got.*WeightedRandomSampler"),
    (loader(sampler=RandomSampler(range(48), num_samples=9)), "once.*a RandomSampler"),
    (loader(sampler=SequentialSampler(range(8))), "once.*a SequentialSampler"),
    (
        loader(batch_sampler=BatchSampler(SubsetRandomSampler(range(8)), 8, False)),
        "visited once.*a SubsetRandomSampler",
    ),
    (
        loader(batch_sampler=BatchSampler(SequentialSampler(range(48)), 9, True)),
        "drop_last=True, which would leave 3 of 48",
    ),
    (loader(batch_sampler=[[0, 1], [2]]), "cut by batch_size=.*got a DataLoader with a list"),
    (loader(batch_size=None), "cut by batch_size=.*got a DataLoader with batch_size=None"),
    (Shifted(models.Samples()), "got a Shifted, whose own __iter__ none of them.*collate_fn"),
    (loader(batch_size=5, drop_last=True), "drop_last=True, which would leave 3 of 48 out"),
    (Endless(), "map-style Dataset with __len__.*got Endless"),
    (Empty(), "the dataset must have samples; Empty has none"),
    (Held(), "a dataset.*must be picklable.*Held.*__getitem__"),
    (iter([1]), "map-style Dataset with __len__.*iterator"),
    (None, "map-style Dataset with __len__.*got NoneType"),
    ("train.csv", "data must be.*got str"),
    ((X, CLASSES[:-1]), r"one row a sample.*got shapes \(48, 6\), \(47,\)"),
    ((X[:0], CLASSES[:0]), "at least one sample"),
    ((), "no array at all"),
    ((X, CLASSES.to_sparse()), "must be a dense tensor.*a sparse tensor.*to_dense"),
    ((X.bfloat16(), CLASSES), "of a dtype that NumPy knows; got torch.bfloat16"),
    ((X, torch.tensor(1)), "one row a sample; got a scalar"),
    (
        (np.ma.masked_less(X.numpy(), -1), CLASSES),
        r"data\[0\] must have a value in every place; got a masked array.*Pass its .filled",
    ),
    ((X, np.array(["a"] * 48)), r"data\[1\] must be an array of numbers.*Encode the values"),
    ((X, np.array([None] * 48)), "must be an array of numbers.*dtype object"),
    (([[1, 2], [3]], CLASSES[:2]), "Pad the samples|array of numbers"),
    (X, r"a batch must be \(inputs, target\).*Pass step="),
    ({"x": X, "y": CLASSES}, r"a batch must be \(inputs, target\).*got a dict.*Pass step="),
    ((X.double(), CLASSES), "raised RuntimeError.*Try loss"),
    (models.Samples(fails_at=2), r"Samples\[2\] raised OSError: the file is damaged"),
]


@pytest.mark.parametrize(("data", "message"), DATA)
def test_data(data, message):
    assert_refused(message, data=data)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (0.2, "data must be arrays.*got float"),
        ("held_out.csv", "data must be arrays.*got str"),
        (X, r"a batch must be \(inputs, target\)"),
        ((X[:0], CLASSES[:0]), "all arrays of the data must have one row a sample"),
        ((X[:, :5].contiguous(), CLASSES), "the module must take the data"),
    ],
    ids=["fraction", "path", "no target", "none", "narrow"],
)
def test_validation_data_are_named_where_they_are_to_blame(validation, message):
    rule = r"^validation must be data like those to train on, e\.g\. \(X_val, y_val\); here "
    assert_refused(rule + message, validation=validation)


def test_data_in_too_many_pieces():
    with pytest.raises(InvalidInput, match=r"data as one argument; got 3.*fit\(module, \(X, y\)"):
        phalanx.fit(models.mlp(), X, X, CLASSES, **GOOD)
    with pytest.raises(InvalidInput, match="data as one argument; got 0"):
        phalanx.fit(models.mlp(), **GOOD)


def of_the_first(outputs, target):
    return functional.cross_entropy(outputs[0], target)


@pytest.mark.parametrize("name", ["accuracy", "mse", "mae"])
def test_metrics_by_name_of_outputs_that_are_no_tensor(name):
    message = f"metric '{name}' compares.*got a tuple of 2 .* as outputs. Pass a function"
    assert_refused(
        message, Several(), loss=of_the_first, metrics=name, validation=(X, CLASSES)
    )  # fmt: skip
    with pytest.raises(UserFunctionError, match=message):
        phalanx.evaluate(Several(), (X, CLASSES), loss=of_the_first, metrics=name)


class Averaging(nn.Module):
    """Keeps a running mean, of a dtype of its own."""

    def __init__(self, dtype):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6, dtype=dtype))

    def forward(self, x):
        self.mean += 0.1 * (x.detach().mean(0) - self.mean)
        return self.layer(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_running_statistics_of_another_dtype_need_a_single_shard(dtype):
    message = f"parameters' dtype, float32.*'mean' is of {dtype}. Register it as float32"
    assert_refused(message, Averaging(dtype))
    alone = Averaging(dtype)
    settings = {**GOOD, "shards": 1, "batch_size": len(X)}
    phalanx.fit(alone, (X, CLASSES), **settings)
    torch.testing.assert_close(alone.mean, (0.1 * X.mean(0)).to(dtype), rtol=1e-2, atol=1e-4)


EVALUATIONS = [
    ({}, "must be given; got neither"),
    ({"loss": "cross_entropy", "workers": 0}, "workers must not be 0"),
    ({"loss": "cross_entropy", "metrics": mean_accuracy}, "Leave out the final mean"),
    ({"loss": "cross_entropy", "precision": "half"}, "precision must be one of"),
    (
        {"loss": "cross_entropy", "epochs": 3},
        r"no argument 'epochs'\. help\(phalanx\.evaluate\) names them\.$",
    ),
]


@pytest.mark.parametrize(("options", "message"), EVALUATIONS)
def test_evaluations(options, message):
    with pytest.raises(ERRORS, match=f"(?s){message}"):
        phalanx.evaluate(models.mlp(), (X, CLASSES), **options)


PREDICTIONS = [
    (models.mlp, X[:, :5].contiguous(), {}, "must take the data; a trial with 4 samples"),
    (models.mlp, (X, CLASSES), {}, "The data have 2 parts.*pass the inputs alone"),
    (models.mlp, X, {"workers": 1.5}, "workers must be an integer"),
    (models.mlp, X, {"device": "nowhere"}, "device must be one"),
    (models.mlp, X, {"batch_size": 3}, "no argument 'batch_size'"),
    (lambda: models.made(Several), X, {}, "must be one tensor with a row a sample.*tuple"),
    (nn.ReLU, X, {}, "must have parameters; ReLU has none. Call it directly"),
]


@pytest.mark.parametrize(("make", "x", "options", "message"), PREDICTIONS)
def test_predictions(make, x, options, message):
    with pytest.raises(ERRORS, match=f"(?s){message}"):
        phalanx.predict(make(), x, **options)


def renormed():
    embedding = torch.nn.Embedding(20, 4, max_norm=0.5)
    return torch.nn.Sequential(embedding, torch.nn.Flatten(), torch.nn.Linear(12, 2))


class Queue(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(0, 2))

    def forward(self, x):
        out = self.linear(x.float())
        self.seen = torch.cat([self.seen, out.detach()])
        return out


class Masked(torch.nn.Module):
    """Makes a buffer when it is called first."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.register_buffer("mask", None)

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.ones(2)
        return self.linear(x.float()) * self.mask


class Followed(torch.nn.Module):
    """With a copy of its weights that follows them."""

    def __init__(self):
        super().__init__()
        self.linear, self.copied = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        self.copied.requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            self.copied.weight.lerp_(self.linear.weight, 0.1)
        return self.linear(x.float()) + self.copied(x.float())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Masked, "'mask'.*call the module once on the longest batch before, or keep it as a plain"),
        (Followed, "changed 'copied.weight'.*keep the copy's weights as buffers"),
        (renormed, "leave the parameters as they are.*changed '0.weight'.*max_norm"),
        (Queue, "buffer must keep its name and shape.*'seen'.*full size"),
    ],
)
def test_what_a_forward_pass_changes(make, message):
    data = torch.arange(24).reshape(8, 3) % 20, torch.arange(8) % 2
    with pytest.raises(InvalidInput, match=message):
        phalanx.fit(make(), data, loss="cross_entropy", workers=2, shards=2)


def test_hooks_on_the_steps_of_an_optimizer():
    module = models.mlp()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *arguments: None)
    with pytest.raises(InvalidInput, match=r"hooks on its steps.*callbacks="):
        phalanx.fit(module, (X, CLASSES), loss="cross_entropy", optimizer=optimizer)


def normed():
    return models.made(lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))


@pytest.mark.parametrize(
    ("n_samples", "changes"),
    [
        (33, {"shards": 1}),
        (35, {}),
        (48, {"batch_size": 2}),
        (37, {"batch_size": 12, "sync_every": 3}),
    ],
)
def test_a_shard_of_one_row_where_the_module_needs_more(n_samples, changes):
    data = X[:n_samples], CLASSES[:n_samples]
    message = f"with {n_samples} samples, batch_size=.*single row.*Expected more than 1 value per"
    assert_refused(message + ".*Pass another batch_size=", normed(), data, InvalidInput, **changes)
    in_use = normed().eval()
    run = phalanx.fit(in_use, data, **{**GOOD, "workers": 1, **changes})
    assert np.isfinite(run.losses).all()


def test_shards_of_two_rows_are_enough_for_batch_normalisation():
    data = X[:36], CLASSES[:36]
    for changes in ({}, {"batch_size": 12, "sync_every": 3}):
        run = phalanx.fit(normed(), data, **{**GOOD, "workers": 1, **changes})
        assert np.isfinite(run.losses).all()

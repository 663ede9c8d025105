"""Training a torch module: from the user's arguments to a job, and back into the user's objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from phalanx.clusters.hosts.launch import speaks
from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.fitting.pytorch.agenda import ModuleAgenda
from phalanx.fitting.pytorch.known import example_of
from phalanx.fitting.pytorch.trials import changing_buffers, first_rows_of, tried
from phalanx.fitting.wishes import Wishes, callbacks_of
from phalanx.fitting.worth import counts_of, taped
from phalanx.keeper import record_from
from phalanx.models.base import OwnScore
from phalanx.models.pytorch.batches import (
    DatasetSamples,
    NestedSamples,
)
from phalanx.models.pytorch.describing import Described
from phalanx.models.pytorch.network import Settings, TorchSpec
from phalanx.models.pytorch.objective import LOSSES, METRICS, Objective
from phalanx.models.pytorch.packing import packed
from phalanx.models.pytorch.vector import Vector
from phalanx.pure import checks
from phalanx.pure.arrays import Array
from phalanx.pure.registry import choose
from phalanx.pure.stopping import Progress
from phalanx.run import EpochRecord, Run
from phalanx.state import State
from phalanx.training import Trained, train

PRECISIONS = ("float32", "bf16")
NORM_EPSILON = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.01),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}


def fit_module(
    module: torch.nn.Module,
    data: Any,
    *,
    loss: Any = None,
    optimizer: Any = "adam",
    step: Callable[[Any, Any], Any] | None = None,
    metrics: Any = None,
    scheduler: Any = None,
    scheduler_every: str = "epoch",
    collate: Callable[[list[Any]], Any] | None = None,
    validation: Any = None,
    callbacks: Any = None,
    epochs: int = 1,
    batch_size: int = 32,
    precision: str = "float32",
    device: str = "cpu",
    verbose: bool = False,
    **others: Any,
) -> Run:
    """See `phalanx.fit`."""
    wishes = Wishes(epochs, batch_size, **others)
    calls = callbacks_of(callbacks)
    checks.boolean("verbose", verbose)
    check_module(module)
    objective = objective_of(loss, step, metrics)
    described = Described(module, optimizer_of(optimizer, module))
    dtype = dtype_of(described.params)
    training = samples_of(data, collate, dtype)
    validating = None if validation is None else samples_of(validation, collate, dtype)
    spec = spec_of(module, described, objective, training, precision, device)
    plan = wishes.plan(training.n_samples, spec.n_parameters, lambda: labels_of(training))
    score = OwnScore(2 + len(objective.metrics)) if validating else None
    n_validation = validating.n_samples if validating else 0
    optimiser = described.shaped(spec.vector)
    counts = taped(counts_of(plan, epochs, wishes.sync_every), spec.n_parameters)
    job = wishes.job(
        replace(spec, counts=counts), plan, optimiser, n_validation, score, NORM_EPSILON
    )
    agenda = ModuleAgenda(described, plan, scheduler, scheduler_every)
    is_local = wishes.sync_every > 1
    follower = Follower(module, described, spec, agenda, objective, calls, verbose, is_local)
    following = wishes.following(agenda, plan)
    following.mirror = follower
    if calls or verbose or agenda.waits_for_epochs:
        following.on_epoch = follower.epoch_ended
    if following.resume is not None:
        follower.catch_up(following.resume)
    start = follower.start()
    if validating is not None:
        tried(spec.build(follower.values()).measures, validating)
    trained = train(job, start, training, validating, Progress(0.0), following)
    return follower.take(trained)


class Follower:
    """The user's module and optimiser while a training of copies of them runs.

    is_local: whether the training is in rounds, of which the user's optimiser has no state to keep.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        described: Described,
        spec: TorchSpec,
        agenda: ModuleAgenda,
        objective: Objective,
        callbacks: list[Any],
        verbose: bool,
        is_local: bool,
    ) -> None:
        self.module, self.described, self.spec, self.agenda = module, described, spec, agenda
        self.is_local = is_local
        self.names = ("loss", *objective.metrics)
        self.callbacks, self.verbose = callbacks, verbose and speaks()

    def values(self) -> Array:
        """The module's parameters and buffers as one vector [N]."""
        values_N = np.zeros(self.spec.size, self.spec.dtype)
        self._copy(values_N, to_module=False)
        return values_N

    def start(self) -> State:
        """Where training begins."""
        if self.is_local:
            return State(self.values(), np.zeros((1, self.spec.size), self.spec.dtype))
        state_MN, scalars_KC = self.described.start(self.spec.vector, self.spec.regions)
        return State(self.values(), state_MN, scalars_KC=scalars_KC)

    def show(self, values_XN: Array, scalars_KC: Array) -> None:
        """See course.Mirror."""
        self._put(values_XN[0], values_XN[1:], scalars_KC)

    def _put(self, values_N: Array, state_MN: Array, scalars_KC: Array | None) -> None:
        self._copy(values_N, to_module=True)
        if not self.is_local:
            assert scalars_KC is not None
            self.described.take(self.spec.vector, self.spec.regions, state_MN, scalars_KC)

    def changed(self, values_N: Array) -> bool:
        """See course.Mirror."""
        mine_N = self.values()
        if np.array_equal(mine_N.view(np.uint8), values_N.view(np.uint8)):
            return False
        values_N[...] = mine_N
        return True

    def _copy(self, values_N: Array, to_module: bool) -> None:
        vector, buffers = self.spec.vector, dict(self.module.named_buffers())
        dtypes = {name: buffers[name].dtype for name in (*vector.averaged, *vector.copied)}
        mine = list(self.described.params) + [buffers[name] for name in dtypes]
        theirs = vector.param_views(values_N)
        theirs += list(vector.buffer_views(values_N, dtypes).values())
        with torch.no_grad():
            for own, shared in zip(mine, theirs, strict=True):
                if to_module:
                    own.copy_(shared)
                else:
                    shared.copy_(own)

    def epoch_ended(self, epoch: int, record: EpochRecord) -> bool:
        """Step the schedule, tell the user; whether a callback wants to stop."""
        logs = self.logs(record, epoch)
        self.agenda.epoch_ended(logs)
        if self.verbose:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
            print(f"epoch {epoch}  {figures}  {record.seconds:.2f} s")
        wishes = [bool(callback(epoch, logs)) for callback in self.callbacks]  # all are called
        return any(wishes)

    def logs(self, record: EpochRecord, epoch: int) -> dict[str, float]:
        """An epoch's figures by name."""
        logs = {"loss": record.loss}
        if record.sums:
            total, weight, *others = record.sums
            logs["val_loss"] = total / weight if weight else float("nan")
            for name, value in zip(self.names[1:], others, strict=True):
                logs[f"val_{name}"] = value / weight
        logs["lr"] = self.agenda.rate(epoch - 1)
        return logs

    def catch_up(self, saved: Any) -> None:
        """Bring the schedule to where the checkpoint is."""
        for epoch, record in enumerate(map(record_from, saved.facts["records"]), 1):
            self.agenda.settings(epoch - 1)
            self.agenda.epoch_ended(self.logs(record, epoch))

    def take(self, trained: Trained) -> Run:
        """Put what was learnt into the user's module and optimiser; returns the run."""
        state = trained.state
        self._put(state.params_N, state.state_MN, state.scalars_KC)
        history: dict[str, list[float]] = {}
        for epoch, record in enumerate(trained.records, 1):
            for name, value in self.logs(record, epoch).items():
                history.setdefault(name, []).append(value)
        run = trained.run
        run.history, run.rates = history, history.get("lr", [])
        run.scores = history.get("val_loss", [])
        return run


def check_module(module: Any) -> None:
    """Raise InvalidInput for what cannot be trained as it stands."""
    lazy = [n for n, p in module.named_parameters() if torch.nn.parameter.is_lazy(p)]
    if lazy:
        raise InvalidInput(
            f"a module's parameters must have their shapes; {lazy[0]!r} is not initialised yet. "
            "Call the module once on a batch first."
        )
    sparse = [
        name
        for name, part in module.named_modules()
        if isinstance(part, (torch.nn.Embedding, torch.nn.EmbeddingBag)) and part.sparse
    ]
    if sparse:
        raise InvalidInput(
            "gradients must be dense, since they are added coordinate by coordinate; the "
            f"embedding {sparse[0]!r} has sparse=True. Create it with sparse=False."
        )


def dtype_of(params: Sequence[torch.Tensor]) -> torch.dtype:
    """The one dtype of all parameters that are trained. Raises InvalidInput."""
    dtypes = {p.dtype for p in params}
    if len(dtypes) != 1 or not dtypes <= {torch.float32, torch.float64}:
        kinds = ", ".join(sorted(str(dtype) for dtype in dtypes))
        raise InvalidInput(
            f"all parameters must be of one dtype, float32 or float64; got {kinds}. Call "
            "module.float(), and pass precision='bf16' to compute in bfloat16."
        )
    return dtypes.pop()


def objective_of(loss: Any, step: Any, metrics: Any) -> Objective:
    """What is minimised and measured. Raises InvalidInput."""
    if (loss is None) == (step is None):
        raise InvalidInput(
            "either loss, a function (outputs, target) -> mean loss, or step, a function "
            f"(module, batch) -> mean loss, must be given; got {'both' if loss else 'neither'}."
        )
    if step is not None and not callable(step):
        raise InvalidInput(f"step must be a function (module, batch) -> loss; got {step!r}.")
    chosen: Any = None if loss is None else choose("loss", loss, LOSSES)
    if getattr(chosen, "reduction", "mean") != "mean":
        raise InvalidInput(
            "a loss must be the mean over the samples, so that shards of any size add up to the "
            f"batch; got {type(chosen).__name__} with reduction={chosen.reduction!r}. Use "
            "reduction='mean'."
        )
    if metrics is not None and step is not None:
        raise InvalidInput(
            "metrics need the outputs of loss(module(x), y); with step= there are none. Leave "
            "metrics out, or pass loss= instead of step=."
        )
    return Objective(chosen, step, metrics_of(metrics))


def metrics_of(metrics: Any) -> dict[str, Any]:
    """Metrics by name, from a name, a list of names, or a dict. Raises InvalidInput."""
    if metrics is None:
        return {}
    if isinstance(metrics, dict):
        return {str(name): choose(f"metrics[{name!r}]", m, METRICS) for name, m in metrics.items()}
    several = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    names = [m if isinstance(m, str) else getattr(m, "__name__", "metric") for m in several]
    return {n: choose("metrics", m, METRICS) for n, m in zip(names, several, strict=True)}


def optimizer_of(optimizer: Any, module: torch.nn.Module) -> Any:
    """An optimiser over the module's parameters, made if it is given by name or function."""
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer
    if isinstance(optimizer, str) or callable(optimizer):
        params = [p for p in module.parameters() if p.requires_grad]
        if not params:
            raise InvalidInput(
                f"a module must have parameters to train; {type(module).__name__} has none that "
                "requires a gradient. Unfreeze some with requires_grad_(True)."
            )
        return choose("optimizer", optimizer, OPTIMIZERS)(params)
    return optimizer  # its description says what is wrong with it


def samples_of(data: Any, collate: Any, dtype: torch.dtype) -> Samples:
    """The samples of arrays, tensors, nests of them, a Dataset or a DataLoader.

    Raises InvalidInput for what is none of them.
    """
    if collate is not None and not callable(collate):
        raise InvalidInput(
            "collate must be a function from a list of samples to a batch; got "
            f"{collate!r} of type {type(collate).__name__}. Leave it out for torch's own."
        )
    if isinstance(data, (str, bytes)):
        raise InvalidInput(
            f"data must be arrays, tensors, a Dataset or a DataLoader; got {type(data).__name__} "
            f"{data[:40]!r}. Read the file first, or pass a Dataset that reads it."
        )
    floats = np.dtype(str(dtype).removeprefix("torch."))
    is_dataset = collate is not None or is_list_of_samples(data)
    if isinstance(data, torch.utils.data.DataLoader):
        default = torch.utils.data.default_collate
        collate = collate or (None if data.collate_fn is default else data.collate_fn)
        data, is_dataset = data.dataset, True
    if isinstance(data, torch.utils.data.IterableDataset):
        raise InvalidInput(
            "data must be arrays, tensors, or a map-style Dataset; got an IterableDataset, whose "
            "samples cannot be visited once each by any number of workers. Give it __len__ and "
            "__getitem__."
        )
    if isinstance(data, torch.utils.data.TensorDataset) and collate is None:
        return NestedSamples.of(tuple(data.tensors), floats)
    nests = (tuple, list, dict, np.ndarray, torch.Tensor)
    if not is_dataset and (isinstance(data, nests) or hasattr(data, "to_numpy")):
        return NestedSamples.of(data, floats)
    return DatasetSamples.of(data, collate)


def is_list_of_samples(data: Any) -> bool:
    """Whether it is a list with a tuple or a dict for each sample, rather than one of arrays."""
    return isinstance(data, list) and all(isinstance(part, (tuple, dict)) for part in data)


def labels_of(samples: Samples) -> Array | None:
    """Class indices of the samples, where their last array is such, for stratifying."""
    if not isinstance(samples, NestedSamples):
        return None
    target = list(samples.arrays.values())[-1]
    is_class = target.ndim == 1 and target.dtype.kind in "iu"
    return np.unique(target, return_inverse=True)[1] if is_class else None


def spec_of(
    module: torch.nn.Module,
    described: Described,
    objective: Objective,
    training: Samples,
    precision: str,
    device: str,
) -> TorchSpec:
    """The module's description, after a trial of a few samples on a copy of it.

    Raises InvalidInput where the trial fails.
    """
    settings = settings_of(precision, device)
    vector = Vector.of(described.params, {}, dtype_of(described.params))
    batch = first_rows_of(training)
    example = example_of(module, objective, settings, batch)
    spec = TorchSpec(
        packed(module, described.params, objective, example),
        vector,
        described.regions(vector),
        sum(p.numel() for p in described.params),
        settings,
        described.trained,
    )
    changing = changing_buffers(spec, described.params, batch)
    buffers = {name: b for name, b in module.named_buffers() if name in changing}
    whole = Vector.of(described.params, buffers, dtype_of(described.params))
    return replace(spec, vector=whole, regions=described.regions(whole))


def settings_of(precision: str, device: Any) -> Settings:
    """What workers are to have set like this process. Raises InvalidInput."""
    checks.one_of("precision", precision, PRECISIONS)
    return Settings(
        str(torch.get_default_dtype()).removeprefix("torch."),
        torch.get_float32_matmul_precision(),
        precision,
        device_of(device),
    )


def device_of(device: Any) -> str:
    """The device by name. Raises InvalidInput where there is none."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except Exception as error:
        raise InvalidInput(
            f"device must be one that this machine and this build of torch have; got {device!r} "
            f"({error}). Use device='cpu'."
        ) from error
    return str(found)

"""The functions that users call; which kind of model it is decides who does the work."""

from __future__ import annotations

import importlib.util
import sys
from inspect import signature
from typing import Any

from phalanx.errors import InvalidInput
from phalanx.pure import checks
from phalanx.pure.stopping import Reason
from phalanx.training.afterwards import warn_afterwards
from phalanx.warning import warn_interrupted

IN_OPTIMIZER = (
    "; learning rate, momentum and the like are set in the optimizer, "
    "e.g. optimizer=torch.optim.Adam(module.parameters(), lr=1e-3)"
)


def fit(model: Any, *data: Any, **options: Any) -> Any:
    """Train a torch module or a compiled Keras model on several workers; the model is changed.

    The result is the same, bit for bit, for any number of workers, whichever of them dies.
    The options of a torch module are listed here by name; a Keras model has those of `model.fit`,
    and of these what it lacks.

    `fit(module, data, loss=, optimizer=, ...)` for a `torch.nn.Module` returns a `phalanx.Run`. Its
    `history` has a list of figures by epoch for "loss", "lr", and, with validation, for "val_loss"
    and each "val_" metric.

    data : (X, y) of arrays or tensors, nested tuples and dicts of them, a Dataset, a DataLoader
        With a row for each sample. Of a DataLoader, the dataset, the collate function and
        the size of its batches are taken, unless they are given here; the order is that of
        data_distribution.
        A list of tuples, or of dicts, is a dataset with one of them for each sample.
        float64 arrays of NumPy are converted to the module's dtype; tensors are not.
    loss : callable (outputs, target) -> mean loss, or a name such as "cross_entropy"
    step : callable (module, batch) -> mean loss, or (mean loss, weight)
        Instead of `loss`, for what is not loss(module(x), y). The weight is that of the mean among
        others, where it is not the number of samples (e.g. the number of tokens).
    optimizer : torch.optim.Optimizer over the module's parameters, callable, or name
        "adam" by default, with torch's own settings.
    scheduler : one or several of torch.optim.lr_scheduler
    scheduler_every : {"epoch", "step"}, default "epoch"
    metrics : names ("accuracy", "mse", "mae"), callables (outputs, target) -> [n], or a dict
        Of the validation samples, e.g. `run.history["val_accuracy"]`.
    collate : callable, as of a DataLoader
    validation : data that is judged after each epoch
    callbacks : callable (epoch, logs), or several; True stops the training
        Called in this process after each epoch; the module is then as it was trained so far.
    epochs, batch_size : int, default 1 and 32
        batch_size is the whole batch of a step, for any number of workers. The last batch of an
        epoch takes what is left: there are ceil(samples / batch_size) steps.
    workers : int, -1 for one a core (the default), or "auto" for the number that proves quickest
    shards : int or "auto"
        Slices of a batch that are computed apart: so many workers find something to compute.
        "auto" goes by batch and parameters. Part of the answer, as batch_size is.
    sync_every : int, default 1
        Steps that each shard makes by itself, as a replica with the optimizer, before the replicas
        meet in an outer step (local SGD, DiLoCo): where workers are far apart, they exchange that
        many times less. More than 1 is another algorithm, with another answer; it too is the same
        for any number of workers. See docs/models.md for what it costs.
    seed : int, default 0
        Of the order of the samples, and of whatever the module draws while it is trained. Its
        initial weights are drawn before: see torch.manual_seed.
        Every fit begins anew with it: one that goes on where another ended wants another seed (of
        Keras models, `initial_epoch`), or there is one fit of all epochs, with a callback.
    data_distribution : {"random", "sequential", "strided", "stratified"} or callable
    task_assignment : {"round_robin", "load_balanced", "dynamic"} or callable
    aggregation : {"mean", "sum", "max", "median", "trimmed_mean"} or callable
    clip_norm, clip_value : float or None
    precision : {"float32", "bf16"}
        bf16 is torch's autocast; parameters stay as they are.
    device : "cpu", "cuda" ...
    nonfinite : {"stop", "skip", "keep"}
        What to do with a step whose loss is NaN or infinite.
    loss_threshold : float or None
    checkpoint, checkpoint_every, resume
        As of the estimators' `fit`: a folder, e.g. "5 epochs", and True or a path.
    wire : {"exact", "bf16", "fp16"}
        How gradients travel between hosts, and so how they are rounded, on one host too. Part of
        the answer.
    exact : bool, default True
        False lets each host send the mean of its shards' gradients instead of each by itself, S / H
        times fewer bytes where H hosts have S shards. It needs aggregation "mean". The answer then
        depends on the number of hosts, in its last digits, and the record says so.
    mixed : {"refuse", "flag"}
        What to do with hosts whose processors, BLAS or library versions differ.
    cluster : phalanx.RayCluster or None
        None: this machine, or the hosts that torchrun or SLURM has launched this program on.
    verbose : bool, or 0 or 1 as Keras has it

    `fit(model, x, y, ...)` for a compiled Keras model takes the arguments of `model.fit`, those of
    the above that it lacks besides, and returns a History with the run as `.run`.

    Ctrl-C ends the training at a step's edge, with a warning; what was learnt until then is kept.
    Where warnings are errors, one that tells of the end has as `returned` what fit would return.
    Raises InvalidInput, before any work starts unless a callback is to blame; UserFunctionError or
    what a worker raised, with the worker's traceback as its cause; NonFiniteLoss; WorkerLost;
    HostsDiffer, HostLost and TooFewHosts where several hosts train.
    """
    made = _front(model).fit(model, *data, **options)
    run = getattr(made, "run", made)
    try:
        warn_afterwards(run)
        if run.reason == Reason.INTERRUPTED:
            warn_interrupted()
    except Warning as error:  # where warnings are errors
        error.returned = made  # type: ignore[attr-defined]
        error.add_note("The training is over: what fit would have returned is `returned` of this.")
        raise
    return made


def evaluate(model: Any, *data: Any, **options: Any) -> Any:
    """The loss and the metrics of a model over samples, computed by several workers.

    For a torch module: `evaluate(module, data, loss=, step=, metrics=, collate=, workers=,
    precision=, device=)` returns a dict of figures. For a Keras model `evaluate(model, x, y,
    sample_weight=, return_dict=, workers=)` returns what `model.evaluate` does; `batch_size` and
    `verbose` are taken and of no effect. Every sample counts once.

    Raises InvalidInput before any work starts; UserFunctionError or what a worker raised, with the
    worker's traceback as its cause; WorkerLost.
    """
    return _front(model).evaluate(model, *data, **options)


def predict(model: Any, *data: Any, **options: Any) -> Any:
    """A model's outputs for samples as a NumPy array, computed by several workers.

    For a torch module: `predict(module, x, collate=, workers=, precision=, device=)`, of one
    output, [samples, ...]. For a Keras model: `predict(model, x, workers=)`, of several outputs
    nested as the model nests them; `batch_size` and `verbose` are taken and of no effect.

    Raises what `evaluate` raises.
    """
    return _front(model).predict(model, *data, **options)


class _Modules:
    """torch modules."""

    @staticmethod
    def fit(model: Any, *data: Any, **options: Any) -> Any:
        import torch

        from phalanx.fitting.pytorch.modules import fit_module
        from phalanx.fitting.wishes import Wishes

        _check_names("fit", options, fit_module, Wishes)
        with torch.inference_mode(False):  # as outside of it, and of no_grad()
            return fit_module(model, *_one(data, "fit(module, (X, y), loss=...)"), **options)

    @staticmethod
    def evaluate(model: Any, *data: Any, **options: Any) -> Any:
        from phalanx.fitting.pytorch.passes import evaluate_module

        _check_names("evaluate", options, evaluate_module)
        return evaluate_module(model, *_one(data, "evaluate(module, (X, y), loss=...)"), **options)

    @staticmethod
    def predict(model: Any, *data: Any, **options: Any) -> Any:
        from phalanx.fitting.pytorch.passes import predict_module

        _check_names("predict", options, predict_module)
        return predict_module(model, *_one(data, "predict(module, X)"), **options)


def _check_names(name: str, options: dict[str, Any], *takers: Any) -> None:
    """Raise InvalidInput for an option that none of `takers` has."""
    parameters = [p for taker in takers for p in signature(taker).parameters.values()]
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    hint = f"help(phalanx.{name}) names them{IN_OPTIMIZER if name == 'fit' else ''}."
    checks.arguments(f"phalanx.{name}", options, known[2:], hint)


def _one(data: tuple[Any, ...], example: str) -> tuple[Any, ...]:
    """The one argument that holds the data; X and y given apart are put together."""
    if len(data) == 2:
        return (tuple(data),)
    if len(data) != 1:
        raise InvalidInput(
            f"a torch module needs its data as one argument; got {len(data)}. E.g. {example}."
        )
    return data


def _front(model: Any) -> Any:
    """Who trains this kind of model. Raises InvalidInput for what nobody does."""
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        if importlib.util.find_spec("torch") is None:
            raise InvalidInput(
                "workers compute Keras models by the torch backend; torch is not installed here. "
                "Run `pip install torch`; your own process may keep its backend."
            )
        from phalanx.fitting.keras3 import models

        return models
    if torch is not None and isinstance(model, torch.nn.Module):
        return _Modules
    given = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
    raise InvalidInput(
        f"model must be an object of torch.nn.Module or of keras.Model; got {given}. For a "
        "multi-layer perceptron without either, use phalanx.MLPClassifier or MLPRegressor."
    )

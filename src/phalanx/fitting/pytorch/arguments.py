"""The user's arguments, checked: module, loss or step, metrics, optimiser, precision, device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.modules import module as hooks

from phalanx.errors import InvalidInput
from phalanx.fitting.pytorch.known import HOOKS
from phalanx.models.pytorch.objective import LOSSES, METRICS, Objective
from phalanx.models.pytorch.parameters import named_parameters_of
from phalanx.models.pytorch.settings import Settings
from phalanx.models.pytorch.switches import changed_switches, matmul_precision
from phalanx.models.pytorch.weighing import class_weights_of, opened
from phalanx.pure import checks
from phalanx.pure.registry import choose, name_of

PRECISIONS = ("float32", "bf16")
MEANS = ("mean", "batchmean")  # over all elements; over the samples, of sums of their elements
REDUCTIONS = ("reduction", "size_average", "reduce")  # the latter two are torch's older ones
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.01),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}


def check_module(module: Any) -> None:
    """Raise InvalidInput for what cannot be trained as it stands."""
    called = [name for name in HOOKS if getattr(hooks, f"_global{name}")]
    if called:
        raise InvalidInput(
            "hooks must be those of modules, which travel with them; there are some on all modules "
            f"of this process (torch.nn.modules.module._global{called[0]}), which no worker would "
            "call. Remove them, or register them on this module's parts."
        )
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise InvalidInput(
            "a module must be one that Python runs, since workers get it by pickle; this one has "
            "been through torch.jit. Pass the module as it was before, and script it afterwards."
        )
    lazy = [n for n, p in named_parameters_of(module) if torch.nn.parameter.is_lazy(p)]
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


def check_hooks(module: torch.nn.Module) -> None:
    """Raise InvalidInput for hooks on gradients of parameters, which no worker would call."""
    for name, param in named_parameters_of(module):
        if param._backward_hooks or getattr(param, "_post_accumulate_grad_hooks", None):
            raise InvalidInput(
                "parameters must have no hooks, since workers compute gradients of their own; "
                f"{name!r} has one. Take it off, and let forward() or step= do what it did: e.g. "
                "weight.detach() where nothing is to be learnt, or clip_norm= and clip_value=."
            )


def dtype_of(params: Sequence[torch.Tensor]) -> torch.dtype:
    """The one dtype of all parameters that are trained. Raises InvalidInput."""
    dtypes = {p.dtype for p in params}
    if len(dtypes) != 1 or not dtypes <= {torch.float32, torch.float64}:
        kinds = ", ".join(sorted(str(dtype) for dtype in dtypes))
        if any(dtype.is_complex for dtype in dtypes):
            raise InvalidInput(
                f"parameters must be real; got complex ones ({kinds}). Keep "
                "torch.view_as_real(weight) as the parameter, and let forward() take "
                "torch.view_as_complex(parameter)."
            )
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
    _check_not_compiled(loss, step)
    _check_not_a_class("loss", loss, "mean loss")
    chosen: Any = None if loss is None else choose("loss", loss, LOSSES)
    _check_reduction(chosen)
    _check_smoothing(chosen)
    if metrics is not None and step is not None:
        raise InvalidInput(
            "metrics need the outputs of loss(module(x), y); with step= there are none. Leave "
            "metrics out, or pass loss= instead of step=."
        )
    return Objective(chosen, step, metrics_of(metrics))


def check_judged(objective: Objective, validation: Any) -> None:
    """Raise InvalidInput for metrics where there is nothing that they would be of."""
    if objective.metrics and validation is None:
        raise InvalidInput(
            "metrics are those of the validation samples; got "
            f"{', '.join(map(repr, objective.metrics))} and no validation. Pass "
            "validation=(X_val, y_val), or leave metrics out."
        )


def _check_not_compiled(loss: Any, step: Any) -> None:
    for name, function in (("loss", loss), ("step", step)):
        if hasattr(function, "_torchdynamo_orig_callable"):
            raise InvalidInput(
                f"{name} must be a function that can be pickled, since workers have their own; got "
                "one that has been through torch.compile. Pass the function uncompiled, or compile "
                "the module instead."
            )


def _check_not_a_class(name: str, function: Any, returned: str, options: str = "") -> None:
    if isinstance(function, type):
        can_be_called = any("__call__" in vars(base) for base in function.__mro__)
        advice = f"an object, {function.__name__}({options})" if can_be_called else "a function"
        raise InvalidInput(
            f"{name} must be a function (outputs, target) -> {returned}; got the class "
            f"{function.__name__}. Pass {advice}."
        )


def _check_reduction(loss: Any) -> None:
    function, keywords = opened(loss)
    options = {"reduction": getattr(function, "reduction", "mean")}
    if (getattr(function, "__module__", None) or "").startswith("torch."):
        options |= {name: keywords[name] for name in REDUCTIONS if keywords.get(name) is not None}
    for name, option in options.items():
        if option not in (MEANS if name == "reduction" else (True,)):
            raise InvalidInput(
                "a loss must be the mean over the samples, so that shards of any size add up to "
                f"the batch; got {name_of(function)} with {name}={option!r}. Use reduction='mean'."
            )


def _check_smoothing(loss: Any) -> None:
    weights = class_weights_of(loss)
    if weights is None or bool((weights > 0).all()):
        return
    function, keywords = opened(loss)
    options = {**getattr(function, "__dict__", {}), **keywords}
    if options.get("label_smoothing"):
        raise InvalidInput(
            "label smoothing needs class weights above 0, since torch's mean has no value for a "
            f"shard of other classes alone; got the weights {weights.tolist()}. Use a small weight "
            "instead of 0, or leave these samples out."
        )


def metrics_of(metrics: Any) -> dict[str, Any]:
    """Metrics by name, from a name, a list of names, or a dict. Raises InvalidInput."""
    if metrics is None:
        return {}
    if isinstance(metrics, dict):
        _check_metric_names([*map(str, metrics)])
        return {str(name): _metric_of(f"metrics[{name!r}]", m) for name, m in metrics.items()}
    several = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    names = [m if isinstance(m, str) else getattr(m, "__name__", "metric") for m in several]
    _check_metric_names(names)
    return {n: _metric_of("metrics", m) for n, m in zip(names, several, strict=True)}


def _metric_of(name: str, metric: Any) -> Any:
    """The metric that is named, or the metric itself. Raises InvalidInput for what is neither."""
    is_loss = isinstance(metric, type) and issubclass(metric, torch.nn.modules.loss._Loss)
    _check_not_a_class(name, metric, "[n]", "reduction='none'" if is_loss else "")
    return choose(name, metric, METRICS)


def _check_metric_names(names: list[str]) -> None:
    """Raise InvalidInput where a figure would take another's place."""
    for name in names:
        if name == "loss" or names.count(name) > 1:
            raise InvalidInput(
                "every metric needs a name of its own, other than 'loss'; got "
                f"{', '.join(map(repr, names))}. Pass a dict of metrics by name."
            )


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


def settings_of(precision: str, device: Any) -> Settings:
    """What workers are to have set like this process. Raises InvalidInput."""
    checks.one_of("precision", precision, PRECISIONS)
    place = device_of(device)
    return Settings(
        str(torch.get_default_dtype()).removeprefix("torch."),
        matmul_precision(),
        precision,
        place,
        changed_switches(place),
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

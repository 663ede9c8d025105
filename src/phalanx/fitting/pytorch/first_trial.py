"""The first trial of a module, on a copy of it: what a step changes, and whether the same samples
have the same loss and gradient when they come again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch.nn.modules.batchnorm import _NormBase

from phalanx.clusters.threads import one_blas_thread
from phalanx.errors import InvalidInput, UserFunctionError
from phalanx.models.pytorch.batches import Batch
from phalanx.models.pytorch.generators import as_guest, seed_everything
from phalanx.models.pytorch.network import TorchSpec, differ, moved, set_modes
from phalanx.models.pytorch.packing import unpacked
from phalanx.models.pytorch.parameters import named_parameters_of, parameters_of
from phalanx.pure.randomness import Key

KEY = Key(0, 0, 0)
OF_LOSS = "the module and the loss", "Try loss(module(x[:4]), y[:4]) yourself."
OF_STEP = "step(module, batch)", "Try it yourself, with the first 4 samples as the batch."


class Found(NamedTuple):
    """changing: names of the buffers that a step changes. unlike: what was another when the same
    samples came again, in words."""

    changing: set[str]
    unlike: str | None


def first_trial(spec: TorchSpec, params: Sequence[torch.Tensor], batch: Batch) -> Found:
    """Raises InvalidInput where a step fails, or changes what it may not."""
    with one_blas_thread(), as_guest():  # as a shard is computed, so that its bits are the same
        trial = _Trial(spec, params, batch.count)
        statistics = _statistics_of(trial.module)  # before a step that may call eval()
        first = trial.first_step(_copied(batch.content))
        trial.check()
        _check_gradients(trial, first, batch)
        if trial.is_known:
            return Found(set(), None)
        changed = trial.changed_buffers()
        is_done = trial.step_with_others(_copied(batch.content))
        changed |= trial.changed_buffers()
        _check_dense(trial.module, changed)
        trial.restore(changed)
        unlike = None
        if is_done and trial.device.type == "cpu":  # a GPU may add up in any order
            with suppress(Exception):  # if it is one that ends the fit, it will say so itself
                again = trial.step(_copied(batch.content))
                unlike = _unlike(first, again, trial.names)
        return Found(changed | statistics, unlike)


class _Trial:
    """A copy of a module, what it is trained for, and what it began with.

    is_known: whether all code is torch's own, which remembers nothing, and there are no buffers.
    """

    def __init__(self, spec: TorchSpec, params: Sequence[torch.Tensor], count: int) -> None:
        self.settings, self._count = spec.settings, count
        self.device = torch.device(spec.settings.device)
        self.module, self._objective, self.is_known = _loaded(spec, params)
        named = named_parameters_of(self.module)
        self.names = [named[i][0] for i in spec.trained]
        self._trained = [named[i][1] for i in spec.trained]
        self._modes = [(part, part.training) for part in self.module.modules()]
        self._values = {name: p.detach().clone() for name, p in named}
        self._buffers = {name: b.clone() for name, b in self.module.named_buffers()}

    def first_step(self, content: Any) -> list[Any]:
        """Raises InvalidInput where it fails."""
        try:
            return self.step(content)
        except UserFunctionError:
            raise
        except Exception as error:
            taker, advice = OF_LOSS if self._objective.step is None else OF_STEP
            raise InvalidInput(
                f"{taker} must take the data; a trial with {self._count} samples raised "
                f"{type(error).__name__}: {error}. {advice}"
            ) from error

    def step(self, content: Any) -> list[Any]:
        """[loss, weight, *gradients]."""
        loss, weight = self._loss(content)
        return [
            loss.detach(), weight, *torch.autograd.grad(loss, self._trained, allow_unused=True)
        ]  # fmt: skip

    def _loss(self, content: Any) -> tuple[torch.Tensor, float]:
        seed_everything(KEY.number())
        with self.settings.autocast():
            own = moved(content, self.device)
            loss, weight = self._objective.of_batch(self.module, own, self._count)
        return loss, weight

    def reached(self, content: Any) -> set[str]:
        """Names of the parameters of which loss.backward() makes a gradient."""
        loss, _ = self._loss(content)
        named = named_parameters_of(self.module)
        for _, param in named:
            param.grad = None  # a step may have called backward() itself
        torch.autograd.backward(loss)
        found = {name for name, param in named if param.grad is not None}
        for _, param in named:
            param.grad = None
        return found

    def step_with_others(self, content: Any) -> bool:
        """A pass with other parameters, if there is a loss for them: what a buffer follows may
        stand still with the first ones, as the power iterations of a spectral norm do once they
        have converged; and a mean of parameters that are kept is no other."""
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for param in parameters_of(self.module):
                noise = torch.rand(param.shape, generator=generator, dtype=torch.float32)
                param.mul_((0.8 + 0.4 * noise).to(param))
        with suppress(Exception):  # the first ones are what must work
            self._loss(content)
            return True
        return False

    def restore(self, changed: set[str]) -> None:
        """Make of the module what it was, as it is made anew for each shard."""
        set_modes(self._modes, training=True)
        with torch.no_grad():
            for name, param in named_parameters_of(self.module):
                param.copy_(self._values[name])
            for name, buffer in self.module.named_buffers():
                if name in changed:
                    buffer.copy_(self._buffers[name])

    def changed_buffers(self) -> set[str]:
        """Names of those that are others than at the beginning."""
        now = self.module.named_buffers()
        return {name for name, b in now if differ(b, self._buffers.get(name))}

    def check(self) -> None:
        """Raise InvalidInput if parameters, or shapes of buffers, have changed."""
        _check_unchanged(self.module, self._values)
        _check_shapes(self._buffers, dict(self.module.named_buffers()))


def _loaded(spec: TorchSpec, params: Sequence[torch.Tensor]) -> tuple[Any, Any, bool]:
    try:
        module, objective, example = unpacked(spec.packed, [p.detach().clone() for p in params])
    except Exception as error:
        raise InvalidInput(
            "a module must be the same after it was pickled and loaded again; loading raised "
            f"{type(error).__name__}: {error}. Look at its __getstate__ and __reduce__."
        ) from error
    return module.to(spec.settings.device), objective, example is not None


def _copied(content: Any) -> Any:
    """A copy of a batch, which a step may change; itself, if it is of something not to be copied,
    such as tensors with a gradient."""
    try:
        return deepcopy(content)
    except Exception:
        return content


def _unlike(first: list[Any], again: list[Any], names: list[str]) -> str | None:
    """What the second step has that the first had not."""
    for name, one, other in zip(["loss", "weight", *names], first, again, strict=True):
        if not _is_same(one, other):
            if name == "loss":
                return f"a loss of {float(one):.9g}, and then of {float(other):.9g}"
            return f"another {name}" if name == "weight" else f"another gradient of {name!r}"
    return None


def _is_same(one: Any, other: Any) -> bool:
    """Whether they are equal, or NaN, or None; a weight is a number."""
    if one is None or other is None:
        return one is other
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _statistics_of(module: torch.nn.Module) -> set[str]:
    """Names of the running statistics of normalisations, which training changes although the first
    rows may leave them as they are: the mean of zeros is zero."""
    return {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if isinstance(part, _NormBase) and part.training and part.track_running_stats
        for name, _ in part.named_buffers(recurse=False)
    }


def _check_unchanged(module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    for name, param in named_parameters_of(module):
        if name not in values:
            raise InvalidInput(
                "a module must have all its parameters before it is trained; the first call made "
                f"{name!r}. Call the module once on a batch first, then make the optimizer."
            )
        if differ(param.detach(), values[name]):
            raise InvalidInput(
                "a forward pass must leave the parameters as they are, since all workers share "
                f"them; it changed {name!r}. Change them by the optimizer, or by a parametrization "
                "in forward(); of an Embedding, leave out max_norm; of a copy that follows other "
                "weights, as a mean teacher does, keep the copy's weights as buffers."
            )


def _check_gradients(trial: _Trial, first: list[Any], batch: Batch) -> None:
    """Raise InvalidInput where some can be had by loss.backward() alone, or none at all."""
    loss, _, *grads = first
    missing = [name for name, grad in zip(trial.names, grads, strict=True) if grad is None]
    if not missing:
        return
    try:
        reached = trial.reached(_copied(batch.content))
    except Exception:  # if it is one that ends the fit, it will say so itself
        return
    hidden = [name for name in missing if name in reached]
    if hidden:
        raise InvalidInput(
            "gradients must be such as torch.autograd.grad gives, by which workers have them; it "
            f"gives none of {hidden[0]!r}, and loss.backward() does. Pass use_reentrant=False to "
            "torch.utils.checkpoint."
        )
    if not reached and float(loss) != 0.0:  # 0: of these samples there may be nothing to learn
        raise InvalidInput(
            f"the loss must depend on the module that is trained; that of {batch.count} samples "
            "depends on none of its parameters. Let step= call the module that it is given, which "
            "is a copy of yours, and not one that is imported or global."
        )


def _check_shapes(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    for name, buffer in after.items():
        if name not in before or buffer.shape != before[name].shape:
            raise InvalidInput(
                "a buffer must keep its name and shape, so that those of shards can be put "
                f"together; a forward pass made {name!r} {tuple(buffer.shape)}. Register it with "
                "its full size; or, if it is made once and only read, call the module once on the "
                "longest batch before, or keep it as a plain attribute."
            )


def _check_dense(module: torch.nn.Module, changed: set[str]) -> None:
    for name, buffer in module.named_buffers():
        if name in changed and buffer.layout is not torch.strided:
            raise InvalidInput(
                "a buffer that a step changes must be dense, so that those of shards can be put "
                f"together; {name!r} is of layout {buffer.layout}. Register its .to_dense(), or "
                "leave it as it is."
            )

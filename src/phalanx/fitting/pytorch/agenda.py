"""The settings of a torch optimiser for every step, worked out by the driver an epoch ahead."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch

from phalanx.errors import InvalidInput
from phalanx.models.pytorch.describing import Described
from phalanx.models.pytorch.optimizers import numbers_of, set_numbers
from phalanx.pure import checks
from phalanx.pure.arrays import Array
from phalanx.pure.plan import Plan

EVERY = ("step", "epoch")


class Beginning(NamedTuple):
    """Of an epoch: the schedulers' states, and the settings of the optimiser's groups."""

    epoch: int
    states: list[dict[str, Any]]
    groups: list[dict[str, Any]]


class ModuleAgenda:
    """See following.Agenda. The schedulers are the user's own and move the user's optimiser: by
    step, to the end of an epoch as it begins."""

    def __init__(self, described: Described, plan: Plan, scheduler: Any, every: str) -> None:
        checks.one_of("scheduler_every", every, EVERY)
        several = isinstance(scheduler, (list, tuple))
        self._schedulers = (
            list(scheduler) if several else [s for s in (scheduler,) if s is not None]
        )
        for one in self._schedulers:
            _check_scheduler(one, described.live, every)
        self._described, self.n_steps, self._every = described, plan.n_steps, every
        self._known: dict[int, Array] = {}
        self._rates: dict[int, float] = {}
        self._beginning: Beginning | None = None  # of an epoch that has not ended
        vars(described.live)["_opt_called"] = (
            True  # else a scheduler warns that no step came before its own
        )
        self.changes = bool(self._schedulers)

    @property
    def waits_for_epochs(self) -> bool:
        """Whether something is to be done between two epochs."""
        return bool(self._schedulers)

    def settings(self, epoch: int) -> Array:
        """Of each step of an epoch, [T, G, H]."""
        if epoch not in self._known:
            if self._steps_ahead:
                self._beginning = self._beginning_of(epoch)
            self._known = {epoch: self._worked_out()}
            self._rates[epoch] = self._rate_in(self._known[epoch])
        return self._known[epoch]

    def recall(self, numbers_GX: list[list[float]] | None) -> None:
        """Let the optimiser have the settings that an epoch began with, if these are known; of a
        round of steps, those of the first."""
        settings = self._described.described.settings
        groups = self._described.live.param_groups
        for group, numbers in zip(groups, numbers_GX or (), strict=False):
            if numbers_of(group, settings) != numbers[: len(settings)]:
                set_numbers(group, settings, numbers[: len(settings)])

    def rate(self, epoch: int) -> float:
        """The learning rate with which an epoch ended, of the first group."""
        known = max((e for e in self._rates if e <= epoch), default=None)
        return float("nan") if known is None else self._rates[known]

    def epoch_ended(self, logs: dict[str, float]) -> None:
        """Step the schedulers that step by epoch."""
        self._beginning = None
        if self._every == "epoch":
            for scheduler in self._schedulers:
                if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    scheduler.step(logs.get("val_loss", logs["loss"]))
                else:
                    scheduler.step()

    def end_within(self, epoch: int | None, n_steps: int) -> None:
        """Have schedulers and optimiser where they are after so many steps of an epoch; None: of
        the last one, if that has not ended."""
        start = self._beginning
        if start is None or epoch not in (None, start.epoch):
            return
        for scheduler, state in zip(self._schedulers, start.states, strict=True):
            scheduler.load_state_dict(state)
        for group, settings in zip(self._described.live.param_groups, start.groups, strict=True):
            group.update(settings)
        for _ in range(min(n_steps, self.n_steps)):
            self._step()

    @property
    def _steps_ahead(self) -> bool:
        return self._every == "step" and bool(self._schedulers)

    def _beginning_of(self, epoch: int) -> Beginning:
        live, names = self._described.live, {name for name, _ in self._described.described.settings}
        own = {id(thing): thing for thing in (live, *self._schedulers)}  # are not copied
        states = [deepcopy(scheduler.state_dict(), own) for scheduler in self._schedulers]
        groups = [{name: deepcopy(group[name]) for name in names} for group in live.param_groups]
        return Beginning(epoch, states, groups)

    def _step(self) -> None:
        for scheduler in self._schedulers:
            scheduler.step()

    def _rate_in(self, table_TGH: Array) -> float:
        """NaN of an optimiser that has none."""
        settings, name = self._described.described.settings, ("lr", None)
        return float(table_TGH[-1, 0, settings.index(name)]) if name in settings else float("nan")

    def _worked_out(self) -> Array:
        settings = self._described.described.settings
        groups = self._described.live.param_groups
        table_TGH = np.zeros((self.n_steps, len(groups), len(settings)))
        table_TGH[...] = [numbers_of(group, settings) for group in groups]
        if self._steps_ahead:
            for t in range(self.n_steps):
                table_TGH[t] = [numbers_of(group, settings) for group in groups]
                self._step()
        return table_TGH


def _check_scheduler(scheduler: Any, optimizer: Any, every: str) -> None:
    base = torch.optim.lr_scheduler.LRScheduler
    if not isinstance(scheduler, base):
        raise InvalidInput(
            "scheduler must be one of torch.optim.lr_scheduler, or several; got "
            f"{type(scheduler).__name__}. Create it from the optimizer that you pass."
        )
    if scheduler.optimizer is not optimizer:
        raise InvalidInput(
            "the scheduler must be of the optimizer that is passed; it is of another one. "
            "Create both, and pass both."
        )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    if isinstance(scheduler, plateau) and scheduler.mode != "min":
        raise InvalidInput(
            "ReduceLROnPlateau sees the validation loss, or else the loss, which is to fall; got "
            f"mode={scheduler.mode!r}. Pass mode='min'; or leave scheduler= out, and step it in a "
            "callback by a metric, e.g. logs['val_accuracy']."
        )
    if every == "step" and isinstance(scheduler, plateau):
        raise InvalidInput(
            "a scheduler that follows the loss must be stepped after each epoch, when there is "
            "one; got ReduceLROnPlateau with scheduler_every='step'. Pass scheduler_every='epoch'."
        )

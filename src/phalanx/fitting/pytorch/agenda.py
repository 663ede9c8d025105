"""The settings of a torch optimiser for every step, worked out by the driver an epoch ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from phalanx.errors import InvalidInput
from phalanx.models.pytorch.describing import Described
from phalanx.models.pytorch.optimizers import numbers_of, set_numbers
from phalanx.pure import checks
from phalanx.pure.arrays import Array
from phalanx.pure.plan import Plan

EVERY = ("step", "epoch")


class ModuleAgenda:
    """See following.Agenda. The schedulers are the user's own and move the user's optimiser."""

    def __init__(self, described: Described, plan: Plan, scheduler: Any, every: str) -> None:
        checks.one_of("scheduler_every", every, EVERY)
        several = isinstance(scheduler, (list, tuple))
        self._schedulers = (
            list(scheduler) if several else [s for s in (scheduler,) if s is not None]
        )
        for one in self._schedulers:
            _check_scheduler(one, described.live, every)
        self._described, self._n_steps, self._every = described, plan.n_steps, every
        self._known: dict[int, Array] = {}
        self._rates: dict[int, float] = {}
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
        if self._every == "epoch":
            for scheduler in self._schedulers:
                if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    scheduler.step(logs.get("val_loss", logs["loss"]))
                else:
                    scheduler.step()

    def _rate_in(self, table_TGH: Array) -> float:
        """NaN of an optimiser that has none."""
        settings, name = self._described.described.settings, ("lr", None)
        return float(table_TGH[-1, 0, settings.index(name)]) if name in settings else float("nan")

    def _worked_out(self) -> Array:
        settings = self._described.described.settings
        groups = self._described.live.param_groups
        table_TGH = np.zeros((self._n_steps, len(groups), len(settings)))
        table_TGH[...] = [numbers_of(group, settings) for group in groups]
        if self._every == "step" and self._schedulers:
            for t in range(self._n_steps):
                table_TGH[t] = [numbers_of(group, settings) for group in groups]
                for scheduler in self._schedulers:
                    scheduler.step()
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
    if every == "step" and isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise InvalidInput(
            "a scheduler that follows the loss must be stepped after each epoch, when there is "
            "one; got ReduceLROnPlateau with scheduler_every='step'. Pass scheduler_every='epoch'."
        )

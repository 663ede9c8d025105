"""The user's module and optimiser, which follow the training of copies of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from phalanx.clusters.hosts.launch import speaks
from phalanx.errors import NonFiniteLoss
from phalanx.fitting.pytorch.agenda import ModuleAgenda
from phalanx.fitting.pytorch.unchanged import Trainable
from phalanx.models.pytorch.describing import Described
from phalanx.models.pytorch.network import TorchSpec
from phalanx.models.pytorch.objective import Objective
from phalanx.pure.arrays import Array, same_bits
from phalanx.run import EpochRecord, Run
from phalanx.training.keeper import record_from
from phalanx.training.state import State
from phalanx.training.train import Trained


class Follower:
    """The user's module and optimiser while a training of copies of them runs.

    sync_every: steps of a round, where the training is in rounds, of which the user's optimiser has
    no state to keep; else 1. is_followed: whether somebody is to hear of each epoch.
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
        sync_every: int,
    ) -> None:
        self.module, self.described, self.spec, self.agenda = module, described, spec, agenda
        self.sync_every, self.is_local = sync_every, sync_every > 1
        self.names = ("loss", *objective.metrics)
        self.callbacks, self.verbose = callbacks, bool(verbose) and speaks()
        self.is_followed = bool(callbacks or verbose or agenda.waits_for_epochs)
        learnt = {*spec.vector.averaged, *spec.vector.copied}
        self.trainable = Trainable(module, described, learnt)

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
        """See following.Mirror."""
        self._put(values_XN[0], values_XN[1:], scalars_KC)

    def _put(self, values_N: Array, state_MN: Array, scalars_KC: Array | None) -> None:
        self._copy(values_N, to_module=True)
        if not self.is_local:
            assert scalars_KC is not None
            self.described.take(self.spec.vector, self.spec.regions, state_MN, scalars_KC)
            self.trainable.state_shown()

    def changed(self, values_N: Array) -> bool:
        """See following.Mirror."""
        mine_N = self.values()
        if same_bits(mine_N, values_N):
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
        if not any(wishes) and record.reason is None:
            self.trainable.check()
        return any(wishes)

    def logs(self, record: EpochRecord, epoch: int) -> dict[str, float]:
        """An epoch's figures by name."""
        logs = {"loss": record.loss}
        if record.sums:
            total, weight, samples, *others = record.sums
            logs["val_loss"] = total / weight if weight else float("nan")
            for name, value in zip(self.names[1:], others, strict=True):
                logs[f"val_{name}"] = value / samples
        logs["lr"] = self.agenda.rate(epoch - 1)
        return logs

    def catch_up(self, saved: Any) -> None:
        """Bring the optimiser's settings to where the checkpoint is: callbacks, which may have
        changed them, are not called again."""
        records, settings = saved.facts["records"], dict(saved.facts.get("settings", []))
        for epoch, record in enumerate(map(record_from, records), 1):
            self.agenda.recall(settings.get(epoch - 1))
            self.agenda.settings(epoch - 1)
            self.agenda.epoch_ended(self.logs(record, epoch))
        self.agenda.recall(settings.get(len(records)))

    def failed(self, error: BaseException) -> None:
        """The training ended without a result: have the schedule where the module is, before the
        step of a loss that is not finite, or else at the beginning of its epoch."""
        if isinstance(error, NonFiniteLoss):
            rounds = -(-self.agenda.n_steps // self.sync_every)
            self.agenda.end_within(error.epoch, error.step % rounds * self.sync_every)
        else:
            self.agenda.end_within(None, 0)

    def take(self, trained: Trained) -> Run:
        """Put what was learnt into the user's module and optimiser; returns the run."""
        state = trained.state
        self.agenda.end_within(state.epochs, state.place * self.sync_every)
        self._put(state.params_N, state.state_MN, state.scalars_KC)
        history: dict[str, list[float]] = {"loss": []}
        for epoch, record in enumerate(trained.records, 1):
            for name, value in self.logs(record, epoch).items():
                history.setdefault(name, []).append(value)
        run = trained.run
        run.history, run.rates = history, history.get("lr", [])
        run.scores = history.get("val_loss", [])
        return run

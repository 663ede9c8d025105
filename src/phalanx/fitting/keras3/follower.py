"""The user's Keras model, its callbacks and its learning rate, while copies of it are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from phalanx.clusters.hosts.launch import speaks
from phalanx.errors import InvalidInput
from phalanx.fitting.keras3.described import DescribedModel
from phalanx.fitting.keras3.unchanged import Unchanged
from phalanx.pure import checks
from phalanx.pure.arrays import Array, same_bits
from phalanx.pure.plan import Plan
from phalanx.run import EpochRecord
from phalanx.training.keeper import record_from
from phalanx.training.train import Trained
from phalanx.warning import warn_caller

PER_BATCH = (
    "on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end",
    "on_test_batch_begin", "on_test_batch_end",
)  # fmt: skip


class KerasFollower:
    """See following.Mirror and following.Agenda."""

    def __init__(
        self,
        described: DescribedModel,
        plan: Plan,
        callbacks: Any,
        verbose: Any,
        first_epoch: int,
        epochs: int,
        validation_freq: Any,
    ) -> None:
        self.described, self.model = described, described.model
        self._optimizer, self._n_steps = described.model.optimizer, plan.n_steps
        self._validation_freq = validation_freq
        given = _checked(callbacks)
        _check_shown(verbose, validation_freq)
        shown = (1 if verbose == "auto" else int(verbose)) if speaks() else 0
        self.is_followed = bool(given) or shown > 0
        self.callbacks = (
            callbacks
            if isinstance(callbacks, keras.callbacks.CallbackList)
            else keras.callbacks.CallbackList(
                given,
                add_history=True,
                add_progbar=shown > 0,
                verbose=shown,
                epochs=epochs,
                steps=plan.n_steps,
                model=self.model,
            )
        )
        self.changes = self._schedule is not None or self.is_followed
        self._tables: dict[int, Array] = {}
        self._first_epoch, self._n_told = first_epoch, 0
        self._unchanged = Unchanged(self.model, described.constants, is_looked_at=bool(given))

    def begin(self, resume: Any) -> None:
        """The training is about to begin; what a checkpoint knows was seen before is told anew."""
        records = [] if resume is None else resume.facts["records"]
        if records:
            _check_resumable(self.callbacks.callbacks)
        self.model.stop_training = False
        self.callbacks.on_train_begin()
        self._unchanged.check()
        stops = self.model.stop_training  # what epochs of before say of it has been heeded
        self._iterations = int(keras.ops.convert_to_numpy(self._optimizer.iterations))
        with _unsaved(self.model):
            for count, packed in enumerate(records, 1):
                self.settings(self._first_epoch + count - 1)
                self.epoch_ended(count, record_from(packed))
        self.model.stop_training = stops

    def settings(self, epoch: int) -> Array:
        """The learning rate of each step of an epoch, [T, 2, 1]."""
        if epoch not in self._tables:
            if self.is_followed:
                self.callbacks.on_epoch_begin(epoch)
            self._tables = {epoch: self._rates(epoch)}
        return self._tables[epoch]

    @property
    def _schedule(self) -> Any:
        """The schedule of the learning rate, which a callback may set; None for a number."""
        rate = self._optimizer._learning_rate
        schedules = keras.optimizers.schedules.LearningRateSchedule
        return rate if isinstance(rate, schedules) else None

    def _rates(self, epoch: int) -> Array:
        table, schedule = np.empty((self._n_steps, 2, 1)), self._schedule
        if schedule is None:
            table[...] = float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))
            return table
        first = self._iterations + (epoch - self._first_epoch) * self._n_steps
        for t in range(self._n_steps):
            table[t] = float(keras.ops.convert_to_numpy(schedule(first + t)))
        return table

    def show(self, values_XN: Array, scalars_KC: Array) -> None:
        """See following.Mirror."""
        self.described.take(values_XN[0], values_XN[1:], scalars_KC)

    def changed(self, values_N: Array) -> bool:
        """See following.Mirror."""
        mine_N = self.described.values()
        if same_bits(mine_N, values_N):
            return False
        values_N[...] = mine_N
        return True

    def epoch_ended(self, count: int, record: EpochRecord) -> bool:
        """Tell the callbacks; whether one wants to stop."""
        epoch, self._n_told = self._first_epoch + count - 1, count
        validation = self._validation(record, epoch)
        with self._unchanged.of_optimizer():
            self._look_at_loss(record.loss)
            if validation:
                self.callbacks.on_test_begin()
                self.callbacks.on_test_end(validation)
            self.callbacks.on_epoch_end(epoch, self._logs(record, validation))
        stops = bool(self.model.stop_training)
        if not stops and record.reason is None and self.is_followed:
            self._unchanged.check()
        return stops

    def _look_at_loss(self, loss: float) -> None:
        """Have Keras' own callback for it judge the epoch's loss, as it would each batch's."""
        for callback in self.callbacks.callbacks:
            if isinstance(callback, keras.callbacks.TerminateOnNaN):
                callback.on_batch_end(self._n_steps - 1, {"loss": loss})

    def logs(self, record: EpochRecord, epoch: int) -> dict[str, Any]:
        """An epoch's figures by name, as Keras calls them."""
        return self._logs(record, self._validation(record, epoch))

    def _logs(self, record: EpochRecord, validation: dict[str, Any]) -> dict[str, Any]:
        logs = self.described.trial.figures(record.loss, list(record.measures))
        return {**logs, **{f"val_{name}": value for name, value in validation.items()}}

    def _validation(self, record: EpochRecord, epoch: int) -> dict[str, Any]:
        """An epoch's figures of the validation data; none where there was no validation."""
        if not record.sums or not self._is_validated(epoch):
            return {}
        total, weight, *measures = record.sums
        return self.described.trial.figures(total / weight, measures)

    def _is_validated(self, epoch: int) -> bool:
        wanted = self._validation_freq
        return (epoch + 1) % wanted == 0 if isinstance(wanted, int) else epoch + 1 in wanted

    def take(self, trained: Trained) -> Any:
        """Put what was learnt into the user's model; returns its History with the run."""
        state, run = trained.state, trained.run
        scalars_KC = np.zeros((1, 0)) if state.scalars_KC is None else state.scalars_KC
        self.described.take(state.params_N, state.state_MN, scalars_KC)
        if self.described.is_local:  # the steps are all that the live optimiser hears of
            steps = len(trained.records) * self._n_steps
            self._optimizer.iterations.assign(self._iterations + steps)
        if not self.is_followed:
            for record in trained.records[self._n_told :]:
                self.epoch_ended(self._n_told + 1, record)
        history = self.model.history
        logs = self.logs(trained.records[-1], self._first_epoch + len(trained.records) - 1)
        self.callbacks.on_train_end(logs=logs)
        run.history = {name: list(values) for name, values in history.history.items()}
        run.scores = [float(value) for value in run.history.get("val_loss", [])]
        history.run = run
        return history


def _check_shown(verbose: Any, validation_freq: Any) -> None:
    """Raise InvalidInput for what is no level of verbosity, or says no epochs."""
    if not isinstance(verbose, (bool, int, str)) or verbose not in ("auto", 0, 1, 2):
        raise InvalidInput(
            f"verbose must be 'auto', 0, 1 or 2; got {verbose!r}. 0 shows nothing, 1 a bar."
        )
    if isinstance(validation_freq, (list, tuple, set)):
        for epoch in validation_freq:
            checks.number("an epoch of validation_freq", epoch, integer=True, at_least=1)
    else:
        hint = "Or a list of epochs."
        checks.number("validation_freq", validation_freq, integer=True, at_least=1, hint=hint)


def _check_resumable(callbacks: Sequence[Any]) -> None:
    """Raise InvalidInput for a callback that would need the weights of epochs before."""
    for callback in callbacks:
        if getattr(callback, "restore_best_weights", False):
            raise InvalidInput(
                "a callback that goes on from a checkpoint must not need the weights of the epochs "
                f"before, of which only figures are kept; got {type(callback).__name__} with "
                "restore_best_weights=True. Use ModelCheckpoint with save_best_only=True."
            )


@contextmanager
def _unsaved(model: Any) -> Iterator[None]:
    """Within it, callbacks save nothing: they are told of epochs whose weights are not there."""
    names = ("save", "save_weights")
    vars(model).update({name: lambda *path, **options: None for name in names})
    try:
        yield
    finally:
        for name in names:
            vars(model).pop(name)


def _checked(callbacks: Any) -> list[Any]:
    """The callbacks as a list. Raises InvalidInput for what is none, or looks at single steps."""
    if callbacks is None:
        return []
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    if isinstance(callbacks, keras.callbacks.CallbackList):
        given = callbacks.callbacks
    for callback in given:
        if not isinstance(callback, keras.callbacks.Callback):
            raise InvalidInput(
                "callbacks must be keras.callbacks.Callback objects; got "
                f"{type(callback).__name__}. Wrap a function in keras.callbacks.LambdaCallback."
            )
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise InvalidInput(
                "a training is gone on from a checkpoint of its own, with the same bits; "
                "BackupAndRestore would begin at another epoch. Leave it out, and pass "
                "checkpoint='folder', resume=True."
            )
        if isinstance(getattr(callback, "save_freq", None), int):
            raise InvalidInput(
                "callbacks are called after each epoch, while workers are at the steps; "
                f"{type(callback).__name__} has save_freq={callback.save_freq}. Use "
                "save_freq='epoch', or checkpoint= with checkpoint_every='100 steps'."
            )
    if any(_looks_at_batches(callback) for callback in given):
        warn_caller(
            "callbacks are called after each epoch; what they define for single batches "
            "(on_train_batch_end ...) is not called."
        )
    return list(given)


def _looks_at_batches(callback: Any) -> bool:
    own = type(callback).__module__.split(".")[0] == "keras"
    if own and not isinstance(callback, keras.callbacks.LambdaCallback):
        return False
    methods = [getattr(callback, name, None) for name in PER_BATCH]
    return any(m is not None and not getattr(m, "_is_default", False) for m in methods)

"""What a callback may not change, since workers were told at the beginning: what is trained, the
optimiser and its settings but for the learning rate, and the weights that training leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from phalanx.errors import InvalidInput
from phalanx.fitting.keras3.arrays import numpy_of
from phalanx.fitting.keras3.optimizer import config_of
from phalanx.pure.arrays import Array

NEXT = "End this fit (self.model.stop_training = True), {}, and call fit again with initial_epoch."


class Unchanged:
    """All that as a fit begins. constants: the weights that training leaves as they are.
    is_looked_at: whether there are callbacks that could write into anything."""

    def __init__(self, model: Any, constants: list[Any], is_looked_at: bool) -> None:
        self._model, self._optimizer = model, model.optimizer
        self._trainable = list(map(id, model.trainable_variables))
        self._settings = settings_of(model.optimizer)
        self._is_looked_at = is_looked_at
        self._constants = self._copies(constants)

    def _copies(self, variables: list[Any]) -> list[tuple[Any, Array]]:
        """What is to be compared, with its values now."""
        return [(v, numpy_of(v)) for v in variables] if self._is_looked_at else []

    def check(self) -> None:
        """Raise InvalidInput if any of it has changed."""
        if list(map(id, self._model.trainable_variables)) != self._trainable:
            raise InvalidInput(
                "what is trained stays the same throughout a fit; a callback has changed "
                f"`trainable` of a layer. {NEXT.format('change it, compile')}"
            )
        self._check_optimizer()
        for weight, value in self._constants:
            if _differs(weight, value):
                raise InvalidInput(
                    "a callback may change the weights that training changes; one has written into "
                    f"{weight.path!r}, of which the workers have copies. {NEXT.format('write')}"
                )

    @contextmanager
    def of_optimizer(self) -> Iterator[None]:
        """Within it, callbacks are called. Raises InvalidInput where they write into the
        optimizer's state, of which the model has but a copy."""
        rate = self._optimizer._learning_rate
        before = self._copies([v for v in self._optimizer.variables if v is not rate])
        yield
        for variable, value in before:
            if _differs(variable, value):
                raise InvalidInput(
                    "a callback may read the optimizer's state; one has written into "
                    f"{variable.path!r}, of which the workers have their own (load_weights does; "
                    f"set_weights leaves it). {NEXT.format('write after it')}"
                )

    def _check_optimizer(self) -> None:
        if self._model.optimizer is not self._optimizer:
            raise InvalidInput(
                f"a fit has one optimizer; a callback has set another. {NEXT.format('set it')}"
            )
        for name, value in settings_of(self._optimizer).items():
            before = self._settings.get(name)
            if value != before:
                raise InvalidInput(
                    "of the optimizer's settings a callback may change the learning rate; one has "
                    f"changed {name!r} from {before!r} to {value!r}. {NEXT.format('change it')}"
                )


def _differs(variable: Any, value: Array) -> bool:
    return not np.array_equal(keras.ops.convert_to_numpy(variable), value, equal_nan=True)


def settings_of(optimizer: Any) -> dict[str, Any]:
    """All settings of an optimiser but the learning rate, each as plain values."""
    config = config_of(optimizer)
    return {name: value for name, value in config.items() if name != "learning_rate"}

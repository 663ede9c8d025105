"""What a callback may not change, since workers were told at the beginning: what is trained, the
optimiser and its settings but for the learning rate, and the weights that training leaves."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from phalanx.errors import InvalidInput
from phalanx.fitting.keras3.arrays import numpy_of
from phalanx.fitting.keras3.optimizer import config_of

NEXT = "End this fit (self.model.stop_training = True), {}, and call fit again with initial_epoch."


class Unchanged:
    """All that as a fit begins. constants: the weights that training leaves as they are."""

    def __init__(self, model: Any, constants: list[Any]) -> None:
        self._model, self._optimizer = model, model.optimizer
        self._trainable = list(map(id, model.trainable_variables))
        self._settings = settings_of(model.optimizer)
        self._constants = [(weight, numpy_of(weight)) for weight in constants]

    def check(self) -> None:
        """Raise InvalidInput if any of it has changed."""
        if list(map(id, self._model.trainable_variables)) != self._trainable:
            raise InvalidInput(
                "what is trained stays the same throughout a fit; a callback has changed "
                f"`trainable` of a layer. {NEXT.format('change it, compile')}"
            )
        self._check_optimizer()
        for weight, value in self._constants:
            if not np.array_equal(keras.ops.convert_to_numpy(weight), value):
                raise InvalidInput(
                    "a callback may change the weights that training changes; one has written into "
                    f"{weight.path!r}, of which the workers have copies. {NEXT.format('write')}"
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


def settings_of(optimizer: Any) -> dict[str, Any]:
    """All settings of an optimiser but the learning rate, each as plain values."""
    config = config_of(optimizer)
    return {name: value for name, value in config.items() if name != "learning_rate"}

"""A predictor: a trained network with the preprocessing that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phalanx.data.preprocessing import Preprocessing
from phalanx.data.samples import TableSamples
from phalanx.data.table import Table
from phalanx.data.targets import ClassTarget
from phalanx.errors import InvalidInput
from phalanx.models.mlp import MLPSpec
from phalanx.pure.arrays import Array
from phalanx.runs.evaluation import Evaluation, evaluate_classes, evaluate_values
from phalanx.training.train import predict


@dataclass(frozen=True)
class Predictor:
    """Parameters `parameters` of the network `spec`, behind a preprocessing."""

    preprocessing: Preprocessing
    spec: MLPSpec
    parameters: Array

    def __post_init__(self) -> None:
        """Raise InvalidInput where network and preprocessing do not fit together."""
        needed = self.preprocessing.n_features, self._n_outputs
        if (self.spec.sizes[0], self.spec.sizes[-1]) != needed:
            raise InvalidInput(
                f"the network must take {needed[0]} features and give {needed[1]} outputs as the "
                f"preprocessing says; its layers are {self.spec.sizes}."
            )

    @property
    def _n_outputs(self) -> int:
        target = self.preprocessing.target
        n_classes = len(target.labels) if isinstance(target, ClassTarget) else 1
        return 1 if n_classes == 2 else n_classes

    def probabilities(self, table: Table, workers: int = 1) -> Array:
        """Probabilities [n, C] of the classes. Raises InvalidInput where the target has none."""
        target = self.preprocessing.target
        if not isinstance(target, ClassTarget):
            raise InvalidInput(
                f"probabilities need classes; this run estimates the number {target.column!r}. "
                "Leave --proba out."
            )
        output_BO = self._outputs(table, workers)
        return np.hstack([1 - output_BO, output_BO]) if self._n_outputs == 1 else output_BO

    def predict(self, table: Table, workers: int = 1) -> Array:
        """Class labels [n] as text, or values [n] in the target's own unit."""
        target = self.preprocessing.target
        if isinstance(target, ClassTarget):
            best_B = self.probabilities(table, workers).argmax(axis=1)
            return np.asarray(np.array(target.labels, object)[best_B])
        return target.restore(self._outputs(table, workers)[:, 0])

    def evaluate(self, table: Table, workers: int = 1) -> Evaluation:
        """How good the predictions are; the table needs the target column."""
        target = self.preprocessing.target
        truth_B = self.preprocessing.targets(table)
        if isinstance(target, ClassTarget):
            return evaluate_classes(target.labels, truth_B, self.probabilities(table, workers))
        return evaluate_values(target.restore(truth_B), self.predict(table, workers))

    def _outputs(self, table: Table, workers: int) -> Array:
        samples = TableSamples.of(self.preprocessing.samples(table))
        spec = self.spec
        return predict(spec, self.parameters, samples, workers, (spec.n_outputs,), spec.dtype)

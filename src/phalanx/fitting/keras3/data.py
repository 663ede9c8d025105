"""The data that `model.fit` of Keras takes, as samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from torch.utils.data import DataLoader, Subset

from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.fitting.pytorch.loaders import unpacked
from phalanx.models.pytorch.batches import DatasetSamples, NestedSamples
from phalanx.pure import checks
from phalanx.pure.arrays import Array


@dataclass(frozen=True)
class KerasData:
    """parts: (x,), (x, y) or (x, y, weight), all nests of arrays; or a torch Dataset."""

    parts: Any
    collate: Any = None

    @classmethod
    def of(cls, x: Any, y: Any = None, sample_weight: Any = None) -> KerasData:
        """Raises InvalidInput."""
        if isinstance(x, keras.utils.PyDataset):
            raise InvalidInput(
                "x must be samples that can be taken one by one: an array, a list or dict of "
                f"arrays, or a torch Dataset; got {type(x).__name__}, a PyDataset, whose parts are "
                "batches. Make arrays of them: np.concatenate its batches, e.g. "
                "np.concatenate([data[i][0] for i in range(len(data))]) for x."
            )
        if isinstance(x, (str, bytes)) or _is_text(x):
            raise InvalidInput(
                "x must be samples as numbers: an array, a list or dict of arrays, or a torch "
                f"Dataset or DataLoader; got {type(x).__name__}. Open what is in a file, and "
                "encode text first, e.g. by keras.layers.TextVectorization."
            )
        is_loader = isinstance(x, DataLoader)
        if is_loader or (hasattr(x, "__getitem__") and hasattr(x, "__len__") and not _is_arrays(x)):
            _check_alone(x, y, sample_weight)
            return cls(*unpacked(x)) if is_loader else cls(x)
        if x is None or not _is_arrays(x):
            raise InvalidInput(
                "x must be an array, a list or dict of arrays, or a torch Dataset or DataLoader; "
                f"got {type(x).__name__}. Samples of a stream cannot be counted once each: pass "
                "arrays (numpy.memmap for what is larger than memory), or a Dataset."
            )
        if y is None and sample_weight is not None:
            raise InvalidInput(
                "weights of samples need a target y that they belong to; got y=None. Pass y, or "
                "weigh the loss in the model's compute_loss."
            )
        return cls(tuple(_of_list(part) for part in (x, y, sample_weight) if part is not None))

    @property
    def is_arrays(self) -> bool:
        return isinstance(self.parts, tuple)

    def samples(self) -> Samples:
        """What the engine takes."""
        if not self.is_arrays:
            return DatasetSamples.of(self.parts, self.collate)
        return NestedSamples.of(self.parts, np.dtype(keras.config.floatx()))

    def labels(self) -> Array | None:
        """Class indices of the samples, where y is such, for stratifying."""
        if not self.is_arrays or len(self.parts) < 2 or isinstance(self.parts[1], (list, dict)):
            return None
        y = np.asarray(self.parts[1])
        if y.ndim == 2 and y.shape[1] > 1:
            y = y.argmax(axis=1)
        return np.unique(y.reshape(len(y), -1)[:, 0], return_inverse=True)[1]

    def weighted(self, class_weight: Any) -> KerasData:
        """The samples with weights from their own and from their classes'. Raises InvalidInput."""
        if class_weight is None:
            return self
        x, y, sample_weight = (*self.parts, None, None)[:3] if self.is_arrays else (None,) * 3
        if not isinstance(class_weight, dict) or y is None or isinstance(y, (list, dict, tuple)):
            raise InvalidInput(
                "class_weight must be a dict from class index to weight, for one target of "
                f"classes; got {type(class_weight).__name__} and a target of {type(y).__name__}. "
                "Use sample_weight instead."
            )
        y = np.asarray(y)
        if (
            y.ndim > 2
            or y.dtype.kind not in "biuf"
            or (sample_weight is not None and len(sample_weight) != len(y))
        ):
            raise InvalidInput(
                "class_weight needs one class index a sample, or a one-hot row, and sample_weight "
                f"one number for each; got a target of shape {y.shape} and dtype {y.dtype}. Use "
                "sample_weight alone."
            )
        classes = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y))
        weights = np.array([class_weight.get(int(c), 1.0) for c in classes], keras.config.floatx())
        if sample_weight is not None:
            weights = weights * np.asarray(sample_weight)
        return KerasData((x, y, weights))

    def first(self, validation_steps: int, batch_size: int) -> KerasData:
        """The samples of so many batches. Raises InvalidInput."""
        checks.number("validation_steps", validation_steps, integer=True, at_least=1)
        count = validation_steps * batch_size
        if self.is_arrays:
            return self.take(0, count)
        return KerasData(Subset(self.parts, range(min(count, len(self.parts)))), self.collate)

    def take(self, start: int, stop: int) -> KerasData:
        """Some of the samples."""
        return KerasData(keras.tree.map_structure(lambda part: part[start:stop], self.parts))


def _check_alone(dataset: Any, y: Any, sample_weight: Any) -> None:
    """Raise InvalidInput for what would be beside the samples of a Dataset."""
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise InvalidInput(
                "targets and weights belong in a dataset's samples, (x, y) or (x, y, weight); got "
                f"a {type(dataset).__name__} and {name}. Put {name} into its samples, or pass "
                "arrays."
            )


def _is_arrays(x: Any) -> bool:
    """Whether it is an array or a nest of arrays, rather than an object with samples."""
    if isinstance(x, dict):
        return all(map(_is_arrays, x.values()))
    if isinstance(x, (list, tuple)):
        return all(isinstance(part, (int, float, bool)) or _is_arrays(part) for part in x)
    return hasattr(x, "shape") or hasattr(x, "to_numpy")


def _of_list(part: Any) -> Any:
    """A list of numbers, or of lists of them, as an array; anything else as it is."""
    is_flat = isinstance(part, list) and all(
        isinstance(value, (int, float, bool, list)) for value in part
    )
    return np.asarray(part) if is_flat else part


def _is_text(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and any(isinstance(part, (str, bytes)) for part in x)


def split_off(
    data: KerasData, validation_data: Any, validation_split: float
) -> tuple[KerasData, KerasData | None]:
    """Training and validation samples; as in Keras, the last ones are split off."""
    checks.number("validation_split", validation_split, at_least=0, below=1)
    if validation_data is not None:
        if isinstance(validation_data, (tuple, list)):
            x, y, weight = (*validation_data, None, None)[:3]
            return data, KerasData.of(x, y, weight)
        return data, KerasData.of(validation_data)
    if not validation_split:
        return data, None
    if not data.is_arrays:
        raise InvalidInput(
            "validation_split needs arrays; got a dataset. Pass validation_data instead."
        )
    n_samples, *others = {len(part) for part in keras.tree.flatten(data.parts)}
    if others:
        raise InvalidInput(
            "all arrays of the data must have one row a sample; got lengths "
            f"{', '.join(map(str, [n_samples, *others]))}. Check that x and y belong together."
        )
    kept = int(np.floor(n_samples * (1 - validation_split)))
    if not 0 < kept < n_samples:
        raise InvalidInput(
            f"validation_split must leave samples on both sides; {validation_split} of {n_samples} "
            "does not. Use another part, or pass validation_data."
        )
    return data.take(0, kept), data.take(kept, n_samples)

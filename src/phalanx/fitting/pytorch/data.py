"""The user's data as samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from phalanx.data.samples import Samples
from phalanx.errors import InvalidInput
from phalanx.fitting.pytorch.loaders import unpacked
from phalanx.models.pytorch.batches import DatasetSamples, NestedSamples, RowsOf
from phalanx.pure.arrays import Array


def samples_of(data: Any, collate: Any, dtype: torch.dtype) -> Samples:
    """The samples of arrays, tensors, nests of them, a Dataset or a DataLoader.

    Raises InvalidInput for what is none of them.
    """
    if collate is not None and not callable(collate):
        raise InvalidInput(
            "collate must be a function from a list of samples to a batch; got "
            f"{collate!r} of type {type(collate).__name__}. Leave it out for torch's own."
        )
    if isinstance(data, (str, bytes)):
        raise InvalidInput(
            f"data must be arrays, tensors, a Dataset or a DataLoader; got {type(data).__name__} "
            f"{data[:40]!r}. Read the file first, or pass a Dataset that reads it."
        )
    floats = np.dtype(str(dtype).removeprefix("torch."))
    if collate is not None and is_tuple_of_arrays(data):
        data = RowsOf(NestedSamples.of(data, floats))
    is_dataset = collate is not None or is_list_of_samples(data)
    if isinstance(data, torch.utils.data.DataLoader):
        default = torch.utils.data.default_collate
        (data, its_own), is_dataset = unpacked(data), True
        collate = collate or (None if its_own is default else its_own)
    if isinstance(data, torch.utils.data.IterableDataset):
        raise InvalidInput(
            "data must be arrays, tensors, or a map-style Dataset; got an IterableDataset, whose "
            "samples cannot be visited once each by any number of workers. Give it __len__ and "
            "__getitem__."
        )
    if type(data) is torch.utils.data.TensorDataset and collate is None:
        return NestedSamples.of(tuple(data.tensors), floats)
    nests = (tuple, list, dict, np.ndarray, torch.Tensor)
    if not is_dataset and (isinstance(data, nests) or hasattr(data, "to_numpy")):
        return NestedSamples.of(data, floats)
    return DatasetSamples.of(data, collate)


def is_list_of_samples(data: Any) -> bool:
    """Whether it is a list with a tuple or a dict for each sample, rather than one of arrays."""
    return isinstance(data, list) and all(isinstance(part, (tuple, dict)) for part in data)


def is_tuple_of_arrays(data: Any) -> bool:
    """Whether it is such as (X, y), rather than a sequence of samples."""
    arrays = (np.ndarray, torch.Tensor)
    return isinstance(data, tuple) and any(
        isinstance(part, arrays) or hasattr(part, "to_numpy") for part in data
    )


def labels_of(samples: Samples) -> Array | None:
    """Class indices of the samples, where their last array is such, for stratifying."""
    if not isinstance(samples, NestedSamples):
        return None
    target = list(samples.arrays.values())[-1]
    is_class = target.ndim == 1 and target.dtype.kind in "iu"
    return np.unique(target, return_inverse=True)[1] if is_class else None

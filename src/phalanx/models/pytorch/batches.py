"""Samples for torch modules: nested arrays, or any map-style Dataset, taken a batch at a time.

`NestedSamples` are tensors or arrays in tuples, lists and dicts of any depth, all with one row a
sample. `DatasetSamples` are an object with `__getitem__` and `__len__`; the large arrays inside it
are kept apart, so that all workers of a host share one copy of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from phalanx.errors import InvalidInput, UserFunctionError
from phalanx.models.pytorch.byvalue import Pickler
from phalanx.models.pytorch.generators import seed_everything
from phalanx.models.pytorch.glimpse import glimpse
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.randomness import Key
from phalanx.references import opened

GLIMPSED = 16  # samples by which a dataset is known again
SHARED = 4096  # bytes from which an array inside a dataset is shared rather than copied


@dataclass(slots=True)
class Batch:
    """Some samples as the user's functions see them, and how many they are."""

    content: Any
    count: int


class Leaf(NamedTuple):
    """The place of one array in a nest of tuples, lists and dicts."""

    name: str


@dataclass(frozen=True)
class NestedSamples:
    """Arrays [n, ...] by the name of their leaf in `nest`."""

    arrays: dict[str, Any]
    n_samples: int
    nest: Any

    @property
    def by_rows(self) -> tuple[str, ...]:
        """All of them: see data/samples.py."""
        return tuple(leaf.name for leaf in leaves_of(self.nest))

    @classmethod
    def of(cls, data: Any, floats: np.dtype[Any]) -> NestedSamples:
        """Samples without a copy where possible; float64 and longer arrays of NumPy become
        `floats`, the dtype of the model. Raises InvalidInput."""
        arrays: dict[str, Array] = {}

        def flatten(part: Any, path: str) -> Any:
            if isinstance(part, dict):
                return {key: flatten(value, f"{path}[{key!r}]") for key, value in part.items()}
            if isinstance(part, (tuple, list)) and not _is_flat_list(part):
                return _like(part, [flatten(v, f"{path}[{i}]") for i, v in enumerate(part)])
            name = f"leaf{len(arrays)}"
            arrays[name] = _as_array(part, path, floats)
            return Leaf(name)

        nest = flatten(data, "data")
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1 or lengths == {0}:
            shapes = ", ".join(str(array.shape) for array in arrays.values()) or "no array at all"
            raise InvalidInput(
                "all arrays of the data must have one row a sample, and there must be at least one "
                f"sample; got shapes {shapes}. Check that X and y belong together."
            )
        return cls(arrays, lengths.pop(), nest)

    def glimpse(self) -> bytes:
        return b""

    def gatherer(self, max_rows: int) -> NestedGatherer:
        return NestedGatherer(self, max_rows)


def _is_flat_list(part: Any) -> bool:
    """Whether it is a list of numbers, or of lists of them, rather than of arrays."""
    return isinstance(part, list) and all(
        isinstance(value, (int, float, bool, np.generic, list)) for value in part
    )


def _as_array(part: Any, path: str, floats: np.dtype[Any]) -> Array:
    if isinstance(part, torch.Tensor):
        return _tensor_as_array(part, path)
    if hasattr(part, "to_numpy"):
        part = part.to_numpy()
    if hasattr(part, "tocsr"):
        raise InvalidInput(
            f"{path} must be a dense array or tensor; got a sparse {type(part).__name__}. "
            "Pass its .toarray(), or a Dataset that makes one sample dense at a time."
        )
    if np.ma.is_masked(part):
        raise InvalidInput(
            f"{path} must have a value in every place; got a masked array with "
            f"{int(np.sum(part.mask))} values masked. Pass its .filled(value), and the mask as one "
            "more array where a step= is to heed it."
        )
    try:
        array = np.asarray(part)
    except ValueError as error:
        raise InvalidInput(
            f"{path} must be an array with one row a sample; got {type(part).__name__} ({error}). "
            "Pad the samples to one length, or use a Dataset with a collate function."
        ) from error
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise InvalidInput(
            f"{path} must be an array of numbers with one row a sample; got {type(part).__name__} "
            f"of dtype {array.dtype} and shape {array.shape}. Encode the values as numbers first, "
            "or use a Dataset."
        )
    if array.dtype.kind == "f" and array.dtype.itemsize >= 8:
        array = array.astype(floats, copy=False)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _tensor_as_array(tensor: torch.Tensor, path: str) -> Array:
    if tensor.is_sparse or tensor.ndim == 0:
        raise InvalidInput(
            f"{path} must be a dense tensor with one row a sample; got "
            f"{'a sparse tensor' if tensor.is_sparse else 'a scalar'}. Pass its .to_dense()."
        )
    try:
        return tensor.detach().cpu().contiguous().numpy()
    except TypeError:
        raise InvalidInput(
            f"{path} must be of a dtype that NumPy knows; got {tensor.dtype}. Convert it, e.g. by "
            ".float(), and pass precision='bf16' to compute in bfloat16."
        ) from None


def leaves_of(nest: Any) -> list[Leaf]:
    """The places of a nest in which arrays are."""
    if isinstance(nest, Leaf):
        return [nest]
    parts = nest.values() if isinstance(nest, dict) else nest
    return [leaf for part in parts for leaf in leaves_of(part)]


def _filled(nest: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(nest, Leaf):
        return tensors[nest.name]
    if isinstance(nest, dict):
        return {key: _filled(part, tensors) for key, part in nest.items()}
    return _like(nest, [_filled(part, tensors) for part in nest])


def _like(nest: Any, parts: list[Any]) -> Any:
    """The parts in a list or tuple of the kind that `nest` is."""
    if hasattr(nest, "_fields"):
        return type(nest)(*parts)
    return tuple(parts) if isinstance(nest, tuple) else parts


class NestedGatherer:
    """Takes rows of every array into buffers of its own, which the next call overwrites. What holds
    them is new each time: a step may ask for gradients, or take something out."""

    def __init__(self, samples: NestedSamples, max_rows: int) -> None:
        self.arrays, self.nest = samples.arrays, samples.nest
        self._buffers = {
            name: aligned_empty((max_rows, *array.shape[1:]), array.dtype)
            for name, array in samples.arrays.items()
        }

    def rows(self, index_B: Array, key: Key | None = None) -> Batch:
        """The samples that `index_B` names, in its order."""
        count = len(index_B)
        for name, array in self.arrays.items():
            array.take(index_B, axis=0, out=self._buffers[name][:count], mode="clip")
        views = {name: torch.from_numpy(b[:count]) for name, b in self._buffers.items()}
        return Batch(_filled(self.nest, views), count)


class RowsOf:
    """Nested arrays as a map-style dataset, for a collate function: a sample is a row of each."""

    def __init__(self, samples: NestedSamples) -> None:
        self._arrays, self._nest = samples.arrays, samples.nest
        self._n_samples = samples.n_samples

    def __len__(self) -> int:
        return self._n_samples

    def __getitem__(self, index: int) -> Any:
        rows = {name: torch.from_numpy(np.array(a[index])) for name, a in self._arrays.items()}
        return _filled(self._nest, rows)


@dataclass(frozen=True)
class DatasetSamples:
    """A map-style dataset: `packed` is its pickle without the large arrays, which are `arrays`."""

    arrays: dict[str, Any]
    n_samples: int
    packed: bytes
    by_rows: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, dataset: Any, collate: Callable[[list[Any]], Any] | None) -> DatasetSamples:
        """Raises InvalidInput for what is no map-style dataset, or cannot be pickled."""
        try:
            n_samples = len(dataset)
        except TypeError as error:
            raise InvalidInput(
                "data must be arrays, tensors, or a map-style Dataset with __len__ and "
                f"__getitem__; got {type(dataset).__name__} ({error}). Samples of a stream cannot "
                "be counted once each; give it a length and access by index."
            ) from error
        if n_samples == 0:
            raise InvalidInput(f"the dataset must have samples; {type(dataset).__name__} has none.")
        packer = _Packer()
        try:
            packed = packer.pickled((dataset, collate))
        except Exception as error:
            raise InvalidInput(
                "a dataset and its collate function must be picklable, so that workers can have "
                f"their own; got {type(dataset).__name__} ({type(error).__name__}: {error}). Open "
                "files and connections in __getitem__, or leave them out in __getstate__."
            ) from error
        return cls(packer.arrays, n_samples, packed)

    def glimpse(self) -> bytes:
        """See models/pytorch/glimpse.py."""
        step = -(-self.n_samples // GLIMPSED)
        return glimpse(self.gatherer(1).sample, range(0, self.n_samples, step))

    def gatherer(self, max_rows: int) -> DatasetGatherer:
        return DatasetGatherer(self)


class DatasetGatherer:
    """Asks the dataset for samples one by one and puts them together."""

    def __init__(self, samples: DatasetSamples) -> None:
        self.dataset, collate = _Unpacker(samples.packed, samples.arrays).load()
        self.collate = collate or torch.utils.data.default_collate

    def rows(self, index_B: Array, key: Key | None = None) -> Batch:
        """The samples that `index_B` names. What they draw from torch's, NumPy's and Python's
        generators depends on step and shard alone."""
        if key is not None:
            seed_everything(key.number(1))
        samples = [self.sample(i) for i in index_B.tolist()]
        try:
            return Batch(self.collate(samples), len(samples))
        except Exception as error:
            raise UserFunctionError(
                f"samples {index_B[:10].tolist()} ... could not be put into one batch: "
                f"{type(error).__name__}: {error}. All samples need one shape; else pass "
                "collate=, a function from a list of samples to a batch."
            ) from error

    def sample(self, index: int) -> Any:
        """One of them. Raises UserFunctionError, which names it."""
        try:
            return self.dataset[index]
        except Exception as error:
            raise UserFunctionError(
                f"a Dataset must return the sample of every index below its length; "
                f"{type(self.dataset).__name__}[{index}] raised {type(error).__name__}: {error}."
            ) from error


class _Packer(Pickler):
    """Pickles by value where need be, large arrays and tensors apart."""

    def __init__(self) -> None:
        super().__init__()
        self.arrays: dict[str, Array] = {}

    def persistent_id(self, part: Any) -> Any:
        array = _shareable(part)
        if array is None:
            return None
        name = f"array{len(self.arrays)}"
        self.arrays[name] = array
        return "tensor" if isinstance(part, torch.Tensor) else "array", name


def _shareable(part: Any) -> Array | None:
    """A large array or tensor as an array; None for what is to be pickled as it is."""
    if type(part) is torch.Tensor and part.layout is torch.strided and part.device.type == "cpu":
        if part.requires_grad or part.is_conj() or part.dtype is torch.bfloat16:
            return None
        part = part.contiguous().numpy()
    fits = type(part) in (np.ndarray, np.memmap) and part.dtype.kind in "biuf"
    return part if fits and part.nbytes >= SHARED and part.flags.c_contiguous else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, packed: bytes, arrays: dict[str, Any]) -> None:
        super().__init__(opened(packed))
        self._arrays = arrays

    def persistent_load(self, key: Any) -> Any:
        kind, name = key
        array = self._arrays[name]
        return torch.from_numpy(array) if kind == "tensor" else array


def first_rows(samples: Any, count: int) -> Batch:
    """The first few samples, for a trial."""
    count = min(count, samples.n_samples)
    taken: Batch = replace(samples).gatherer(count).rows(np.arange(count))
    return taken

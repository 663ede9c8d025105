"""Arrays, tensors and variables of Keras, whatever backend this process has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch

from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array


def as_numpy(content: Any) -> Any:
    """Tensors as arrays."""
    return keras.tree.map_structure(numpy_of, content)


def as_tensors(content: Any) -> Any:
    """Arrays as tensors of this process's backend."""
    return keras.tree.map_structure(keras.ops.convert_to_tensor, content)


def numpy_of(value: Any) -> Array:
    """A variable or tensor as an array of its own."""
    return np.require(keras.ops.convert_to_numpy(value), requirements=["OWNDATA", "WRITEABLE"])


def glance_at(variable: Any) -> Array:
    """A variable's values, to be read at once: without a copy, where torch has them in memory."""
    value = keras.ops.convert_to_tensor(variable)
    if isinstance(value, torch.Tensor) and value.is_cpu and value.dtype is not torch.bfloat16:
        return value.detach().numpy()
    return np.asarray(keras.ops.convert_to_numpy(value))


def assign(variable: Any, tensor: torch.Tensor) -> None:
    """Give a variable the values of a tensor of torch, whose memory it does not keep."""
    copies = keras.backend.backend() == "torch"  # others may take an array's memory as theirs
    variable.assign(tensor if copies else np.array(tensor))


def empty_like(variable: Any) -> torch.Tensor:
    """A tensor of torch with a variable's shape and dtype."""
    dtype = getattr(torch, keras.backend.standardize_dtype(variable.dtype))
    return torch.empty(tuple(variable.shape), dtype=dtype)


def dtype_of(variables: list[Any]) -> torch.dtype:
    """The one dtype of all variables that are trained. Raises InvalidInput."""
    dtypes = {keras.backend.standardize_dtype(v.dtype) for v in variables}
    if len(dtypes) != 1 or not dtypes <= {"float32", "float64"}:
        raise InvalidInput(
            "all weights must be of one dtype, float32 or float64; got "
            f"{', '.join(sorted(dtypes))}. Use the policy 'float32' or 'mixed_bfloat16'."
        )
    return getattr(torch, dtypes.pop())  # type: ignore[no-any-return]

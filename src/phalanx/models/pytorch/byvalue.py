"""Pickles of what a script or notebook defines, which leave its classes as they are.

cloudpickle sends such classes by value, and where the receiving process knows the class already,
sets its attributes anew. In the caller's own process that would replace the methods of the user's
class by copies, which no longer see the globals that the user changes.
"""

from __future__ import annotations

import copyreg
from typing import Any
from uuid import uuid4

import torch
from cloudpickle import cloudpickle as details

from phalanx import references


def _torch_ops() -> Any:
    return torch.ops


# A function that names both `torch` and `ops` (of Keras, say) has cloudpickle look for torch.ops,
# a module that cannot be imported.
copyreg.pickle(type(torch.ops), lambda ops: (_torch_ops, ()))


class Pickler(references.Pickler):
    """Classes that it sends by value come out as classes of their own, one a process."""

    def __init__(self) -> None:
        super().__init__()
        self._token = uuid4().hex

    def reducer_override(self, part: Any) -> Any:
        reduced = super().reducer_override(part)
        if not isinstance(part, type) or not isinstance(reduced, tuple):
            return reduced
        known = details._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(part)
        make, arguments, *rest = reduced
        own = tuple(f"{known}-{self._token}" if a is known else a for a in arguments)
        return (make, own if known else arguments, *rest)


def dumps(value: Any) -> bytes:
    """The pickle of a value, for `references.loads`."""
    return Pickler().pickled(value)

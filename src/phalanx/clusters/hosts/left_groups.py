"""Process groups that are left: given back once nothing is under way in them.

An operation that another host's failure has broken off may end a moment later, or not at all; a
group that is given back before would keep this process for as long as that may last.
"""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol


class Operation(Protocol):
    """What may still be under way. views: of its tensors."""

    views: list[Any]

    def is_over(self) -> bool:
        """Whether nothing of it is under way, given a moment."""


_left: list[tuple[Any, Sequence[Operation]]] = []
_giving = Lock()  # a group that comes about too late is left in the thread of its meeting


def give_back(group: Any, operations: Sequence[Operation]) -> None:
    """Sockets and threads of a group, and of those left before, in which nothing is under way."""
    with _giving:
        _left.append((group, operations))
        for each in [*_left]:
            left, under_way = each
            if all(operation.is_over() for operation in under_way):
                left.shutdown()
                _left.remove(each)


@atexit.register
def _abandon() -> None:
    """What is stuck may end while Python does, or not at all."""
    for group, operations in _left:
        for kept in (group, *(view for operation in operations for view in operation.views)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))

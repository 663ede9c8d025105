"""Process groups that are left: given back once nothing is under way in them.

An operation that another host's failure has broken off may end a moment later, or not at all; a
group that is given back before would keep this process for as long as that may last.
"""

from __future__ import annotations

import atexit
import ctypes
import os
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


def abandon(*kept: Any) -> None:
    """Never free these: who frees a group waits for its threads."""
    for each in kept:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


@atexit.register
def _abandon_left() -> None:
    """What is stuck may end while Python does, or not at all."""
    for group, operations in _left:
        abandon(group, *(view for operation in operations for view in operation.views))


def _afresh() -> None:
    """In a forked child, which has none of the threads: the groups are its parent's."""
    global _giving
    _giving = Lock()
    _abandon_left()
    _left.clear()


os.register_at_fork(after_in_child=_afresh)

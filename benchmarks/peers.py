"""Processes of their own, told by a pipe when to run.

They live through all rounds, so that launching them is not counted, and between rounds they sleep
on their pipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


class Peers:
    """See contestants.py: Contestant. One process for each of the arguments, which get a pipe."""

    def __init__(self, serve: Callable[..., None], arguments: Iterable[tuple[Any, ...]]) -> None:
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for more in arguments:
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, *more), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def round(self, epochs: int) -> float:
        for pipe in self._pipes:
            pipe.send(epochs)
        return max(float(pipe.recv()) for pipe in self._pipes)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


def told(pipe: Connection) -> int | None:
    """Epochs of the next round; None when there is none, or nobody left to ask for one."""
    try:
        epochs: int | None = pipe.recv()
    except EOFError:
        return None
    return epochs

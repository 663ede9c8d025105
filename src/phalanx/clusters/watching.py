"""Somebody who looks at the arena while the caller's own process computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from phalanx.arena import Arena
from phalanx.clusters.base import Watch
from phalanx.clusters.supervisor import GLANCE


@contextmanager
def watched(arena: Arena, watch: Watch | None) -> Iterator[None]:
    """Within it, a thread calls `watch` about twenty times a second; it is over at the end.

    An exception of `watch` is raised at the end. Nobody looks where no thread can be had.
    """
    if watch is None:
        yield
        return
    is_over = threading.Event()
    failed: list[BaseException] = []

    def look() -> None:
        try:
            while not is_over.wait(GLANCE):
                watch(arena)
        except BaseException as error:
            failed.append(error)

    thread = started("phalanx-watch", look)
    try:
        yield
    finally:
        is_over.set()
        if thread is not None:
            thread.join()
    if failed:
        raise failed[0]


def started(name: str, work: Callable[..., None], *args: Any) -> threading.Thread | None:
    """A thread that does some work beside this one; None where the system has no more of them."""
    thread = threading.Thread(target=work, args=args, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread

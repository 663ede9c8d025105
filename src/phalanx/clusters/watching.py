"""Somebody who looks at the arena while the caller's own process computes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from phalanx.arena import Arena
from phalanx.clusters.base import Watch
from phalanx.clusters.supervisor import GLANCE


@contextmanager
def watched(arena: Arena, watch: Watch | None) -> Iterator[None]:
    """Within it, a thread calls `watch` about twenty times a second; it is over at the end.

    An exception of `watch` is raised at the end.
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

    thread = threading.Thread(target=look, name="phalanx-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    if failed:
        raise failed[0]

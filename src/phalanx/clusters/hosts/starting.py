"""Threads without which a host cannot train with others."""

from __future__ import annotations

import threading

from phalanx.errors import PhalanxError


def must_start(thread: threading.Thread) -> None:
    """Start it. Raises PhalanxError where the system has no room for one more."""
    try:
        thread.start()
    except RuntimeError as error:
        raise PhalanxError(
            "a host needs threads to train with others; the system had no room for one more "
            f"({error}). End others, or raise the limit (ulimit -u, or a container's pids.max)."
        ) from error

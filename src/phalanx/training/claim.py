"""A folder of checkpoints belongs to one training at a time: a second would delete the first's.

The lock is the folder's own, so that no file tells of it and none is left, and the kernel gives it
back with the process. Where a system or a file system (NFS) has no such locks, nobody is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phalanx.errors import CheckpointError

try:
    import fcntl
except ImportError:  # there is none on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within it, nobody else can claim the folder. Raises CheckpointError where somebody has."""
    if fcntl is None:
        yield
        return
    descriptor, owner = os.open(folder, os.O_RDONLY), os.getpid()
    try:
        _lock(descriptor, folder)
        yield
    finally:
        if os.getpid() == owner:  # a child that the user's code has forked has it open, too
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CheckpointError(
            f"a checkpoint folder belongs to one training at a time; another one, which has not "
            f"ended, writes to {folder}. Wait for it, end it, or choose another folder."
        ) from error
    except OSError:
        pass

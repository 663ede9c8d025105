"""Files that are whole or not there, whenever their writer is killed."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def hidden(name: re.Pattern[str]) -> re.Pattern[str]:
    """The names under which files of such names are written where the system has no nameless ones;
    `pid` is who writes."""
    return re.compile(rf"\.{name.pattern}\.(?P<pid>[1-9][0-9]{{0,8}})")


def prepare(folder: Path, temporary: re.Pattern[str]) -> None:
    """Make the folder if it is missing, clear it of what the killed left under names that
    `temporary` matches, and try to write to it. Raises OSError."""
    missing = [level for level in (folder, *folder.parents) if not level.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder, temporary)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
        _write(probe.fileno(), [bytes(1)])
    for changed in {folder, *(level.parent for level in missing)}:
        with _opened(changed, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)


def write(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Write a file to last, in place of one of that name, if any. Raises OSError."""
    with _opened(path.parent, os.O_RDONLY) as folder:
        if path.exists() or not _linked(path, folder, parts):
            _renamed(path, parts)
        os.fsync(folder)


def _linked(path: Path, folder: int, parts: Sequence[bytes | memoryview]) -> bool:
    """Write a file that has no name until it is whole; False where the system has no such files."""
    try:
        nameless = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except OSError:
        return False
    try:
        _write(nameless, parts)
        with contextlib.suppress(OSError):  # the name was taken meanwhile, or there is no /proc
            # With a folder's descriptor Python calls linkat, which follows links; link does not.
            os.link(f"/proc/self/fd/{nameless}", path.name, dst_dir_fd=folder, follow_symlinks=True)
            return True
        return False
    finally:
        os.close(nameless)


def _renamed(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Write a file under a hidden name, which `prepare` knows, until it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            _write(descriptor, parts)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _write(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path, temporary: re.Pattern[str]) -> None:
    for name in os.listdir(folder):
        leftover = temporary.fullmatch(name)
        if leftover and not _writes(int(leftover["pid"])):
            (folder / name).unlink(missing_ok=True)


def _writes(pid: int) -> bool:
    """Whether a living process other than this one, which is about to start, has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()

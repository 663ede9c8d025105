"""Where a fit is kept, and what it goes on from: `checkpoint`, `checkpoint_every` and `resume`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import InvalidInput
from phalanx.pure.cadence import parse_cadence
from phalanx.training import checkpoint
from phalanx.training.checkpoint import Saved
from phalanx.training.following import Checkpoints

EVERY = "60 seconds"


@dataclass(frozen=True)
class Keeping:
    """Where a fit is kept, and what it goes on from."""

    checkpoints: Checkpoints | None
    saved: Saved | None


def keeping(folder: Any, every: Any, resume: Any, extra: dict[str, Any]) -> Keeping:
    """The arguments `checkpoint`, `checkpoint_every` and `resume` of a fit, checked.

    `extra` is kept for whoever goes on from the checkpoints of this fit; a fit that has itself gone
    on from one keeps what that one has.
    Raises InvalidInput, or CheckpointError where a file or folder cannot be used.
    """
    where = _folder(folder)
    if where is None and every is not None:
        raise InvalidInput(
            f"checkpoint_every needs a folder to write to; got {every!r} without one. "
            "Pass e.g. checkpoint='checkpoints'."
        )
    cadence = parse_cadence(EVERY if every is None else every)
    saved = _saved(resume, where)
    if where is not None:
        checkpoint.check_folder(where)
        _check_own(where, saved)
    if saved is not None:
        extra = saved.facts.get("extra", extra)
    checkpoints = where and Checkpoints(where, cadence, extra)
    return Keeping(checkpoints or None, saved)


def _check_own(where: Path, saved: Saved | None) -> None:
    """Raise InvalidInput for a folder with checkpoints of another training than the one that is
    gone on with: as steps are made, they would be deleted."""
    newest = checkpoint.newest(where)
    if newest is None or (saved is not None and _is_in(where, saved.path)):
        return
    given = "" if saved is None else f", while this training goes on from {saved.path}"
    raise InvalidInput(
        f"a training needs a checkpoint folder of its own; {where} already holds {newest}{given}. "
        "Pass resume=True to go on from that one, choose another folder, or delete it."
    )


def _is_in(folder: Path, file: Path) -> bool:
    return file.parent.resolve() == folder.resolve()


def _folder(given: Any) -> Path | None:
    return None if given is None else _path("checkpoint must be the path of a folder", given)


def _path(rule: str, given: Any) -> Path:
    """The path as it is now: a callback may change the process's working directory.

    Raises InvalidInput for what is none.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise InvalidInput(
            f"{rule}; got {given!r} of type {type(given).__name__}. Pass e.g. 'checkpoints'."
        )
    text = os.fspath(given)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidInput(
            f"{rule}, a text that is not empty and has no null character; got {given!r}. "
            "Pass e.g. 'checkpoints', or '.' for this folder."
        )
    return Path(text).absolute()


def _saved(resume: Any, where: Path | None) -> Saved | None:
    """The checkpoint to go on from; with True, the newest of the folder, if there is any."""
    if resume is None or resume is False:
        return None
    if resume is not True:
        rule = "resume must be True, or the path of a checkpoint or of a folder of them"
        return checkpoint.load(_path(rule, resume))
    if where is None:
        raise InvalidInput(
            "resume=True goes on from the folder that checkpoint= names; got none. Pass both, or "
            "the path of a checkpoint as resume."
        )
    return None if checkpoint.newest(where) is None else checkpoint.load(where)

"""What `phalanx train` is told about checkpoints, checked, as its estimator's `fit` wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phalanx.errors import InvalidInput


def keeping(folder: Path | None, every: str | None, resume: bool) -> dict[str, Any]:
    """The arguments of `fit` that the options mean. Raises InvalidInput, or CheckpointError."""
    from phalanx.pure.cadence import parse_cadence

    if folder is None:
        _check_none(every, resume)
        return {}
    if every is not None:
        parse_cadence(_number_or_text(every), "--checkpoint-every")
    if not resume:
        _check_new(folder)
    wanted = None if every is None else _number_or_text(every)
    return {"checkpoint": folder, "checkpoint_every": wanted, "resume": resume}


def how_to_go_on(out: Path | None) -> str:
    """What to do after a training with checkpoints was interrupted."""
    another = "" if out is None else " and another --out"
    return f"to go on from here, give the same command with --resume{another}"


def _number_or_text(every: str) -> int | str:
    return int(every) if every.isdecimal() else every


def _check_none(every: str | None, resume: bool) -> None:
    given = ["--checkpoint-every"] if every is not None else []
    given += ["--resume"] if resume else []
    if given:
        raise InvalidInput(
            f"{' and '.join(given)} can be used with a folder of checkpoints; got none. "
            "Add --checkpoint DIR."
        )


def _check_new(folder: Path) -> None:
    from phalanx.training.checkpoint import newest

    if (found := newest(folder)) is not None:
        raise InvalidInput(
            f"a new training needs a checkpoint folder of its own; {folder} already holds "
            f"{found.name}. Add --resume to go on from it, choose another folder, or delete that "
            "one."
        )

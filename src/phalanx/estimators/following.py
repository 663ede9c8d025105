"""What a fit is told beside its data: who follows it, where it is kept, what it goes on from."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from phalanx.arena import Arena
from phalanx.clusters.base import Watch
from phalanx.clusters.control import Control
from phalanx.clusters.ray.cluster import RayCluster, check_cluster
from phalanx.errors import CheckpointError, InvalidInput
from phalanx.exchange.board import OPENED
from phalanx.pure.cadence import parse_cadence
from phalanx.pure.tuner import Tuner
from phalanx.training import checkpoint
from phalanx.training.checkpoint import Saved
from phalanx.training.following import Checkpoints, OnEpoch

EVERY = "60 seconds"


@dataclass(frozen=True)
class Wishes:
    """The arguments of `fit` that are neither samples nor weights."""

    validation_data: Any = None
    callback: OnEpoch | None = None
    checkpoint: Any = None
    checkpoint_every: Any = None
    resume: Any = None
    cluster: RayCluster | None = None

    def __post_init__(self) -> None:
        check_cluster(self.cluster)
        if self.callback is not None and not callable(self.callback):
            raise InvalidInput(
                "callback must be a function (epoch, record) that returns True to stop, or None; "
                f"got {self.callback!r:.200}."
            )

    def check_none_for(self, solver: str) -> None:
        """Raise InvalidInput where there is one that only a training by batches can carry out."""
        given = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        if given:
            raise InvalidInput(
                f"{', '.join(given)} can be used where the network is trained step by step; got "
                f"solver={solver!r}, whose steps are SciPy's own. Use e.g. solver='adam'."
            )


@dataclass(frozen=True)
class Keeping:
    """Where a fit is kept, and what it goes on from."""

    checkpoints: Checkpoints | None
    saved: Saved | None


def keeping(folder: Any, every: Any, resume: Any, extra: dict[str, Any]) -> Keeping:
    """The arguments `checkpoint`, `checkpoint_every` and `resume` of a fit, checked.

    `extra` is kept for whoever goes on from the checkpoints of this fit.
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


def packed_state(random_state: np.random.RandomState) -> dict[str, Any]:
    """A random state as plain JSON, for `random_state_of`."""
    packed: dict[str, Any] = _plain(random_state.get_state(legacy=False))
    return packed


def random_state_of(saved: Saved, asked: Any) -> np.random.RandomState:
    """The random state that the checkpoint's own fit began with, so that all draws are the same.

    asked: the estimator's parameter. Raises CheckpointError where that is a number and the
    checkpoint began with another, or where the checkpoint is not one of an estimator's fit.
    """
    try:
        packed = saved.facts["extra"]["random_state"]
        state = np.random.RandomState(getattr(np.random, packed["bit_generator"])())
        state.set_state(_in_arrays(packed))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"a fit can go on from a checkpoint that a fit wrote; {saved.path} has no random state "
            "of one. Pass another checkpoint."
        ) from error
    if isinstance(asked, Integral):
        _check_number(saved, state, asked)
    return state


def _plain(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _plain(value) for name, value in part.items()}
    return np.asarray(part).tolist()


def _in_arrays(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _in_arrays(value) for name, value in part.items()}
    return np.array(part, np.uint64) if isinstance(part, list) else part


def _check_number(saved: Saved, state: np.random.RandomState, asked: Integral) -> None:
    if packed_state(state) != packed_state(np.random.RandomState(int(asked))):
        raise CheckpointError(
            "a fit goes on from a checkpoint with the random_state that it was begun with; "
            f"{saved.path} began with another one than {asked}. Use that of the checkpoint, or "
            "start anew without resume."
        )


def tuned(control: Control, watch: Watch | None) -> Watch:
    """A watch that changes the number of workers until the training runs quickest."""
    tuner = Tuner(control.workers)

    def look(arena: Arena) -> None:
        if watch is not None:
            watch(arena)
        wanted = tuner.look(monotonic(), int(arena["door"][OPENED]))
        if wanted != control.workers:
            control.resize(wanted)

    return look

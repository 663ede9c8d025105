"""How a fit began: its checkpoints keep it, so that whoever goes on from one begins alike."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from phalanx.errors import CheckpointError
from phalanx.training.checkpoint import Saved


@dataclass(frozen=True)
class Beginning:
    """random_state: from which nothing has been drawn yet. is_first: whether with a new network, or
    else with one that had learnt. epochs, scores: of which the estimator had curves by then."""

    random_state: np.random.RandomState
    is_first: bool
    epochs: int
    scores: int

    def packed(self) -> dict[str, Any]:
        """As plain JSON, for `beginning_of`."""
        return {
            "random_state": _packed_state(self.random_state),
            "is_first": self.is_first,
            "epochs": self.epochs,
            "scores": self.scores,
        }


def beginning_of(saved: Saved, asked: Any) -> Beginning:
    """How the checkpoint's own fit began, so that all draws are the same.

    asked: the estimator's `random_state`. Raises CheckpointError where that is a number and the
    checkpoint began with another, or where the checkpoint is not one of an estimator's fit.
    """
    try:
        packed = saved.facts["extra"]
        state = _state_of(packed["random_state"])
        found = Beginning(state, packed["is_first"], packed["epochs"], packed["scores"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"a fit can go on from a checkpoint that a fit wrote; {saved.path} has no random state "
            "of one, or does not say how it began. Pass another checkpoint."
        ) from error
    if isinstance(asked, Integral):
        _check_number(saved, state, asked)
    return found


def _packed_state(random_state: np.random.RandomState) -> dict[str, Any]:
    packed: dict[str, Any] = _plain(random_state.get_state(legacy=False))
    return packed


def _state_of(packed: dict[str, Any]) -> np.random.RandomState:
    state = np.random.RandomState(getattr(np.random, packed["bit_generator"])())
    state.set_state(_in_arrays(packed))
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
    if _packed_state(state) != _packed_state(np.random.RandomState(int(asked))):
        began = _number_of(state)
        known = "a state that no number makes" if began is None else f"random_state={began}"
        raise CheckpointError(
            "a fit goes on from a checkpoint with the random_state that it was begun with; "
            f"{saved.path} began with {known}, not {asked}. Use that of the checkpoint (or None), "
            "or start anew without resume."
        )


def _number_of(state: np.random.RandomState) -> int | None:
    """The number that a fresh state was made of: the first of its words, if it was one at all."""
    packed = _packed_state(state)
    if packed["bit_generator"] != "MT19937":
        return None
    first: int = packed["state"]["key"][0]
    return first if packed == _packed_state(np.random.RandomState(first)) else None

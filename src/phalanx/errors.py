"""What can go wrong, as one family tree.

Every message states the rule, what was received, and what to do next.

    PhalanxError
    ├── InvalidInput (a ValueError)     arguments or data break a rule; nothing was started
    │   └── HostsDiffer                 hosts do not agree on what they are to train, or compute by
    ├── UserFunctionError               a function of the caller's raised, or returned nonsense
    ├── WorkerError                     an exception inside a worker, with its traceback and rank
    ├── NonFiniteLoss                   the loss of a shard is NaN or infinite
    ├── WorkerLost                      a task has ended several processes in a row
    ├── HostLost                        another host has failed, or is out of reach
    │   └── TooFewHosts                 a cluster has not enough of them
    ├── CheckpointError (an OSError)    a checkpoint cannot be written, read or gone on from
    └── RunFolderError (an OSError)     a run's folder cannot be written or read
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PhalanxError(Exception):
    """Root of every exception that Phalanx raises on purpose."""


class InvalidInput(PhalanxError, ValueError):
    """An argument, the data, or what a callback has changed breaks a rule.

    Where it is an argument or the data, nothing was started.
    """


class HostsDiffer(InvalidInput):
    """The hosts of a training do not agree on what decides its answer. Nothing was started, but for
    L-BFGS, whose hosts look again before each evaluation."""


class UserFunctionError(PhalanxError):
    """A function that the caller passed raised, or returned what cannot be used."""


class WorkerError(PhalanxError):
    """An exception inside a worker; `rank` names the worker, `worker_traceback` is its own."""

    def __init__(self, rank: int, summary: str, worker_traceback: str) -> None:
        super().__init__(rank, summary, worker_traceback)
        self.rank = rank
        self.summary = summary
        self.worker_traceback = worker_traceback

    def __str__(self) -> str:
        return (
            f"worker {self.rank} raised {self.summary}. Its traceback:\n\n{self.worker_traceback}"
        )


class WorkerLost(PhalanxError):
    """One task ended or stopped several processes in a row; the fault is the task's, or the data's.

    rank, pid: of the last of them. task: what they were at. samples: indices of the samples that
    the task reads, where it is a shard. The run's memory was given back.
    """

    def __init__(self, rank: int, pid: int, task: str, cause: str, samples: list[int]) -> None:
        super().__init__(rank, pid, task, cause, samples)
        self.rank, self.pid = rank, pid
        self.task, self.cause, self.samples = task, cause, samples

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.samples[:20])) + (", ..." if len(self.samples) > 20 else "")
        which = f" Its samples are {shown} (`samples` has them all)." if self.samples else ""
        return (
            f"a task must not end the processes that do it; worker {self.rank} (pid {self.pid}) "
            f"was not the first one lost while {self.task}: {self.cause}.{which} The run was "
            "stopped and its memory given back. Look at the data and the functions of that task, "
            "or at the host's memory."
        )


class HostLost(PhalanxError):
    """Another host has failed, has ended, or is out of reach; `host` is its number, where known.

    This host stands at the last step that all hosts have committed.
    """

    def __init__(self, host: int | None, what: str) -> None:
        super().__init__(host, what)
        self.host, self.what = host, what

    @property
    def brief(self) -> str:
        """Who, and what has become of it."""
        which = "another host" if self.host is None else f"host {self.host}"
        return f"{which} {self.what}"

    def __str__(self) -> str:
        return (
            f"all hosts must stay until the training ends; {self.brief}. Start the program "
            "again on all of them; with a checkpoint folder and resume=True it goes on from there."
        )


class TooFewHosts(HostLost):
    """A cluster has had fewer hosts than `min_hosts` for longer than its `patience`."""

    def __init__(
        self, wanted: int, there: int, seconds: float, room: str, last_end: str = ""
    ) -> None:
        super().__init__(None, f"is needed: {there} of {wanted}")
        self.args = wanted, there, seconds, room, last_end
        self.wanted, self.there, self.seconds, self.room = wanted, there, seconds, room
        self.last_end = last_end

    def __str__(self) -> str:
        return (
            f"min_hosts={self.wanted} nodes with {self.room} must be there; for "
            f"{self.seconds:.0f} s there were {self.there}. Add nodes, ask for fewer hosts, or for "
            f"less of each.{self._last_end()} A training that was under way goes on from its "
            "checkpoint folder, if it had one, with resume=True."
        )

    def _last_end(self) -> str:
        return f" The last one to be lost: {self.last_end.rstrip('.')}." if self.last_end else ""


class NonFiniteLoss(PhalanxError):
    """The loss of a shard is NaN or infinite. step: optimiser steps made before; epoch, shard: from
    0. The parameters are those of the last step that was committed."""

    def __init__(self, loss: float, step: int, epoch: int, shard: int) -> None:
        super().__init__(loss, step, epoch, shard)
        self.loss, self.step, self.epoch, self.shard = loss, step, epoch, shard

    def __str__(self) -> str:
        return (
            f"the loss must be finite; it is {self.loss} at step {self.step} (epoch {self.epoch}, "
            f"shard {self.shard}, all counted from 0). The parameters are those before that step. "
            "Lower the learning rate, clip the gradient (clip_norm=1.0), look at the data, or pass "
            "nonfinite='skip' to leave such steps out."
        )


class CheckpointError(PhalanxError, OSError):
    """A checkpoint cannot be written, is damaged, or is of another training or a newer format."""


class RunFolderError(PhalanxError, OSError):
    """A run's folder cannot be written or read."""


def unknown_name(what: str, given: object, known: Iterable[str]) -> InvalidInput:
    """The error for a name that no table holds, with the nearest known one.

    >>> str(unknown_name("activation", "rellu", ["relu", "tanh"]))
    "activation must be one of 'relu', 'tanh'; got 'rellu'. Did you mean 'relu'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(given).lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InvalidInput(
        f"{what} must be one of {', '.join(map(repr, names))}; got {given!r}.{hint}"
    )

"""The hosts that the program was launched on: this process's membership in their group."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from threading import Lock
from typing import Any, Protocol

from phalanx.clusters.hosts.launch import JOINED, launch
from phalanx.clusters.hosts.left_groups import abandon
from phalanx.clusters.hosts.meeting import meet
from phalanx.errors import HostLost, InvalidInput
from phalanx.exchange.group import Group


class Hosts(Protocol):
    """How a training gets its group."""

    def join(self) -> Group | None:
        """The group, with all its hosts in it; None where this host is alone.

        Raises HostLost where one of them does not come.
        """

    def next(self, group: Group | None, lost: HostLost | None) -> Group | None:
        """The group of the next session: the same one, or another that takes its place.

        Raises `lost`, the end of the old one, where there is to be no other.
        """


class Launched:
    """By torchrun, by SLURM, or by hand. The group lasts for as long as nobody is lost."""

    def __init__(self) -> None:
        self._group: Any = None
        self._joining = Lock()

    def join(self) -> Group | None:
        how = launch()
        if how is None:
            return None
        with self._joining:
            if self._group is None:
                self._group = meet(how)
                claim()
                atexit.register(self._leave)
        self._group.check()
        return self._group  # type: ignore[no-any-return]

    def next(self, group: Group | None, lost: HostLost | None) -> Group | None:
        """Nobody is there to say who trains on, so the program ends, and may be started again."""
        if lost is None:
            return group
        self._leave()
        raise lost

    def _leave(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.leave()

    def forget(self) -> None:
        """In a forked child: the group is its parent's, with all its threads."""
        abandon(self._group)
        self._group, self._joining = None, Lock()


def claim() -> None:
    """Take the place for this process: those that it starts inherit the environment alone."""
    os.environ[JOINED] = str(os.getpid())


_launched = Launched()
os.register_at_fork(after_in_child=_launched.forget)
with suppress(InvalidInput):  # which the first fit says
    if launch() is not None:
        claim()  # now: a grid search may start processes before this one's first fit


def launched() -> Hosts:
    """The hosts that this program was launched on."""
    return _launched

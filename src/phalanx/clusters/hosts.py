"""The hosts that the program was launched on: this process's membership in their group."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from time import monotonic, sleep
from typing import Any, Protocol

from phalanx.clusters.launch import JOINED, Launch, launch
from phalanx.errors import HostLost, InvalidInput
from phalanx.exchange.group import Group

POLL = 0.05  # seconds
GRACE = 2.0  # seconds in which what has a bound of its own says what is wrong


class Hosts(Protocol):
    """How a training gets its group."""

    def join(self) -> Group | None:
        """The group, with all its hosts in it; None where this host is alone.

        Raises HostLost where one of them does not come.
        """

    def rejoin(self, lost: HostLost) -> Group:
        """Another group, after a host was lost. Raises `lost` itself where there is to be none."""


class Launched:
    """By torchrun, by SLURM, or by hand. The group lasts for as long as nobody is lost."""

    def __init__(self) -> None:
        self._group: Any = None

    def join(self) -> Group | None:
        how = launch()
        if how is None:
            return None
        if self._group is None:
            self._group = _meet(how)
            os.environ[JOINED] = str(os.getpid())
            atexit.register(self._leave)
        self._group.check()
        return self._group  # type: ignore[no-any-return]

    def rejoin(self, lost: HostLost) -> Group:
        """Nobody is there to say who trains on, so the program ends, and may be started again."""
        self._leave()
        raise lost

    def _leave(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.leave()

    def forget(self) -> None:
        """In a forked child: the group is its parent's."""
        self._group = None


_launched = Launched()
os.register_at_fork(after_in_child=_launched.forget)


def launched() -> Hosts:
    """The hosts that this program was launched on."""
    return _launched


def _meet(how: Launch) -> Any:
    """The group, once all hosts have come. Raises InvalidInput, HostLost."""
    try:
        from phalanx.clusters.gloo import GlooGroup, device_of
    except ImportError as error:
        raise InvalidInput(
            f"training on {how.place.count} hosts needs torch.distributed; torch is not installed "
            "here. Run `pip install phalanx[torch]` on every host."
        ) from error
    where = f"did not answer at {how.address}:{how.port} within {how.join_seconds:.0f} s"
    store = _within(how.join_seconds, lambda: _store(how), HostLost(0, where))
    device = device_of(how.address, how.interface)
    _roll_call(how, store)
    lost = HostLost(None, f"did not connect within {how.host_seconds:.0f} s")  # though it came
    seconds = how.host_seconds
    return _within(seconds, lambda: GlooGroup(how.place, store, device, seconds), lost)


def _within(seconds: float, make: Callable[[], Any], lost: HostLost) -> Any:
    """What is made of connections, which may wait for an answer for ever. Raises `lost`."""
    made: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(make())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="phalanx-meeting", daemon=True)
    thread.start()
    thread.join(seconds + GRACE)
    if made:
        return made[0]
    raise failed[0] if failed else lost


def _store(how: Launch) -> Any:
    """Where the hosts meet. The first host listens there, on that address alone."""
    import torch.distributed

    dist: Any = torch.distributed

    patience = timedelta(seconds=how.join_seconds)
    options: dict[str, Any] = {"timeout": patience, "wait_for_workers": False}
    with contextlib.ExitStack() as stack:
        listens = how.place.is_first and not how.has_store
        if listens:
            options["master_listen_fd"] = stack.enter_context(_listening(how)).detach()
        try:
            return dist.TCPStore(how.address, how.port, how.place.count, listens, **options)
        except (RuntimeError, ValueError) as error:
            raise HostLost(
                0,
                f"did not answer at {how.address}:{how.port} within {how.join_seconds:.0f} s "
                f"({type(error).__name__})",
            ) from error


@contextlib.contextmanager
def _listening(how: Launch) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server((how.address, how.port))
    except OSError as error:
        raise InvalidInput(
            f"the first host must be able to listen at {how.address}:{how.port} (MASTER_ADDR, "
            f"MASTER_PORT); got: {error}. Choose a port that is free, or an address of this host."
        ) from error
    yield listener


def _roll_call(how: Launch, store: Any) -> None:
    """Wait until all have come. Raises HostLost for the first who does not."""
    until = monotonic() + how.join_seconds
    store.set(f"phalanx/here/{how.place.host}", "here")
    missing = list(range(how.place.count))
    while missing:
        missing = [host for host in missing if not store.check([f"phalanx/here/{host}"])]
        if missing and monotonic() > until:
            others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise HostLost(missing[0], f"did not come within {how.join_seconds:.0f} s{others}")
        if missing:
            sleep(POLL)

"""A meeting of hosts: who listens where, who has come, and the group that they make."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from datetime import timedelta
from time import monotonic, sleep
from typing import Any

from phalanx.clusters.hosts.launch import Launch
from phalanx.clusters.hosts.starting import must_start
from phalanx.errors import HostLost, InvalidInput

POLL = 0.05  # seconds
GRACE = 10.0  # seconds in which what has a bound of its own says what is wrong


def meet(
    how: Launch,
    listener: socket.socket | None = None,
    generation: int = 0,
    look: Callable[[], None] = lambda: None,
) -> Any:
    """The group, once all hosts have come.

    listener: of the first host, where it has one. look: called while others are waited for, and
    ends the wait by raising. Raises InvalidInput, HostLost.
    """
    try:
        from phalanx.clusters.hosts.gloo import GlooGroup, device_of
    except ImportError as error:
        raise InvalidInput(
            f"training on {how.place.count} hosts needs torch.distributed; torch is not installed "
            "here. Run `pip install torch` on every host."
        ) from error
    where = f"did not answer at {how.address}:{how.port} within {how.join_seconds:.0f} s"
    store = _within(how.join_seconds, lambda: _store(how, listener), HostLost(0, where))
    device = device_of(how.address, how.interface)
    _roll_call(how, store, generation, look)
    seconds = how.host_seconds
    lost = HostLost(None, f"did not connect within {seconds:.0f} s")  # though it came
    try:
        return _within(
            seconds,
            lambda: GlooGroup(how.place, store, device, seconds, generation),
            lost,
            GlooGroup.leave,
        )
    except RuntimeError as error:  # of the store's, which is lost with the first host
        raise HostLost(None, f"is gone ({type(error).__name__})") from error


def _within(
    seconds: float,
    make: Callable[[], Any],
    lost: HostLost,
    leave: Callable[[Any], None] = lambda made: None,
) -> Any:
    """What is made of connections, which may wait for an answer for ever. Raises `lost`.

    leave: gives back what is made after that.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            made = make()
        except BaseException as error:
            with suppress(InvalidStateError):  # nobody waits any more, here as below
                future.set_exception(error)
            return
        try:
            future.set_result(made)
        except InvalidStateError:
            leave(made)

    must_start(threading.Thread(target=run, name="phalanx-meeting", daemon=True))
    try:
        wait([future], seconds + GRACE)
    finally:
        is_late = future.cancel()
    if is_late:
        raise lost
    return future.result()


def _store(how: Launch, listener: socket.socket | None) -> Any:
    """Where the hosts meet. The first host listens there, on that address alone."""
    import torch.distributed

    dist: Any = torch.distributed
    patience = timedelta(seconds=how.join_seconds)
    options: dict[str, Any] = {"timeout": patience, "wait_for_workers": False}
    listens = how.place.is_first and not how.has_store
    if listens:
        options["master_listen_fd"] = (listener or listening(how.address, how.port)).detach()
    try:
        return dist.TCPStore(how.address, how.port, how.place.count, listens, **options)
    except (RuntimeError, ValueError) as error:
        raise HostLost(
            0,
            f"did not answer at {how.address}:{how.port} within {how.join_seconds:.0f} s "
            f"({type(error).__name__})",
        ) from error


def listening(address: str, port: int) -> socket.socket:
    """A socket that listens there, and nowhere else; port 0 for any that is free.

    Raises InvalidInput where it cannot.
    """
    try:
        return socket.create_server((address, port))
    except OSError as error:
        raise InvalidInput(
            f"the first host must be able to listen at {address}:{port} (MASTER_ADDR, "
            f"MASTER_PORT); got: {error}. Choose a port that is free, or an address of this host."
        ) from error


def _roll_call(how: Launch, store: Any, generation: int, look: Callable[[], None]) -> None:
    """Wait until all have come. Raises HostLost for the first who does not."""
    until = monotonic() + how.join_seconds
    here = f"phalanx/here/{generation}"
    try:
        store.set(f"{here}/{how.place.host}", "here")
        missing = list(range(how.place.count))
        while missing:
            missing = [host for host in missing if not store.check([f"{here}/{host}"])]
            if missing and monotonic() > until:
                others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
                what = f"did not come within {how.join_seconds:.0f} s{others}"
                raise HostLost(missing[0], what)
            if missing:
                look()
                sleep(POLL)
    except RuntimeError as error:  # of the store's
        raise HostLost(0, f"is gone ({type(error).__name__})") from error

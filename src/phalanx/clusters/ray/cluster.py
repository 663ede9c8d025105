"""A training on hosts that Ray provides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from phalanx.errors import InvalidInput
from phalanx.pure import checks
from phalanx.pure.agreement import FLAG, REFUSE

CLIENT = "ray://"


@dataclass(frozen=True)
class RayCluster:
    """Hosts on the nodes of a Ray cluster, one a node.

    address : str or None, default None
        Of the cluster: "host:port", "ray://host:port", or "auto" for the one that this machine
        belongs to. None is the one that the program has connected to, or "auto".
    hosts : int, default 2
        How many are wanted. Where one is lost, another takes its place as soon as there is a node.
    min_hosts : int, default 1
        With fewer than so many for longer than `patience` the training ends with an error.
    workers_per_host : int or None
        Worker processes of each, and the CPUs that are asked of Ray for it. None: as many workers
        as `workers` or `n_jobs` says, and one CPU.
    gpus_per_host : int, default 0
    mixed : {"refuse", "flag"}
        Whether hosts of several kinds of processor or BLAS, or versions of libraries, are
        refused, since the last bits may then depend on who computes what, or noted in the run.
    patience : float, default 60
        Seconds that nodes are waited for.
    host_seconds : float, default 20
        Seconds that a host may be silent.

    Raises InvalidInput for an argument that breaks its rule.
    """

    address: str | None = None
    hosts: int = 2
    min_hosts: int = 1
    workers_per_host: int | None = None
    gpus_per_host: int = 0
    mixed: str = REFUSE
    patience: float = 60.0
    host_seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.address is not None and not isinstance(self.address, str):
            raise InvalidInput(
                f"address must be a text such as 'auto' or 'host:6379'; got {self.address!r}."
            )
        checks.number("hosts", self.hosts, integer=True, at_least=1)
        most, hint = self.hosts, "It cannot be more than `hosts`."
        checks.number(
            "min_hosts", self.min_hosts, integer=True, at_least=1, at_most=most, hint=hint
        )
        if self.workers_per_host is not None:
            checks.number("workers_per_host", self.workers_per_host, integer=True, at_least=1)
        checks.number("gpus_per_host", self.gpus_per_host, integer=True, at_least=0)
        checks.one_of("mixed", self.mixed, (REFUSE, FLAG))
        checks.number("patience", self.patience, above=0)
        checks.number("host_seconds", self.host_seconds, above=0)
        whole = ("hosts", "min_hosts", "workers_per_host", "gpus_per_host")
        checks.become_pythons(self, int, *whole)
        checks.become_pythons(self, float, "patience", "host_seconds")

    @property
    def n_workers(self) -> int | None:
        """See training/following.py: RemoteCluster."""
        return self.workers_per_host

    def train(self, train: Callable[..., Any], *training: Any) -> Any:
        """See training/following.py: RemoteCluster.

        Raises what a host raised, InvalidInput, HostLost.
        """
        try:
            from phalanx.clusters.ray.driver import Driver
        except ImportError as error:
            raise InvalidInput(
                "RayCluster needs Ray and torch, here and on the nodes; got "
                f"{type(error).__name__}: {error}. Run `pip install ray torch`."
            ) from error
        with connected(self.address):
            return Driver(self, train, training).run()


def check_cluster(cluster: Any) -> None:
    """Raise InvalidInput for what is no cluster; None is the hosts of the program itself."""
    if cluster is not None and not isinstance(cluster, RayCluster):
        raise InvalidInput(
            "cluster must be a phalanx.RayCluster, or None for this machine or the hosts that the "
            f"program was launched on; got {cluster!r} of type {type(cluster).__name__}."
        )


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Within it this process is connected to Ray; where it was not before, it is not after.

    Raises InvalidInput where there is no cluster at the address.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    where = address or "auto"
    _check_there(where)
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise _no_ray(where, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_there(address: str) -> None:
    """Raise InvalidInput where nobody listens: Ray itself would try for minutes."""
    import socket

    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdecimal():
        return  # a name of Ray's own, such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise _no_ray(address, error) from error


def _no_ray(address: str, error: Exception) -> InvalidInput:
    what = str(error).partition("\n")[0]
    return InvalidInput(
        f"there must be a Ray cluster at the address; none answers at {address!r} ({what}). Start "
        "one with `ray start --head`, or pass the address that it printed."
    )

"""How this process was launched: its place among others, as torchrun or SLURM tell it.

The environment is read here alone. A process that one of them did not launch is alone, and so is
one that a process of the group has started itself: it inherits the environment, not the place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from phalanx.errors import InvalidInput
from phalanx.exchange.processors import processors
from phalanx.pure.hosts import Place

JOINED = "PHALANX_JOINED"  # pid of the process that has taken the place
JOIN_SECONDS, HOST_SECONDS = "PHALANX_JOIN_SECONDS", "PHALANX_HOST_SECONDS"
MOST_SECONDS = 7 * 24 * 3600  # of either bound
FIRST_PORT, N_PORTS = 20_000, 10_000  # of SLURM jobs: by the job's number


@dataclass(frozen=True)
class Launch:
    """A place, and where the hosts meet.

    has_store: the launcher itself listens at the meeting point. interface: the network interface
    that is to be used, where the user names one. join_seconds: how long the others are waited for
    when the first fit begins; host_seconds: how long one may be silent.
    """

    place: Place
    address: str
    port: int
    has_store: bool = False
    interface: str | None = None
    join_seconds: float = 600.0
    host_seconds: float = 20.0


def launch(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """How this process was launched; None if it is alone.

    Raises InvalidInput where the environment says so only in part, or cannot be right.
    """
    if environ.get(JOINED) not in (None, str(os.getpid())):
        return None
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return _by_torchrun(environ)
    if "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        return _by_slurm(environ)
    return None


def _by_torchrun(environ: Mapping[str, str]) -> Launch | None:
    place = _place(environ, "RANK", "WORLD_SIZE")
    if place.is_alone:
        return None
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environ.get(name)]
    if missing:
        raise InvalidInput(
            f"RANK and WORLD_SIZE need MASTER_ADDR and MASTER_PORT, where the hosts meet; got no "
            f"{' and no '.join(missing)}. Launch by torchrun, which sets all of them, or unset "
            "WORLD_SIZE to train on this host alone."
        )
    port = _integer(environ, "MASTER_PORT", 1, 65_535)
    has_store = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return _launched(environ, place, environ["MASTER_ADDR"], port, has_store)


def _by_slurm(environ: Mapping[str, str]) -> Launch | None:
    place = _place(environ, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    if place.is_alone:
        return None
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    address = environ.get("MASTER_ADDR") or first_node(nodes)
    job = _integer(environ, "SLURM_JOB_ID", 0, 2**63)
    port = FIRST_PORT + job % N_PORTS
    if "MASTER_PORT" in environ:
        port = _integer(environ, "MASTER_PORT", 1, 65_535)
    return _launched(environ, place, address, port, has_store=False)


def _launched(
    environ: Mapping[str, str], place: Place, address: str, port: int, has_store: bool
) -> Launch:
    interface = environ.get("GLOO_SOCKET_IFNAME", "").split(",")[0] or None
    patience = {
        field: _seconds(environ, name)
        for field, name in (("join_seconds", JOIN_SECONDS), ("host_seconds", HOST_SECONDS))
        if name in environ
    }
    return Launch(place, address, port, has_store, interface, **patience)


def speaks(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this host is the one that prints."""
    how = launch(environ)
    return how is None or how.place.is_first


def cores(environ: Mapping[str, str] = os.environ) -> int:
    """Processors for this process: its part of them, where several hosts are on one machine."""
    beside = environ.get("LOCAL_WORLD_SIZE", "1") if launch(environ) else "1"
    several = int(beside) if beside.isdecimal() else 1
    return max(1, processors() // max(1, several))


def first_node(nodes: str) -> str:
    """The first name of SLURM's list of nodes.

    >>> first_node("gpu[07-09,12],login1")
    'gpu07'
    """
    first = re.match(r"[\w.-](?:[\w.-]|\[\w[^\]]*\])*", nodes)
    if not first:
        raise InvalidInput(
            "SLURM must name the nodes of the job (SLURM_STEP_NODELIST); got "
            f"{nodes!r}. Launch by srun, or set MASTER_ADDR to the first host."
        )
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0])


def _place(environ: Mapping[str, str], rank: str, count: str) -> Place:
    n_hosts = _integer(environ, count, 1, 2**20)
    return Place(_integer(environ, rank, 0, n_hosts - 1), n_hosts)


def _integer(environ: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = environ.get(name, "")
    if not text.isdecimal() or not least <= int(text) <= most:
        raise InvalidInput(
            f"the environment variable {name} must be an integer of {least} to {most}; got "
            f"{text!r}. Launch by torchrun or srun, which set it."
        )
    return int(text)


def _seconds(environ: Mapping[str, str], name: str) -> float:
    try:
        seconds = float(environ[name])
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_SECONDS:
        raise InvalidInput(
            f"the environment variable {name} must be a positive number of seconds, at most "
            f"{MOST_SECONDS:,}; got {environ[name]!r}."
        )
    return seconds

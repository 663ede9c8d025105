"""Objects and arrays from host to host, for what is said between two leases."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from phalanx.errors import HostsDiffer
from phalanx.exchange.group import Group
from phalanx.pure.agreement import Facts, differences, listed
from phalanx.pure.arrays import Array


def gather(group: Group, about: str, told: Any) -> list[Any]:
    """What each host tells about something, in the order of hosts, which trust each other: it is
    unpickled.

    Raises HostsDiffer where some tell about something else.
    """
    body = np.frombuffer(pickle.dumps((about, told)), np.uint8)
    sizes_H1 = np.zeros((group.place.count, 1))
    group.all_gather(np.array([float(len(body))]), sizes_H1).wait(_quietly)
    sizes = sizes_H1[:, 0].astype(int)
    mine_n = np.zeros(sizes.max(), np.uint8)
    mine_n[: len(body)] = body
    all_Hn = np.zeros((group.place.count, len(mine_n)), np.uint8)
    group.all_gather(mine_n, all_Hn).wait(_quietly)
    said = [pickle.loads(row_n[:size].tobytes()) for row_n, size in zip(all_Hn, sizes, strict=True)]
    abouts = [of_host[0] for of_host in said]
    if len(set(abouts)) > 1:
        raise HostsDiffer(
            "all hosts must begin the same trainings in the same order, those in callbacks too; "
            f"they are at {', '.join(f'{at} (host {h})' for h, at in enumerate(abouts))}. Have "
            "every host do what one of them does."
        )
    return [of_host[1] for of_host in said]


def lead(group: Group, array: Array, host: int = 0) -> None:
    """Give all hosts what one of them has in a contiguous array."""
    if array.size:
        group.broadcast(array.reshape(-1), host).wait(_quietly)


def agree(group: Group, machine: Facts, job: Facts, is_flagged: bool) -> list[str]:
    """Make sure that all hosts train the same, and can come to the same bits.

    Raises HostsDiffer; where machines that differ are to be flagged only, returns how they do.
    """
    machines_H, jobs_H = zip(*gather(group, "what is to be trained", (machine, job)), strict=True)
    of_jobs, of_machines = differences(jobs_H), differences(machines_H)
    if of_jobs:
        raise HostsDiffer(
            "all hosts must train the same model on the same samples, from the same parameters; "
            f"they differ in {listed(of_jobs)}. Run the same program with the same data on all, "
            "and seed whatever it draws (torch.manual_seed, keras.utils.set_random_seed, "
            "random_state)."
        )
    if of_machines and not is_flagged:
        raise HostsDiffer(
            "hosts must have the same processor family, libraries and BLAS, or the last bits "
            "depend on who computes what; they differ in "
            f"{'; '.join(of_machines)}. Use hosts of one kind, "
            "or accept it with mixed='flag', which notes it in the run."
        )
    return of_machines


def _quietly() -> None:
    """There is nothing else to look at."""

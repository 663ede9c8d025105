"""The contestants of hosts.py on one machine: two hosts each, that speak over its loopback."""

from __future__ import annotations

from multiprocessing.connection import Connection

import torch

from contestants import Contestant
from deep_cases import DeepCase
from deep_contestants import PhalanxTorch, free_port, loops
from deep_loops import Kind, Setting, introduce
from host_names import DDP, DDP_FUSED, LIMIT_FUSED, ONE_HOST, PHALANX
from peers import Peers, told

HOSTS = 2
HOST = Setting(Kind.DDP, HOSTS)  # Phalanx' hosts are launched as DDP's ranks are


def serve(pipe: Connection, case: DeepCase, rank: int, port: int) -> None:
    """What a host of Phalanx does: its one worker trains when told to."""
    torch.set_num_threads(1)
    introduce(HOST, rank, port)
    contestant = PhalanxTorch(case, 1)
    while (epochs := told(pipe)) is not None:
        pipe.send(contestant.round(epochs))


def hosts(case: DeepCase) -> Peers:
    """Phalanx' two hosts."""
    port = free_port()
    return Peers(serve, [(case, rank, port) for rank in range(HOSTS)])


def contestants(case: DeepCase) -> dict[str, Contestant]:
    """Everybody who trains a case, in the order of the table."""
    return {
        PHALANX: hosts(case),
        DDP: loops(case, Setting(Kind.DDP, HOSTS)),
        DDP_FUSED: loops(case, Setting(Kind.DDP, HOSTS, fused=True)),
        ONE_HOST: PhalanxTorch(case, HOSTS),
        LIMIT_FUSED: loops(case, Setting(Kind.APART, HOSTS, fused=True)),
    }

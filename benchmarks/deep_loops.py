"""The loops of deep.py's torch contestants, each run in processes of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from deep_cases import DeepCase
from deep_modules import seeded
from peers import told

WARM_UP_STEPS = 3  # of every round; not counted


class Kind(StrEnum):
    """How the processes work together. APART: each does its part of the batch and never speaks."""

    APART = "apart"
    DDP = "ddp"
    FABRIC = "fabric"


@dataclass(frozen=True)
class Setting:
    """One contestant: how many processes of how many threads, and what joins them."""

    kind: Kind
    world: int
    threads: int = 1
    fused: bool = False


class Loop:
    """A network, its optimiser, and this rank's part of every batch."""

    def __init__(self, case: DeepCase, setting: Setting, rank: int) -> None:
        samples = case.samples()
        self._x, self._y = torch.from_numpy(samples.x), torch.from_numpy(samples.y)
        self._case, self._world, self._rank = case, setting.world, rank
        self._speaks = setting.kind is not Kind.APART
        seeded()
        module: Any = case.module()
        optimizer: Any = torch.optim.Adam(module.parameters(), lr=1e-3, fused=setting.fused or None)
        self._backward = torch.Tensor.backward
        if setting.kind is Kind.DDP:
            module = DistributedDataParallel(module)
        elif setting.kind is Kind.FABRIC:
            fabric = launched_fabric(setting.world)
            module, optimizer = fabric.setup(module, optimizer)
            self._backward = fabric.backward
        self._module, self._optimizer = module, optimizer

    def round(self, epochs: int) -> float:
        """Train for so many epochs; seconds a step."""
        for index in self._epoch()[:WARM_UP_STEPS]:
            self._step(index)
        if self._speaks:
            dist.barrier()
        begun = perf_counter()
        for _ in range(epochs):
            self.epoch()
        return (perf_counter() - begun) / (epochs * self._case.steps)

    def epoch(self) -> None:
        """Train for one epoch."""
        assert isfinite(sum(self._step(index) for index in self._epoch()))

    def _epoch(self) -> list[Tensor]:
        """Indices of this rank's samples in each step of a new random order."""
        order = torch.randperm(len(self._x))  # the same on every rank, as the seed is
        batches = torch.split(order, self._case.batch)
        return [batch.tensor_split(self._world)[self._rank] for batch in batches]

    def _step(self, index: Tensor) -> float:
        self._optimizer.zero_grad()
        loss = cross_entropy(self._module(self._x[index]), self._y[index])
        self._backward(loss)  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return float(loss.item())


def launched_fabric(world: int) -> Any:
    """Lightning Fabric over the processes that are there already."""
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", strategy="ddp", devices=world)
    fabric.launch()
    return fabric


def serve(pipe: Connection, case: DeepCase, setting: Setting, rank: int, port: int) -> None:
    """What a process does: train when told to, and answer with seconds a step."""
    torch.set_num_threads(setting.threads)
    introduce(setting, rank, port)
    if setting.kind is Kind.DDP:
        dist.init_process_group("gloo")
    loop = Loop(case, setting, rank)
    while (epochs := told(pipe)) is not None:
        pipe.send(loop.round(epochs))
    if setting.kind is not Kind.APART:
        dist.destroy_process_group()


def introduce(setting: Setting, rank: int, port: int) -> None:
    """Say who is who, in the words of torchrun."""
    me, everybody = str(rank), str(setting.world)
    os.environ.update(
        RANK=me, LOCAL_RANK=me, GROUP_RANK="0", WORLD_SIZE=everybody, LOCAL_WORLD_SIZE=everybody,
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="deep",
        GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip

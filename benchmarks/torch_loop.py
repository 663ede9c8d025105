"""The training loop that a torch user writes: nn.Sequential, Adam, cross_entropy, one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import isfinite
from time import perf_counter, sleep, thread_time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from cases import CLASSES, Case

WARM_UP_STEPS = 3  # of every round; not counted


@contextmanager
def group(rank: int, world: int, meeting: str) -> Iterator[None]:
    """One thread, and a gloo process group where there is somebody to talk to."""
    torch.set_num_threads(1)
    if world == 1:
        yield
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Loop:
    """A network, its optimiser, and this rank's share of every batch.

    slowness: how many times as long as it could this rank takes for all its work.
    """

    def __init__(
        self, case: Case, rank: int, world: int, fused: bool, slowness: float = 1.0
    ) -> None:
        data = case.samples()
        self._x, self._y = torch.from_numpy(data.x), torch.from_numpy(data.y)
        self._case, self._rank, self._world = case, rank, world
        self._slowness = slowness
        torch.manual_seed(0)
        network = perceptron((data.x.shape[1], *case.hidden, CLASSES))
        self._network = DistributedDataParallel(network) if world > 1 else network
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=1e-3, fused=fused or None)

    def round(self, epochs: int) -> float:
        """Train for so many epochs; seconds a step."""
        for index in self._epoch()[:WARM_UP_STEPS]:
            self._step(index)
        if self._world > 1:
            dist.barrier()
        begun = perf_counter()
        for _ in range(epochs):
            loss = sum(self._step(index) for index in self._epoch())
            assert isfinite(loss)
        return (perf_counter() - begun) / (epochs * self._case.steps)

    def steps(self) -> Iterator[float]:
        """Train without an end; the loss of each step."""
        while True:
            yield from (self._step(index) for index in self._epoch())

    def _epoch(self) -> list[Tensor]:
        """Indices of this rank's samples in each step of a new random order."""
        order = torch.randperm(len(self._x))  # the same on every rank, as the seed is
        batches = torch.split(order, self._case.batch)
        return [batch.tensor_split(self._world)[self._rank] for batch in batches]

    def _step(self, index: Tensor) -> float:
        """One step. A slow rank rests for its own work alone, not for its wait for the others."""
        begun = thread_time()
        self._optimizer.zero_grad()
        loss = cross_entropy(self._network(self._x[index]), self._y[index])
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if self._slowness > 1:
            sleep((self._slowness - 1) * (thread_time() - begun))
        return float(loss.item())


def perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])

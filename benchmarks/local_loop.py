"""DiLoCo written out for torch, one replica after the other: what keeping the state is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from torch_loop import perceptron


class LocalLoop:
    """`replicas` networks that meet after `every` steps of their own Adam.

    keeps: whether each replica keeps the state of its Adam from one round to the next, as DiLoCo
    does. outer: learning rate and Nesterov momentum of the step that ends a round.
    """

    def __init__(
        self, sizes: tuple[int, ...], replicas: int, every: int, keeps: bool, seed: int
    ) -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self.every, self._keeps = every, keeps
        self.shared = perceptron(sizes)
        self._replicas = [perceptron(sizes) for _ in range(replicas)]
        self._optimizers = [self._new(replica) for replica in self._replicas]
        self._rng = np.random.default_rng(seed)

    @staticmethod
    def _new(network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), fused=True)

    def train(
        self, x: Tensor, y: Tensor, batch: int, epochs: int, outer: tuple[float, float]
    ) -> None:
        """So many epochs; `batch` is that of a step of all replicas together."""
        rate, momentum = outer
        step = torch.optim.SGD(self.shared.parameters(), rate, momentum=momentum, nesterov=True)
        for _ in range(epochs):
            order = self._rng.permutation(len(x))
            for first in range(0, len(x), batch * self.every):
                self._round(x, y, order[first : first + batch * self.every], batch)
                step.step()

    def _round(self, x: Tensor, y: Tensor, rows: npt.NDArray[np.int64], batch: int) -> None:
        """What the replicas change, as the gradient of the shared network."""
        steps = -(-len(rows) // batch)
        parts = np.array_split(rows, len(self._replicas))
        for r, (replica, part) in enumerate(zip(self._replicas, parts, strict=True)):
            replica.load_state_dict(self.shared.state_dict())
            if not self._keeps:
                self._optimizers[r] = self._new(replica)
            for index in np.array_split(part, steps):
                self._optimizers[r].zero_grad()
                cross_entropy(replica(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
                self._optimizers[r].step()
        with torch.no_grad():
            for before, *after in zip(
                self.shared.parameters(), *(r.parameters() for r in self._replicas), strict=True
            ):
                before.grad = before - _mean(after)

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Share of the samples whose class is found."""
        with torch.no_grad():
            found: Tensor = self.shared(x).argmax(dim=1) == y
        return float(found.float().mean())


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(dim=0)

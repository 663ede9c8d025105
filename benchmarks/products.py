"""The matrix products of a step, and nothing else: what no training can do without.

Each process has arrays of its own, multiplies its part of the samples forward and back and its part
of the rows of every gradient, and never waits for another. Products of one step are made once: each
by as few calls as there are layers. So this is the limit that the BLAS at hand sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from time import perf_counter

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from cases import CLASSES, Case
from peers import Peers, told

Array = npt.NDArray[np.float32]


class ProductProcesses(Peers):
    """One thread each."""

    def __init__(self, case: Case, n_features: int, world: int) -> None:
        sizes = (n_features, *case.hidden, CLASSES)
        ranks = [(sizes, case.batch, case.steps, rank, world) for rank in range(world)]
        super().__init__(serve, ranks)


def serve(
    pipe: Connection, sizes: Sequence[int], batch: int, steps: int, rank: int, world: int
) -> None:
    """What a process does: multiply when told to, and answer with seconds a step."""
    products = Products(sizes, batch, rank, world)
    with threadpool_limits(1):
        while (epochs := told(pipe)) is not None:
            begun = perf_counter()
            for _ in range(epochs * steps):
                products.step()
            pipe.send((perf_counter() - begun) / (epochs * steps))


class Products:
    """Of one rank, on random numbers; laid out as in phalanx.models.mlp: weights [out, in], layers
    [features, samples], samples [samples, features]."""

    def __init__(self, sizes: Sequence[int], batch: int, rank: int, world: int) -> None:
        rng = np.random.default_rng(0)

        def random(*shape: int) -> Array:
            return rng.random(shape, np.float32) - np.float32(0.5)

        def part(size: int) -> slice:
            return slice(size * rank // world, size * (rank + 1) // world)

        columns = part(batch)
        inputs = [random(batch, sizes[0]).T, *(random(size, batch) for size in sizes[1:-1])]
        deltas = [random(size, batch) for size in sizes[1:]]
        self._calls: list[tuple[Array, Array, Array]] = []  # left, right, and their product
        for (fan_in, fan_out), input_FB, delta_OB in zip(
            pairwise(sizes), inputs, deltas, strict=True
        ):
            weight_OF, rows = random(fan_out, fan_in), part(fan_out)
            self._add(weight_OF, input_FB[:, columns])
            if input_FB is not inputs[0]:
                self._add(weight_OF.T, delta_OB[:, columns])
            self._add(delta_OB[rows], input_FB.T)

    def _add(self, left: Array, right: Array) -> None:
        self._calls.append((left, right, np.empty((len(left), right.shape[1]), np.float32)))

    def step(self) -> None:
        for left, right, product in self._calls:
            np.matmul(left, right, out=product)

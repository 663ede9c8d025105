"""The cases: a network, its data, and what Phalanx is meant to reach on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import data
from names import (
    DDP,
    DDP_FUSED,
    PHALANX_1,
    PHALANX_2,
    PRODUCTS_1,
    PRODUCTS_2,
    SCIKIT,
    SCIKIT_ALL,
    with_shards,
)

CLASSES = 10
QUICK_STEPS = 10  # an epoch


@dataclass(frozen=True)
class Ratio:
    """How many times longer a step of `slow` takes than one of `fast`."""

    title: str
    slow: str
    fast: str

    def with_shards(self, shards: int) -> Ratio:
        """The same ratio where Phalanx cuts each batch into so many shards."""
        mine = (PHALANX_1, PHALANX_2)
        slow, fast = (
            with_shards(name, shards) if name in mine else name for name in (self.slow, self.fast)
        )
        return Ratio(self.title, slow, fast)


OVER_SCIKIT_1 = Ratio("over scikit-learn, 1 worker", SCIKIT, PHALANX_1)
OVER_SCIKIT_2 = Ratio("over scikit-learn, 2 workers", SCIKIT, PHALANX_2)
OVER_SCIKIT_ALL = Ratio("over scikit-learn with all threads, 2 workers", SCIKIT_ALL, PHALANX_2)
OVER_DDP = Ratio("over torch DDP x2, 2 workers", DDP, PHALANX_2)
OVER_FUSED = Ratio("over torch DDP x2 with fused Adam, 2 workers", DDP_FUSED, PHALANX_2)
SECOND_WORKER = Ratio("second worker worth", PHALANX_1, PHALANX_2)
RATIOS = (OVER_SCIKIT_1, OVER_SCIKIT_2, OVER_SCIKIT_ALL, OVER_DDP, OVER_FUSED, SECOND_WORKER)
LIMITS = (
    Ratio("scikit-learn over the products, 1 process", SCIKIT, PRODUCTS_1),
    Ratio("scikit-learn over the products, 2 processes", SCIKIT, PRODUCTS_2),
    Ratio("second process worth", PRODUCTS_1, PRODUCTS_2),
    Ratio("Phalanx over the products, 1 worker", PHALANX_1, PRODUCTS_1),
    Ratio("Phalanx over the products, 2 workers", PHALANX_2, PRODUCTS_2),
)


@dataclass(frozen=True)
class Case:
    """One training that every contestant does: layer sizes, global batch, samples, epochs."""

    key: str
    title: str
    load: Callable[[], data.Data]
    hidden: tuple[int, ...]
    batch: int
    n_samples: int
    epochs: int  # of one round: enough that setting a fit up is lost in it
    targets: Mapping[Ratio, float]  # ratios to reach at least
    extra_shards: tuple[int, ...] = ()  # shards tried besides 'auto'
    is_sparse: bool = False  # then the estimators alone train it

    @property
    def steps(self) -> int:
        """Steps of an epoch; a last, smaller batch counts as one."""
        return -(-self.n_samples // self.batch)

    def samples(self) -> data.Data:
        return self.load().first(self.n_samples)

    def quick(self) -> Case:
        """A few steps only, to see that everything runs."""
        n_samples = min(self.n_samples, QUICK_STEPS * self.batch)
        return replace(self, n_samples=n_samples, epochs=max(2, self.epochs // 10))


IRIS = Case(
    key="iris",
    title="iris, 4-10-3, one step an epoch",
    load=data.iris,
    hidden=(10,),
    batch=150,
    n_samples=150,
    epochs=1000,
    targets={},
)
DIGITS = Case(
    key="digits",
    title="digits, 64-100-10, batch 200",
    load=data.digits,
    hidden=(100,),
    batch=200,
    n_samples=1797,
    epochs=300,
    targets={OVER_SCIKIT_1: 2.5, OVER_SCIKIT_2: 4.0, OVER_DDP: 15.0},
)
MNIST_SMALL = Case(
    key="mnist-small",
    title="MNIST, 784-256-128-10, batch 256",
    load=data.mnist,
    hidden=(256, 128),
    batch=256,
    n_samples=60 * 256,
    epochs=25,
    targets={
        OVER_SCIKIT_1: 1.7,
        OVER_SCIKIT_2: 3.3,
        OVER_DDP: 3.5,
        SECOND_WORKER: 1.9,
    },
    extra_shards=(2,),
)
MNIST_WIDE = Case(
    key="mnist-wide",
    title="MNIST, 784-2048-2048-10, batch 256",
    load=data.mnist,
    hidden=(2048, 2048),
    batch=256,
    n_samples=60 * 256,
    epochs=3,
    targets={
        OVER_SCIKIT_1: 1.6,
        OVER_SCIKIT_2: 3.0,
        OVER_DDP: 1.7,
        SECOND_WORKER: 1.9,
    },
    extra_shards=(2,),
)
MNIST_SCALED = replace(
    MNIST_SMALL,
    key="mnist-scaled",
    title="MNIST standardised, 784-256-128-10, batch 256",
    load=data.standardised_mnist,
    epochs=15,
    targets={},
    extra_shards=(),
)
TEXT = replace(
    MNIST_SCALED,
    key="text",
    title="sparse text, 5000-256-128-10, batch 256",
    load=data.text,
    epochs=5,
    is_sparse=True,
)
CASES = {c.key: c for c in (DIGITS, MNIST_SMALL, MNIST_WIDE, MNIST_SCALED, TEXT)}
WITH_IRIS = {IRIS.key: IRIS, **CASES}  # whose time is what an epoch costs, not what is computed

"""The contestants by name, as the tables show them."""

from __future__ import annotations

SCIKIT = "scikit-learn, 1 thread"
SCIKIT_ALL = "scikit-learn, all threads"
PHALANX_1 = "Phalanx, 1 worker"
PHALANX_2 = "Phalanx, 2 workers"
TORCH = "torch, 1 process, 1 thread"
DDP = "torch DDP x2, 1 thread each"
DDP_FUSED = "torch DDP x2, fused Adam"
PRODUCTS_1 = "the products alone, 1 process"
PRODUCTS_2 = "the products alone, 2 processes"


def with_shards(name: str, shards: int) -> str:
    """A Phalanx contestant that does not leave the number of shards to 'auto'."""
    return f"{name}, shards={shards}"

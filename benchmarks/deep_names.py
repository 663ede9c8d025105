"""The contestants of deep.py by name, as the tables show them."""

from __future__ import annotations

PHALANX_2 = "phalanx.fit of torch, 2 workers"
PHALANX_1 = "phalanx.fit of torch, 1 worker"
TORCH_1 = "torch, 1 process, 1 thread"
TORCH_2 = "torch, 1 process, 2 threads"
DDP = "torch DDP x2, 1 thread each"
FABRIC = "Lightning Fabric x2, 1 thread each"
LIMIT = "no communication x2"
LIMIT_FUSED = "no communication x2, fused Adam"
KERAS = "Keras' own fit (torch), 2 threads"
PHALANX_KERAS = "phalanx.fit of Keras, 2 workers"

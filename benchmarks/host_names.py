"""The contestants of hosts.py by name, as the tables show them."""

from __future__ import annotations

PHALANX = "phalanx.fit, 2 hosts"
ONE_HOST = "phalanx.fit, 1 host of 2 workers"
DDP = "torch DDP x2"
DDP_FUSED = "torch DDP x2, fused Adam"
LIMIT_FUSED = "no communication x2, fused Adam"

EXACT = "phalanx.fit, exact"
BF16 = 'phalanx.fit, wire="bf16"'
ROUNDS = "phalanx.fit, sync_every=32"

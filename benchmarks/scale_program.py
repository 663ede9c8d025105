"""What a host does for scale.py: trains each size with each number of shards, and says what that
took on this host, one line of JSON for each. Launched as by torchrun.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import wraps
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

import phalanx
from deep_cases import Perceptron
from deep_modules import seeded
from phalanx.arena import PAGE, Arena
from phalanx.clusters.hosts.gloo import GlooGroup
from phalanx.engine.all_reduced import AllReduced
from phalanx.engine.blocks import Blocks
from phalanx.engine.courier import Courier
from phalanx.engine.shards import Shards
from phalanx.engine.worker import Worker
from phalanx.pure.arrays import Array

FEATURES, CLASSES, BATCH, STEPS = 512, 10, 256, 8
WIDTHS, SHARDS = (128, 512, 2048), (2, 4, 8)
PHASES: dict[str, tuple[type, str]] = {
    "compute": (Shards, "compute_mine"),
    "shards": (Courier, "shards"),
    "reduce": (AllReduced, "_reduce_mine"),
    "blocks": (Courier, "blocks"),
    "update": (Blocks, "inherit"),
    "step": (Worker, "_step"),
}
WORD, PRESENT = 8, np.uint64(1 << 63)  # of /proc/self/pagemap


class Watch:
    """Seconds of each phase, bytes sent in the two exchanges, and the arena."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.bytes = 0  # that this host has given the group to send
        self.arena: Any = None
        for phase, (owner, name) in PHASES.items():
            setattr(owner, name, self._timed(phase, getattr(owner, name)))
        self._count_bytes()
        self._keep(Arena, "arena")

    def begin(self) -> None:
        self.seconds, self.calls, self.sent = Counter(), Counter(), Counter()

    def _timed(self, phase: str, work: Any) -> Any:
        @wraps(work)
        def timed(*arguments: Any) -> Any:
            begun, before = perf_counter(), self.bytes
            try:
                return work(*arguments)
            finally:
                self.seconds[phase] += perf_counter() - begun  # type: ignore[assignment]
                self.calls[phase] += 1
                self.sent[phase] += self.bytes - before

        return timed

    def _keep(self, kind: type, name: str) -> None:
        """Remember the object that was made last."""
        make = kind.__init__  # type: ignore[misc]

        @wraps(make)
        def made(new: Any, *arguments: Any, **options: Any) -> None:
            make(new, *arguments, **options)
            setattr(self, name, new)

        kind.__init__ = made  # type: ignore[misc]

    def _count_bytes(self) -> None:
        to_all, gather = GlooGroup.all_to_all, GlooGroup.all_gather

        def counting_to_all(group: Any, pieces_H: Any, places_H: Any) -> Any:
            self.bytes += sum(piece.nbytes for piece in pieces_H)  # my own piece is empty
            return to_all(group, pieces_H, places_H)

        def counting_gather(group: Any, row_n: Any, into_Hn: Any) -> Any:
            self.bytes += row_n.nbytes * (group.place.count - 1)
            return gather(group, row_n, into_Hn)

        setattr(GlooGroup, "all_to_all", counting_to_all)  # noqa: B010 - typed otherwise
        setattr(GlooGroup, "all_gather", counting_gather)  # noqa: B010


def measure(watch: Watch, width: int, shards: int, wire: str) -> dict[str, Any]:
    """Train one size; a step's seconds by phase and bytes, and the memory that is in use."""
    seeded()
    module = Perceptron((FEATURES, width, width, CLASSES)).module()
    rng = np.random.default_rng(0)
    x = rng.random((BATCH * STEPS, FEATURES), np.float32)
    y = rng.integers(0, CLASSES, len(x))
    watch.begin()
    phalanx.fit(
        module, (x, y), loss="cross_entropy", optimizer="adam", epochs=1, batch_size=BATCH,
        workers=1, shards=shards, wire=wire,
    )  # fmt: skip
    steps = watch.calls["step"]
    return {
        "width": width, "shards": shards, "wire": wire,
        "parameters": sum(p.numel() for p in module.parameters()),
        "seconds": {phase: watch.seconds[phase] / steps for phase in PHASES},
        # the first exchange begins while shards are computed
        "sent": [(watch.sent["compute"] + watch.sent["shards"]) / steps,
                 watch.sent["blocks"] / steps],
        "memory": {name: resident(watch.arena[name]) for name in ("values", "grads", "reduced")},
    }  # fmt: skip


def resident(array: Array) -> int:
    """Bytes of an array that lie in memory: what nobody has touched does not."""
    if not array.size:
        return 0
    begin, end = np.lib.array_utils.byte_bounds(array)
    pages = range(begin // PAGE, -(-end // PAGE))
    with Path("/proc/self/pagemap").open("rb") as file:
        file.seek(pages.start * WORD)
        words = np.frombuffer(file.read(len(pages) * WORD), np.uint64)
    return int(np.count_nonzero(words & PRESENT)) * PAGE


def main() -> None:
    torch.set_num_threads(1)
    watch = Watch()
    widths = WIDTHS[: int(sys.argv[1])]
    wires = ("exact", "bf16")
    for width, shards, wire in product(widths, SHARDS, wires):
        print(json.dumps(measure(watch, width, shards, wire)), flush=True)


if __name__ == "__main__":
    main()

"""What a host of a laboratory runs: `host_program.py WHO STEPS EPOCHS`, launched as by torchrun.

The first host prints a line at the end of each epoch, so that whoever reads it knows the time and
can count the bytes.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

import phalanx
from deep_cases import DEEP_CASES, DeepCase
from deep_contestants import SHARDS
from deep_loops import Kind, Loop, Setting
from deep_modules import seeded
from host_names import BF16, DDP, EXACT, ROUNDS

CASE = "mnist-wide"
OPTIONS: dict[str, dict[str, Any]] = {EXACT: {}, BF16: {"wire": "bf16"}, ROUNDS: {"sync_every": 32}}


def main() -> None:
    who, steps, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    case = DEEP_CASES[CASE]
    case = replace(case, n_samples=steps * case.batch)
    if who == DDP:
        train_ddp(case, epochs)
    else:
        train_phalanx(case, epochs, OPTIONS[who])


def train_phalanx(case: DeepCase, epochs: int, options: dict[str, Any]) -> None:
    """One worker on each host."""
    seeded()
    samples = case.samples()
    phalanx.fit(
        case.module(), (samples.x, samples.y), loss="cross_entropy", optimizer="adam",
        epochs=epochs, batch_size=case.batch, workers=1, shards=SHARDS,
        callbacks=lambda epoch, logs: mark(), **options,
    )  # fmt: skip


def train_ddp(case: DeepCase, epochs: int) -> None:
    """DDP as its users write it."""
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    loop = Loop(case, Setting(Kind.DDP, world), rank)
    for _ in range(epochs):
        loop.epoch()
        dist.barrier()
        mark()
    dist.destroy_process_group()


def mark() -> None:
    """An epoch has ended."""
    if os.environ["RANK"] == "0":
        print("epoch", flush=True)


if __name__ == "__main__":
    main()

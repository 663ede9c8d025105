"""What torchrun runs, see elastic.py: DistributedDataParallel over gloo, noting down every step.

Arguments: a case's key, the file with its samples, and the file to which all workers append.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from functools import partial
from time import monotonic

import numpy as np
import torch
import torch.distributed as dist

from cases import CASES
from data import Data
from torch_loop import Loop

LONGEST = 120  # seconds; the kernel ends a worker that was left behind


def main() -> None:
    signal.alarm(LONGEST)
    key, samples, notes = sys.argv[1:]
    case = replace(CASES[key], load=partial(stored, samples))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    loop = Loop(case, dist.get_rank(), dist.get_world_size(), fused=False)
    file = os.open(notes, os.O_WRONLY | os.O_APPEND)
    restart = os.environ["TORCHELASTIC_RESTART_COUNT"]
    for _ in loop.steps():
        os.write(file, f"{restart} {os.getpid()} {monotonic()}\n".encode())


def stored(path: str) -> Data:
    """Samples from the file that elastic.py wrote."""
    with np.load(path) as arrays:
        return Data(arrays["x"], arrays["y"], "a file")


if __name__ == "__main__":
    main()

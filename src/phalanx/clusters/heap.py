"""A worker's memory: what a step frees, the next step takes again, as glibc's allocator is told
before the first; and what a job leaves is let go of."""

from __future__ import annotations

import gc
import sys

import numpy as np

RETURNED_ABOVE = 32 << 20
"""Bytes from which glibc always takes a chunk from the kernel, and gives it back when freed."""


def keep_freed_memory() -> None:
    """Have this process keep what it frees, and up to 64 MiB at the heap's end, for what it
    allocates next.

    The activations of a convolution are tens of megabytes, allocated and freed in every step.
    glibc gives such memory back to the kernel, which clears each page when it is touched again:
    a tenth of the step's time. It raises both its thresholds when a large chunk is freed, up to
    that of 32 MiB (mallopt(3), M_MMAP_THRESHOLD): so does this one, which no one ever touched.
    Other allocators take no notice.
    """
    np.empty(RETURNED_ABOVE - (64 << 10), np.uint8)


class Garbage:
    """What a job has left: a user's model may refer to itself, and through it to the arena.

    The libraries that the job was the first to load stay, and are not looked through again: with
    Keras among them that takes 0.1 s.
    """

    def __init__(self) -> None:
        self._n_modules = len(sys.modules)

    def collect(self) -> None:
        """Let go of it."""
        gc.collect()
        if len(sys.modules) > self._n_modules:
            gc.freeze()
            self._n_modules = len(sys.modules)

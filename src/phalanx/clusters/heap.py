"""What a step frees, the next step takes again: glibc's allocator, told so before the first."""

from __future__ import annotations

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

"""How busy other programs keep the machine: a look at it while nobody has a turn."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter, sleep

STAT = Path("/proc/stat")
LOOK = 0.5  # seconds
IDLE = (3, 4)  # idle and waiting for a disk, among the columns of /proc/stat


def busy_cores() -> float:
    """Cores in use while this program sleeps; 0 where the system does not say."""
    if not STAT.exists():
        return 0.0
    begun, before = perf_counter(), _busy_seconds()
    sleep(LOOK)
    return (_busy_seconds() - before) / (perf_counter() - begun)


def _busy_seconds() -> float:
    """Processor time spent since the machine started, by all programs."""
    ticks = [int(word) for word in STAT.read_text().splitlines()[0].split()[1:9]]
    idle = sum(ticks[i] for i in IDLE)
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")

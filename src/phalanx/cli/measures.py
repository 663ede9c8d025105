"""What `phalanx doctor` measures. Each function returns SI units: seconds, bytes a second."""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter

import numpy as np

from phalanx.arena import Arena, Field
from phalanx.clusters.pool import Pool
from phalanx.exchange.board import SPINS, Board, Pause, board_fields
from phalanx.exchange.processors import processors

MEETINGS = 20_000
COPIED = 256 * 10**6
PARTNER_TIMEOUT = 60.0
FIELDS = {**board_fields(1), "met": Field((2,), "int64")}


def pool_start() -> float:
    """Seconds until a new pool has two workers; later jobs find them warm."""
    begun = perf_counter()
    pool = Pool()
    try:
        pool.take(2)
        return perf_counter() - begun
    finally:
        pool.close()


def meeting() -> float:
    """Seconds that two processes need to meet over shared memory, on average."""
    arena, descriptor = Arena.shared(FIELDS)
    code = "import sys; from phalanx.cli.measures import partner; partner(int(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(descriptor)]
    try:
        process = subprocess.Popen(command, pass_fds=[descriptor])
    finally:
        os.close(descriptor)
    with process:
        try:
            _first_meeting(arena, process)
            begun = perf_counter()
            _meet(arena, 0, range(2, MEETINGS + 2))
            return (perf_counter() - begun) / MEETINGS
        finally:
            process.kill()


def partner(descriptor: int) -> None:
    """The other process of `meeting`."""
    _meet(Arena.attach(FIELDS, descriptor), 1, range(1, MEETINGS + 2))


def _first_meeting(arena: Arena, process: subprocess.Popen[bytes]) -> None:
    """Wait for the partner to be there, in bounded time."""
    deadline = perf_counter() + PARTNER_TIMEOUT
    while arena["met"][1] < 1:
        if process.poll() is not None or perf_counter() > deadline:
            raise RuntimeError("the second process did not come")
    _meet(arena, 0, range(1, 2))


def _meet(arena: Arena, rank: int, ticks: range) -> None:
    board, met = Board(arena), arena.words("met")
    board.spins = SPINS if processors() > 1 else 0
    for tick in ticks:
        board.publish(met, rank, tick)
        pause = Pause()
        while not board.spin(met, 1 - rank, tick):
            pause()


def copy_speed() -> float:
    """Bytes a second that one core copies from memory to memory, the best of three."""
    source, copy = np.ones(COPIED, np.uint8), np.zeros(COPIED, np.uint8)
    best = float("inf")
    for _ in range(3):
        begun = perf_counter()
        np.copyto(copy, source)
        best = min(best, perf_counter() - begun)
    return COPIED / best

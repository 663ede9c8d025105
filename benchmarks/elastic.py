"""Recovery on torchrun: how soon a group of two trains on after one of its workers is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import NamedTuple

import numpy as np

from cases import Case
from memory import family

PROGRAM = Path(__file__).with_name("elastic_worker.py")
LAUNCHER = (
    *("timeout", "--signal=KILL", "150"),  # nothing is left of it, whatever happens here
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--nproc-per-node", "2", "--max-restarts", "3"),
)
SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    # Without it, restarted workers may find the addresses of those before them and fail to connect:
    # https://github.com/pytorch/pytorch/issues/135712
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
EARLIEST, LATEST = 0.5, 1.5  # seconds of training before the kill
LOOK_EVERY = 0.01  # seconds
PATIENCE = 60.0  # seconds for a group to train


class Step(NamedTuple):
    """A step that a worker noted down: restarts of the group before it, its process, its end."""

    restart: int
    pid: int
    at: float


def recoveries(case: Case, kills: int, chance: Random) -> list[float]:
    """Seconds from each kill to the next optimiser step, each in a torchrun of its own."""
    with TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.npz"
        data = case.samples()
        np.savez(samples, x=data.x, y=data.y)
        return [recovery(case, samples, chance) for _ in range(kills)]


def recovery(case: Case, samples: Path, chance: Random) -> float:
    """Start a group, kill one of its workers while it trains, and wait for its next step."""
    with TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        notes.touch()
        with torchrun(folder, case.key, str(samples), str(notes)) as launcher:
            steps = wait_for(lambda steps: len(pids(steps)) == 2, notes, launcher)
            sleep(chance.uniform(EARLIEST, LATEST))
            killed = monotonic()
            os.kill(chance.choice(pids(steps)), signal.SIGKILL)
            steps = wait_for(lambda steps: steps[-1].restart > 0, notes, launcher)
    return next(step.at for step in steps if step.restart > 0) - killed


@contextmanager
def torchrun(folder: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher; at the end it and all its workers are killed."""
    errors = Path(folder) / "errors"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [*LAUNCHER, str(PROGRAM), *arguments],
            env={**os.environ, **SURROUNDINGS, "TMPDIR": folder},
            stdout=file,
            stderr=file,
        )
    try:
        yield process
    except RuntimeError as error:
        error.add_note(errors.read_text())
        raise
    finally:
        for pid in family(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def wait_for(
    done: Callable[[list[Step]], bool], notes: Path, launcher: subprocess.Popen[bytes]
) -> list[Step]:
    """The steps noted down, once they are as wanted. Raises RuntimeError if they never are."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline and launcher.poll() is None:
        steps = [noted(line) for line in notes.read_text().splitlines()]
        if steps and done(steps):
            return steps
        sleep(LOOK_EVERY)
    raise RuntimeError(f"torchrun's workers did not train; its status is {launcher.poll()}")


def noted(line: str) -> Step:
    """A line of the notes.

    >>> noted("1 4711 12.5")
    Step(restart=1, pid=4711, at=12.5)
    """
    restart, pid, at = line.split()
    return Step(int(restart), int(pid), float(at))


def pids(steps: list[Step]) -> list[int]:
    """The processes that noted steps."""
    return sorted({step.pid for step in steps})

"""Memory of a whole training: the driver, the fork server and the workers together.

What counts is PSS (proportional set size): a page shared by three processes is a third of a page
in each, so the sum over all processes is what the machine really holds. It needs Linux.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

import numpy as np

N_SAMPLES, N_FEATURES = 131_072, 1_000
LOOK_EVERY = 0.05  # seconds

PROGRAM = """
import sys
import numpy as np
from phalanx import MLPClassifier

X = np.load(sys.argv[1], mmap_mode={mode})
y = np.arange(len(X)) % 10
classifier = MLPClassifier(
    (64,), batch_size=1024, max_iter=2, shards=4, random_state=0, n_jobs=int(sys.argv[2])
)
print("fitting", flush=True)
classifier.fit(X, y)
"""

MODES = {"numpy.ndarray": None, "numpy.memmap": "r"}  # how the samples are held: np.load's mode
WORKERS = (1, 4)

Peaks = dict[str, tuple[int, int]]  # bytes with one and with four workers, by kind of array


def measure() -> Peaks:
    """The peak of each training."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "samples.npy"
        np.save(path, np.random.default_rng(0).random((N_SAMPLES, N_FEATURES), np.float32))
        peaks = {
            kind: [_peak(PROGRAM.format(mode=repr(mode)), path, workers) for workers in WORKERS]
            for kind, mode in MODES.items()
        }
    return {kind: (one, four) for kind, (one, four) in peaks.items()}


def _peak(program: str, path: Path, workers: int) -> int:
    """Most bytes that the program and its descendants held at one time from its fit on."""
    command = [sys.executable, "-W", "ignore", "-c", program, str(path), str(workers)]
    most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "fitting\n":
            raise RuntimeError("the program ended before its fit")
        while process.poll() is None:
            most = max(most, held_by(family(process.pid)))
            sleep(LOOK_EVERY)
    if process.returncode != 0:
        raise RuntimeError(f"the program exited with status {process.returncode}")
    return most


def held_by(pids: list[int]) -> int:
    """Bytes of processes together, each the less of two looks, there and back.

    Processes are looked at one after another. A page that one has mapped when it is looked at and
    another maps before its own turn would count one and a half times; on the way back it is halved
    in both. Once nothing is mapped any more, as at the peak of a training, both looks are the same.
    """
    there = [_pss(pid) for pid in pids]
    back = [_pss(pid) for pid in reversed(pids)]
    return sum(map(min, there, reversed(back)))


def family(pid: int) -> list[int]:
    """A process and all its descendants; without those that ended meanwhile."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(child) for text in lists for child in text.split()]
    return [pid, *(member for child in children for member in family(child))]


def _pss(pid: int) -> int:
    """Bytes of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

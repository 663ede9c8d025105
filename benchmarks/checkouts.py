"""The code of a checkout, in an interpreter of its own, told by a pipe when to run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cases import Case

PROGRAM = Path(__file__).with_name("checkout_turns.py")
PATIENCE = 10.0  # seconds that a program gets to end by itself


class Checkout:
    """See contestants.py: Contestant. The benchmark's own code is this one for all checkouts."""

    def __init__(self, source: Path, case: Case, workers: int) -> None:
        """source: the folder that phalanx lies in."""
        self._source = source
        command = [sys.executable, str(PROGRAM), case.key, str(case.n_samples), str(workers)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(self._source)},
        )

    def wait_until_started(self) -> None:
        """Raises RuntimeError where another checkout's code was imported."""
        imported = Path(self._answer()).resolve()
        if not imported.is_relative_to(self._source.resolve()):
            raise RuntimeError(f"{self._source} was asked for and {imported} was imported")

    def round(self, epochs: int) -> float:
        assert self._process.stdin is not None
        print(epochs, file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its workers end with it
            self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a program ended with status {self._process.wait()}")
        return line.strip()


def commit(folder: Path) -> str:
    """Which code a checkout holds: its commit, and whether files were changed since."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip() or "unknown"

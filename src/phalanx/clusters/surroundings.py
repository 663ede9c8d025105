"""What the user's code finds around it: the folder, the environment, how deep calls may go.

Workers stay warm from job to job, and have what the caller has when a job begins.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass

from phalanx.clusters.threads import THREAD_VARIABLES

OURS = {*THREAD_VARIABLES, "KERAS_BACKEND", "PYTHONPATH"}  # variables, which workers set alone


@dataclass(frozen=True)
class Surroundings:
    """folder: None where the caller's is deleted. depth: the limit of recursion."""

    folder: str | None
    variables: dict[str, str]
    depth: int

    @classmethod
    def here(cls) -> Surroundings:
        """Those of this process."""
        folder = None
        with suppress(FileNotFoundError):
            folder = os.getcwd()
        variables = {name: value for name, value in os.environ.items() if name not in OURS}
        return cls(folder, variables, sys.getrecursionlimit())

    def take(self) -> None:
        """Have them in this process."""
        if self == Surroundings.here():
            return
        sys.setrecursionlimit(self.depth)
        with suppress(OSError):  # it is the caller's alone, or deleted
            os.chdir(self.folder or ".")
        for name in os.environ.keys() - self.variables.keys() - OURS:
            del os.environ[name]
        os.environ.update(self.variables)

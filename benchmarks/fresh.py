"""Programs in fresh interpreters, which say what they saw as one line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def answer(program: str) -> Any:
    """Run a program and read the JSON that it prints."""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)

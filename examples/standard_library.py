"""The source of Python's standard library: text that is on every machine without a download.

It differs a little from one version of Python to the next, and so do digests learnt from it.
"""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path

FOLDER = Path(sysconfig.get_paths()["stdlib"])


def sources(pattern: str) -> dict[str, str]:
    """The text of the files in the library that match, by their path, in its order."""
    files = sorted(FOLDER.glob(pattern))
    return {str(f.relative_to(FOLDER)): f.read_text("utf-8") for f in files}


def parted(names: list[str], one_in: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """The names apart: most of them, and one in so many, drawn by chance, to be kept back."""
    shuffled = random.Random(seed).sample(names, len(names))
    n_kept_back = max(1, len(names) // one_in)
    return shuffled[n_kept_back:], shuffled[:n_kept_back]

"""What compiled kernels are worth: fits with them, and with NumPy's form of them, in turns.

python benchmarks/kernels.py [--rounds 5] [--cases digits,mnist-small]
"""

from __future__ import annotations

import shutil
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cases import CASES, Case
from checkouts import Checkout
from compare import cases_named
from data import ROOT
from figures import ratio, spread
from table import ranged, table

WORKERS = (1, 2)
HEADER = ("case", "workers", "ms a step, NumPy", "ms a step, compiled", "compiled over NumPy")


def main() -> None:
    parser = ArgumentParser(description="What compiled kernels are worth.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of both")
    parser.add_argument(
        "--cases", type=cases_named, default="digits,mnist-small", help=f"{[*CASES]}"
    )
    asked = parser.parse_args()
    with without_compiled() as folder:
        rows = [row(case, n, asked.rounds, folder) for case in asked.cases for n in WORKERS]
    print(table(HEADER, rows))


@contextmanager
def without_compiled() -> Iterator[Path]:
    """A folder with the code alone, as it is where there was no compiler."""
    with TemporaryDirectory() as folder:
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "src", Path(folder) / "src", ignore=ignored)
        yield Path(folder)


def row(case: Case, workers: int, rounds: int, folder: Path) -> list[str]:
    """What both take, round by round after an untimed one."""
    with (
        closing(Checkout(folder, case, workers)) as plain,
        closing(Checkout(ROOT, case, workers)) as compiled,
    ):
        turns = (plain, compiled)
        for checkout in turns:
            checkout.wait_until_started()
            checkout.round(1)
        times = [[checkout.round(case.epochs) for checkout in turns] for _ in range(rounds)]
    numpys, ours = zip(*times, strict=True)
    milliseconds = [ranged(spread([1e3 * t for t in each])) for each in (numpys, ours)]
    return [case.title, str(workers), *milliseconds, ranged(ratio(numpys, ours), "x")]


if __name__ == "__main__":
    main()

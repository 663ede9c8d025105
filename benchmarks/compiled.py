"""What compiling is worth: fits with the kernels and the step compiled, and with NumPy's kernels
and the step in Python, in turns.

scripts/benchmark compiled [--rounds 5] [--cases digits,mnist-small]
"""

from __future__ import annotations

import shutil
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import phalanx
from cases import CASES, Case
from checkouts import Checkout
from compare import cases_named
from figures import ratio, spread
from phalanx import engine
from phalanx.pure import kernels
from table import ranged, table

WORKERS = (1, 2)
INSTALLED = Path(phalanx.__file__).parents[1]
HEADER = ("case", "workers", "ms a step, not compiled", "ms a step, compiled", "compiling is worth")


def main() -> None:
    parser = ArgumentParser(description="What compiling is worth.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of both")
    parser.add_argument(
        "--cases", type=cases_named, default="digits,mnist-small", help=f"{[*CASES]}"
    )
    asked = parser.parse_args()
    if not (engine.is_compiled() and kernels.IS_COMPILED):
        parser.error("nothing is compiled here: run it by scripts/benchmark")
    with without_compiled() as folder:
        rows = [row(case, n, asked.rounds, folder) for case in asked.cases for n in WORKERS]
    print(table(HEADER, rows))


@contextmanager
def without_compiled() -> Iterator[Path]:
    """A folder with the code alone, as it is where there was no compiler."""
    with TemporaryDirectory() as folder:
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(INSTALLED / "phalanx", Path(folder) / "phalanx", ignore=ignored)
        yield Path(folder)


def row(case: Case, workers: int, rounds: int, folder: Path) -> list[str]:
    """What both take, round by round after an untimed one."""
    with (
        closing(Checkout(folder, case, workers)) as plain,
        closing(Checkout(INSTALLED, case, workers)) as compiled,
    ):
        turns = (plain, compiled)
        for checkout in turns:
            checkout.wait_until_started()
            checkout.round(1)
        times = [[checkout.round(case.epochs) for checkout in turns] for _ in range(rounds)]
    plains, ours = zip(*times, strict=True)
    milliseconds = [ranged(spread([1e3 * t for t in each])) for each in (plains, ours)]
    return [case.title, str(workers), *milliseconds, ranged(ratio(plains, ours), "x")]


if __name__ == "__main__":
    main()

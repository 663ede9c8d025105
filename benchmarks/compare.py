"""Phalanx beside scikit-learn and torch, in one run. Writes docs/benchmarks.md.

scripts/benchmark compare [--rounds 5] [--cases digits,mnist-small,mnist-wide] [--quick]
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

import memory
import startup
from cases import CASES, Case
from data import ROOT
from measured import Measured
from report import render
from timing import time_case

QUICK_ROUNDS = 2


def main() -> None:
    asked = arguments()
    rounds = QUICK_ROUNDS if asked.quick else asked.rounds
    cases = [case.quick() for case in asked.cases] if asked.quick else asked.cases
    timed = [time_case(case, rounds) for case in cases]
    measured = Measured(timed, startup.measure(rounds), memory.measure())
    command = shlex.join(["scripts/benchmark", "compare", *sys.argv[1:]])
    page = render(measured, command, asked.quick)
    asked.out.write_text(page)
    print(page)


def arguments() -> Namespace:
    parser = ArgumentParser(description="Phalanx beside scikit-learn and torch, in one run.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of everybody in a case")
    every = ",".join(CASES)
    parser.add_argument("--cases", type=cases_named, default=every, help=f"some of {every}")
    parser.add_argument("--quick", action="store_true", help="few steps: does it all run?")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    return parser.parse_args()


def cases_named(keys: str) -> list[Case]:
    """Cases from their keys, separated by commas."""
    unknown = [key for key in keys.split(",") if key not in CASES]
    if unknown:
        raise ArgumentTypeError(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    return [CASES[key] for key in keys.split(",")]


if __name__ == "__main__":
    main()

"""Fits whose workers die or are slow, and what that costs. Writes docs/reliability-benchmarks.md.

python benchmarks/reliability.py [--parts a,b,c] [--against CHECKOUT] [--rounds 5] [--quick]

Part a: a killed worker, beside torchrun. b: a slow worker, beside torch DDP. c: the price when
nothing fails, beside the code of another checkout.
"""

from __future__ import annotations

import faulthandler
import shlex
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import killed_worker
import machine
import nothing_fails
import slow_worker
from data import ROOT
from report import QUICK
from section import Section
from targets import verdict

PARTS = ("a", "b", "c")
QUICK_ROUNDS = 2
LONGEST = 3600  # seconds; then everything is ended, with a traceback


def main() -> None:
    asked = arguments()
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # with all it started
    sections = [measure(part, asked) for part in asked.parts]
    command = shlex.join(["python", "benchmarks/reliability.py", *sys.argv[1:]])
    page = render(sections, command, asked.quick)
    asked.out.write_text(page)
    print(page)


def arguments() -> Namespace:
    parser = ArgumentParser(description="Fits whose workers die or are slow.")
    every = ",".join(PARTS)
    parser.add_argument("--parts", type=parts_named, default=every, help=f"some of {every}")
    parser.add_argument("--against", type=Path, help="a checkout of older code, for part c")
    parser.add_argument("--rounds", type=int, default=5, help="turns of everybody in parts b, c")
    parser.add_argument("--quick", action="store_true", help="few steps: does it all run?")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability-benchmarks.md")
    asked = parser.parse_args()
    if "c" in asked.parts and not (asked.against and (asked.against / "src/phalanx").is_dir()):
        parser.error("part c needs --against FOLDER, a checkout with src/phalanx")
    return asked


def parts_named(names: str) -> list[str]:
    """Parts from their letters, separated by commas."""
    unknown = [name for name in names.split(",") if name not in PARTS]
    if unknown:
        raise ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return names.split(",")


def measure(part: str, asked: Namespace) -> Section:
    """One part of the page."""
    rounds = QUICK_ROUNDS if asked.quick else asked.rounds
    if part == "a":
        return killed_worker.section(asked.quick)
    if part == "b":
        return slow_worker.section(rounds, asked.quick)
    return nothing_fails.section(asked.against, rounds, asked.quick)


def render(sections: Sequence[Section], command: str, quick: bool) -> str:
    """The page."""
    parts = [
        "# Reliability benchmarks",
        *([QUICK] if quick else []),
        f"Written by `{command}` on {date.today().isoformat()}.",
        "\n".join(f"- {name}: {value}" for name, value in machine.describe().items()),
        *(section.text() for section in sections),
        "## Targets",
        verdict([finding for section in sections for finding in section.findings]),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()

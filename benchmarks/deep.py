"""phalanx.fit of torch modules and Keras models beside torch, Lightning and Keras, in one run.

Writes docs/deep-benchmarks.md.

scripts/benchmark deep [--rounds 5] [--cases digits,mnist-cnn] [--quick]
"""

from __future__ import annotations

import faulthandler
import os
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anybody imports it, here or in a process

import machine
from cases import Ratio
from data import ROOT
from deep_cases import CEILINGS, DEEP_CASES, RATIOS, DeepCase
from deep_contestants import contestants
from figures import Finding, ratio, spread
from report import QUICK
from table import ranged, table
from targets import verdict
from timing import Times, rounds_of

MS = 1e3
LONGEST = 3600  # seconds; then everything is ended, with a traceback
QUICK_ROUNDS = 2
PACKAGES = ("phalanx", "numpy", "torch", "lightning-fabric", "keras")
METHOD = """\
## How it was measured

- All contestants of a case take turns in one run, round after round; medians over the rounds stand
  in the tables, the lowest and highest round in brackets. Ratios are taken round by round.
- A time is the wall clock of a whole `phalanx.fit` or `model.fit`, or of the training loop (torch,
  Fabric), divided by its steps. What `fit` does before the first step is included; launching
  processes is included for nobody, and all do an untimed turn first.
- Everybody trains the same network in float32 with Adam (learning rate 0.001) on the same samples,
  in a new random order every epoch, with the same global batch, without callbacks and metrics.
- `phalanx.fit` gets `shards=2`: a shard for each of two workers, as DistributedDataParallel has.
- torch runs as its users write it; DDP and Fabric over gloo, with half of the batch in each of two
  processes. `torch.optim.Adam` is torch's default, which is not fused on a CPU; Phalanx calls
  torch's fused kernel.
- "No communication" is two torch processes, each with half of the batch, that never speak: each
  updates all parameters from its own gradient. It is no training, but what two would take if
  speaking cost nothing and nobody shared the update.
- The CNN is Keras' MNIST convnet: Conv 32, Conv 64 of 3 x 3, max-pool 2, dropout 0.25, dense 128,
  dropout 0.5, dense 10."""


@dataclass(frozen=True)
class DeepTimed:
    """A case, where its samples came from, and what everybody took; see timing.py, Timed."""

    case: DeepCase
    source: str
    times: Times
    others: list[float]

    def has(self, r: Ratio) -> bool:
        """Whether both sides of a ratio took part."""
        return r.slow in self.times and r.fast in self.times

    def ratio_cell(self, r: Ratio) -> str:
        """A ratio beside its target."""
        if not self.has(r):
            return ""
        figure = ranged(ratio(self.times[r.slow], self.times[r.fast]), "x")
        found = self.findings().get(r)
        if found is None:
            return figure
        return f"{figure}; target {found.target:g}x, {'met' if found.met else 'not met'}"

    def findings(self) -> dict[Ratio, Finding]:
        """The ratios that have a target."""
        return {
            r: Finding(
                f"{self.case.title}: {r.title}",
                ratio(self.times[r.slow], self.times[r.fast]).middle,
                target,
                "x",
                at_least=r not in CEILINGS,
            )
            for r, target in self.case.targets.items()
            if self.has(r)
        }


def main() -> None:
    asked = arguments()
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    rounds = QUICK_ROUNDS if asked.quick else asked.rounds
    cases = [case.quick() for case in asked.cases] if asked.quick else asked.cases
    timed = [time_case(case, rounds) for case in cases]
    command = shlex.join(["scripts/benchmark", "deep", *sys.argv[1:]])
    page = render(timed, command, asked.quick)
    asked.out.write_text(page)
    print(page)


def arguments() -> Namespace:
    parser = ArgumentParser(description="phalanx.fit beside torch, Lightning and Keras.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of everybody in a case")
    every = ",".join(DEEP_CASES)
    parser.add_argument("--cases", type=cases_named, default=every, help=f"some of {every}")
    parser.add_argument("--quick", action="store_true", help="few steps: does it all run?")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "deep-benchmarks.md")
    return parser.parse_args()


def cases_named(keys: str) -> list[DeepCase]:
    """Cases from their keys, separated by commas."""
    unknown = [key for key in keys.split(",") if key not in DEEP_CASES]
    if unknown:
        raise ArgumentTypeError(f"no case {', '.join(unknown)}; there are {', '.join(DEEP_CASES)}")
    return [DEEP_CASES[key] for key in keys.split(",")]


def time_case(case: DeepCase, rounds: int) -> DeepTimed:
    """Let everybody train the case, `rounds` times in turn."""
    times, others = rounds_of(case.key, case.epochs, contestants(case), rounds)
    return DeepTimed(case, case.load().source, times, others)


def render(timed: list[DeepTimed], command: str, quick: bool) -> str:
    """The page."""
    facts = machine.describe([name for name in PACKAGES if is_installed(name)])
    others = spread([cores for each in timed for cores in each.others])
    parts = [
        "# Deep benchmarks",
        *([QUICK] if quick else []),
        f"Written by `{command}` on {date.today().isoformat()}.",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        METHOD,
        "## Milliseconds a step",
        step_table(timed),
        f"Cores kept busy by other programs, seen before each round: {ranged(others)}.",
        "## Ratios",
        table(
            ["case", *(r.title for r in RATIOS)],
            [[each.case.title, *map(each.ratio_cell, RATIOS)] for each in timed],
        ),
        "## Targets",
        verdict([finding for each in timed for finding in each.findings().values()]),
    ]
    return "\n\n".join(parts) + "\n"


def step_table(timed: list[DeepTimed]) -> str:
    """Milliseconds a step: a line for each case, a column for each contestant."""
    names = list(dict.fromkeys(name for each in timed for name in each.times))
    rows = [
        [f"{each.case.title} ({each.source})", *(step_cell(each.times.get(n)) for n in names)]
        for each in timed
    ]
    return table(["ms a step", *names], rows)


def step_cell(seconds: list[float] | None) -> str:
    """Milliseconds, or nothing for who did not take part."""
    return ranged(spread([s * MS for s in seconds])) if seconds else ""


def is_installed(package: str) -> bool:
    """Whether a package is there to have a version."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()

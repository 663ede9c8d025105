"""What rounds of local steps cost and save: accuracy at equal epochs, and bytes a step.

    python benchmarks/sync_every.py [--quick]

writes its tables into docs/models.md. Set OMP_NUM_THREADS=1 for a machine that others use too.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from data import ROOT, Data, mnist, mnist_test
from figures import Finding
from local_loop import LocalLoop
from machine import processor
from phalanx import MLPClassifier
from phalanx.pure.rounds import OUTER_MOMENTUM, OUTER_RATE
from soak_page import between
from table import table

PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- sync_every: begin -->", "<!-- sync_every: end -->"
BATCH, WORKERS = 256, 2
RHYTHMS = (1, 20, 32)
OURS, DILOCO = (OUTER_RATE, OUTER_MOMENTUM), (0.7, 0.9)
TARGET_BYTES, TARGET_POINTS = 20.0, 0.5

Train = Callable[["Case", int], float]  # with a seed; the accuracy on the test samples


@dataclass(frozen=True)
class Case:
    """A network on MNIST, for so many epochs, from several seeds."""

    hidden: tuple[int, ...]
    epochs: int
    seeds: Sequence[int]
    training: Data
    test: Data
    is_deepened: bool = False  # with other numbers of shards, and beside loops in torch

    @property
    def title(self) -> str:
        return "-".join(map(str, (784, *self.hidden, 10)))

    @property
    def n_parameters(self) -> int:
        sizes = (784, *self.hidden, 10)
        return sum((a + 1) * b for a, b in pairwise(sizes))

    def megabytes(self, every: int) -> float:
        """What a host sends and receives a step: gradients there, parameters back, float32."""
        steps = -(-len(self.training.x) // BATCH)
        rounds = -(-steps // every)
        return 2 * 4 * self.n_parameters * rounds / steps / 1e6


@dataclass(frozen=True)
class Line:
    """One way of training a case, and the accuracies in percent, by seed."""

    case: Case
    what: str
    every: int
    accuracies: Sequence[float]

    def cells(self, plain: Line) -> list[str]:
        case, less = self.case, float(np.mean(self.accuracies) - np.mean(plain.accuracies))
        megabytes, before = case.megabytes(self.every), case.megabytes(1)
        return [
            case.title,
            self.what,
            f"{np.mean(self.accuracies):.2f}% ({min(self.accuracies):.2f}.."
            f"{max(self.accuracies):.2f})",
            "" if self is plain else f"{less:+.2f}",
            f"{megabytes:.3f}",
            f"{before / megabytes:.1f}x",
        ]


def of_phalanx(every: int, shards: int) -> Train:
    """The estimator, with everything else by default."""

    def train(case: Case, seed: int) -> float:
        model = MLPClassifier(
            case.hidden,
            batch_size=BATCH,
            max_iter=case.epochs,
            n_iter_no_change=np.inf,
            random_state=seed,
            n_jobs=WORKERS,
            shards=shards,
            sync_every=every,
        )
        return float(model.fit(case.training.x, case.training.y).score(case.test.x, case.test.y))

    return train


def of_torch(every: int, shards: int, keeps: bool, outer: tuple[float, float]) -> Train:
    """DiLoCo by a loop in one process."""

    def train(case: Case, seed: int) -> float:
        x, y = torch.from_numpy(case.training.x), torch.from_numpy(case.training.y)
        loop = LocalLoop((784, *case.hidden, 10), shards, every, keeps, seed)
        loop.train(x, y, BATCH, case.epochs, outer)
        return loop.accuracy(torch.from_numpy(case.test.x), torch.from_numpy(case.test.y))

    return train


def ways(case: Case) -> list[tuple[str, int, Train]]:
    """What is compared, with its steps a round."""
    found = [(f"sync_every={every}", every, of_phalanx(every, 2)) for every in RHYTHMS]
    if case.is_deepened:
        last = RHYTHMS[-1]
        found += [(f"sync_every={last}, shards={s}", last, of_phalanx(last, s)) for s in (4, 8)]
        loops = {"begins anew": (False, OURS), "is kept": (True, OURS)}
        loops["is kept, outer step 0.7 and 0.9"] = (True, DILOCO)
        for what, (keeps, outer) in loops.items():
            found.append((f"loop in torch, Adam {what}", last, of_torch(last, 2, keeps, outer)))
    return found


def measured(case: Case) -> list[Line]:
    """All ways of training one case, from every seed."""
    lines = []
    for what, every, train in ways(case):
        accuracies = [100 * train(case, seed) for seed in case.seeds]
        lines.append(Line(case, what, every, accuracies))
        print(" | ".join(lines[-1].cells(lines[0])), flush=True)
    return lines


def findings(lines: Sequence[Line]) -> list[Finding]:
    """The targets, for the longest rhythm with two shards."""
    plain, *_, last = lines[: len(RHYTHMS)]
    title = f"{last.case.title}, {last.what}"
    less = float(np.mean(plain.accuracies) - np.mean(last.accuracies))
    fewer = plain.case.megabytes(1) / last.case.megabytes(last.every)
    return [
        Finding(f"{title}: fewer bytes a step", fewer, TARGET_BYTES, "x", at_least=True),
        Finding(f"{title}: accuracy lost", less, TARGET_POINTS, " points", at_least=False),
    ]


def section(results: Sequence[Sequence[Line]], quick: bool) -> str:
    """Tables and targets."""
    header = ["network", "how", "test accuracy", "points", "MB a step", "fewer bytes"]
    rows = [line.cells(lines[0]) for lines in results for line in lines]
    verdicts = [
        f"- {finding.sentence()}: {'met' if finding.met else 'not met'}"
        for lines in results
        for finding in findings(lines)
    ]
    cases = "; ".join(
        f"{lines[0].case.title}: {lines[0].case.epochs} epochs, seeds {[*lines[0].case.seeds]}"
        for lines in results
    )
    source = results[0][0].case.training.source
    said = (
        f"Written by `benchmarks/sync_every.py{' --quick' if quick else ''}` on "
        f"{date.today().isoformat()}; {processor()}, {WORKERS} workers. {source}, batch {BATCH}, "
        f"Adam, 2 shards where nothing else is said. {cases}. Mean, lowest and highest of the "
        "seeds. MB a step are computed, not counted on a network: gradients to, and parameters "
        "from, where blocks are updated, 2 N of float32 in each round."
    )
    return "\n\n".join([said, table(header, rows), "\n".join(verdicts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples, to see that it runs")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore", ConvergenceWarning)
    training, test = mnist(), mnist_test()
    small = Case((256, 128), 10, range(3), training, test, is_deepened=True)
    cases = [small, Case((2048, 2048), 4, range(1), training, test)]
    if quick:
        few = training.first(40 * BATCH)
        cases = [replace(case, training=few, epochs=1, seeds=range(1)) for case in cases]
    text = section([measured(case) for case in cases], quick)
    print(text)
    if not quick:
        PAGE.write_text(between(PAGE.read_text(), text, BEGIN, END))


if __name__ == "__main__":
    main()

"""What a user waits for before the first step: imports, worker processes, the first fit."""

from __future__ import annotations

from dataclasses import dataclass

from figures import Spread, spread
from fresh import answer

IMPORT = """
import json, sys, time
begun = time.perf_counter()
import phalanx
seconds = time.perf_counter() - begun
heavy = [name for name in ("sklearn", "torch") if name in sys.modules]
from phalanx import MLPClassifier
estimator = time.perf_counter() - begun
print(json.dumps([seconds, estimator, heavy]))
"""

FITS = """
import json, time
from sklearn.datasets import {load}
from phalanx import MLPClassifier

X, y = {load}(return_X_y=True)

def seconds():
    classifier = {classifier}
    begun = time.perf_counter()
    classifier.fit(X, y)
    return time.perf_counter() - begun

print(json.dumps([seconds(), seconds()]))
"""

IRIS = FITS.format(
    load="load_iris",
    classifier="MLPClassifier(hidden_layer_sizes=(10,), max_iter=1000, alpha=1e-4, "
    "solver='sgd', n_jobs=2)",
)
DIGITS = FITS.format(load="load_digits", classifier="MLPClassifier(max_iter=5, n_jobs=2)")


@dataclass(frozen=True)
class Startup:
    """Seconds over several fresh interpreters; `heavy` is what `import phalanx` dragged in."""

    importing: Spread
    importing_estimator: Spread  # `from phalanx import MLPClassifier`
    heavy: tuple[str, ...]
    iris: tuple[Spread, Spread]  # first fit, second fit
    digits: tuple[Spread, Spread]


def measure(rounds: int) -> Startup:
    bare, estimator, dragged = zip(*(answer(IMPORT) for _ in range(rounds)), strict=True)
    heavy = sorted({name for names in dragged for name in names})
    iris, digits = _fits(IRIS, rounds), _fits(DIGITS, rounds)
    return Startup(spread(bare), spread(estimator), tuple(heavy), iris, digits)


def _fits(program: str, rounds: int) -> tuple[Spread, Spread]:
    """Seconds of the first and of the second fit."""
    first, second = zip(*(answer(program) for _ in range(rounds)), strict=True)
    return spread(first), spread(second)

"""The record that a run's folder keeps beside the weights: what was trained on what, and how."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from typing import Any

from phalanx.data.plain import FORMAT
from phalanx.exchange.processors import processors
from phalanx.models.mlp import MLPSpec
from phalanx.run import Run
from phalanx.runs.evaluation import Evaluation

LIBRARIES = ("phalanx", "numpy", "scipy", "scikit-learn")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a run's bits."""
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in LIBRARIES
    }


def this_machine() -> str:
    """Processor family, system, and processors that this process may run on."""
    return f"{platform.machine()}, {platform.system()}, {processors()} cores"


def now() -> str:
    """Date and time with the zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


@dataclass(frozen=True)
class Repeat:
    """The same training with another number of workers."""

    workers: int
    seconds: float
    digest: str


@dataclass(frozen=True)
class Record:
    """Everything that is said of a run.

    task: 'classification' or 'regression'. judged: which samples the evaluation is of.
    settings: what the user chose, by option. repeats: where the training was repeated to compare.
    """

    name: str
    source: str
    target: str
    task: str
    model: MLPSpec
    settings: dict[str, str]
    run: Run
    evaluation: Evaluation
    judged: str
    repeats: list[Repeat] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=library_versions)
    machine: str = field(default_factory=this_machine)
    date: str = field(default_factory=now)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; numbers that JSON lacks (NaN, infinity) become null."""
        plain = {
            **{key: getattr(self, key) for key in ("name", "source", "target", "task", "judged")},
            "format": FORMAT,
            "model": {"kind": "mlp", **asdict(self.model)},
            "settings": self.settings,
            "run": self.run.as_dict(),
            "evaluation": self.evaluation.as_dict(),
            "repeats": [asdict(repeat) for repeat in self.repeats],
            "versions": self.versions,
            "machine": self.machine,
            "date": self.date,
        }
        return {key: _finite(value) for key, value in plain.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

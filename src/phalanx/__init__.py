"""Phalanx trains neural networks on many workers so that the answer never depends on the cluster.

The public door. Names are loaded when they are first used: `import phalanx` alone loads neither
scikit-learn nor anything else that takes time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from phalanx.clusters.pool import shutdown
    from phalanx.clusters.ray.cluster import RayCluster
    from phalanx.errors import (
        CheckpointError,
        HostLost,
        HostsDiffer,
        InvalidInput,
        NonFiniteLoss,
        PhalanxError,
        RunFolderError,
        TooFewHosts,
        UserFunctionError,
        WorkerError,
        WorkerLost,
    )
    from phalanx.estimators import MLPClassifier, MLPRegressor
    from phalanx.fitting import evaluate, fit, predict
    from phalanx.run import Run

_DOOR = {
    "MLPClassifier": "phalanx.estimators",
    "MLPRegressor": "phalanx.estimators",
    "RayCluster": "phalanx.clusters.ray.cluster",
    "Run": "phalanx.run",
    "fit": "phalanx.fitting",
    "evaluate": "phalanx.fitting",
    "predict": "phalanx.fitting",
    "shutdown": "phalanx.clusters.pool",
    "PhalanxError": "phalanx.errors",
    "InvalidInput": "phalanx.errors",
    "NonFiniteLoss": "phalanx.errors",
    "CheckpointError": "phalanx.errors",
    "UserFunctionError": "phalanx.errors",
    "WorkerError": "phalanx.errors",
    "WorkerLost": "phalanx.errors",
    "HostLost": "phalanx.errors",
    "TooFewHosts": "phalanx.errors",
    "HostsDiffer": "phalanx.errors",
    "RunFolderError": "phalanx.errors",
}

__all__ = [
    "CheckpointError",
    "HostLost",
    "HostsDiffer",
    "InvalidInput",
    "MLPClassifier",
    "MLPRegressor",
    "NonFiniteLoss",
    "PhalanxError",
    "RayCluster",
    "Run",
    "RunFolderError",
    "TooFewHosts",
    "UserFunctionError",
    "WorkerError",
    "WorkerLost",
    "__version__",
    "evaluate",
    "fit",
    "predict",
    "shutdown",
]


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'phalanx' has no attribute {name!r}")
    return getattr(import_module(_DOOR[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

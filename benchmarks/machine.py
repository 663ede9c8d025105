"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from phalanx import engine

PACKAGES = ("phalanx", "numpy", "scikit-learn", "torch")
KERNEL_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")


def describe(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Processor, cores, and versions, by name."""
    facts = {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    facts |= {name: version(name) for name in packages} | {"BLAS": blas()}
    facts["phalanx"] += ", compiled" if engine.is_compiled() else ", its step not compiled"
    chosen = [f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if name in os.environ]
    return facts | ({"kernels chosen by": ", ".join(chosen)} if chosen else {})


def processor() -> str:
    """The processor's name, where Linux says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def blas() -> str:
    """NumPy's and SciPy's BLAS libraries."""
    import scipy.linalg.blas  # noqa: F401  (scikit-learn multiplies with SciPy's)
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    names = {f"{b['internal_api']} {b['version']} ({b['architecture']})" for b in libraries}
    return ", ".join(sorted(names))

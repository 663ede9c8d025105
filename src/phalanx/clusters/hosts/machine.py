"""What of a machine decides the last bits: its processor family and its libraries."""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("phalanx", "numpy", "scipy", "scikit-learn")
WITH_BLAS = ("numpy", "scipy")  # each may bring its own
LOADED_LIBRARIES = ("torch", "keras")  # these matter where the model uses them
VECTORS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def fingerprint() -> dict[str, Any]:
    """Facts in which hosts must not differ if their bits are to be equal."""
    loaded = tuple(name for name in LOADED_LIBRARIES if name in sys.modules)
    return {
        "processor": _processor(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES + loaded},
        **{f"BLAS of {name}": _built_with(name) for name in WITH_BLAS},
        "loaded BLAS": _loaded(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed as a package"


def _built_with(library: str) -> str:
    """Name and version: the same release of a library has another one from conda than from pip."""
    built_with = import_module(library).show_config(mode="dicts").get("Build Dependencies") or {}
    facts = built_with.get("blas") or {}
    return f"{facts.get('name', 'unknown')} {facts.get('version', '')}".strip()


def _loaded() -> str:
    """What NumPy and SciPy have found when they were started, and which kernels it has chosen:
    conda's are built with an interface behind which any BLAS may be put, and OpenBLAS can be told
    to take a processor for another one.

    BLAS that other libraries bring is left out, where NumPy or SciPy bring their own.
    """
    import scipy.linalg.blas  # noqa: F401 (so that it is loaded)
    from threadpoolctl import threadpool_info

    found = [facts for facts in threadpool_info() if facts["user_api"] == "blas"]
    own = [facts for facts in found if any(name in facts["filepath"] for name in WITH_BLAS)]
    keys = ("internal_api", "version", "architecture")
    named = {" ".join(str(facts.get(key) or "?") for key in keys) for facts in own or found}
    return ", ".join(sorted(named)) or "unknown"


def _processor() -> str:
    """Maker and family, and the vector instructions that kernels are chosen by."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return platform.machine()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    named = [facts.get("vendor_id", ""), f"family {facts.get('cpu family', '?')}"]
    return " ".join([platform.machine(), *named, *(v for v in VECTORS if v in flags)])

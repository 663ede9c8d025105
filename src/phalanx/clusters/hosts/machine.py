"""What of a machine decides the last bits: its processor family and its libraries."""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("phalanx", "numpy", "scipy", "scikit-learn")
WITH_BLAS = ("numpy", "scipy")  # each brings the one that it was built with
LOADED_LIBRARIES = ("torch", "keras")  # these matter where the model uses them
VECTORS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def fingerprint() -> dict[str, Any]:
    """Facts in which hosts must not differ if their bits are to be equal."""
    loaded = tuple(name for name in LOADED_LIBRARIES if name in sys.modules)
    return {
        "processor": _processor(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES + loaded},
        **{f"BLAS of {name}": _blas(name) for name in WITH_BLAS},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed as a package"


def _blas(library: str) -> str:
    """Name and version: the same release of a library has another one from conda than from pip."""
    built_with = import_module(library).show_config(mode="dicts")["Build Dependencies"]
    facts = built_with.get("blas", {})
    return f"{facts.get('name', 'unknown')} {facts.get('version', '')}".strip()


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

"""`phalanx doctor`: what this machine offers, and what it measures."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

from phalanx.cli.console import say_table

NEEDED = (
    "numpy",
    "scipy",
    "scikit-learn",
    "threadpoolctl",
    "cloudpickle",
    "safetensors",
    "rich",
    "typer",
)
OPTIONAL = {
    "pyarrow": "reads Parquet: pip install pyarrow",
    "torch": "PyTorch",
    "keras": "Keras",
    "ray": "Ray",
}

Row = tuple[str, str]


def doctor() -> None:
    """Report cores, BLAS, installed libraries, and how fast workers start, meet and copy."""
    say_table(("machine", ""), machine(), "Machine", "left")
    say_table(("library", "version"), libraries(), "Libraries", "left")
    say_table(("measured", ""), measured(), "Measured", "left")


def machine() -> list[Row]:
    """Python, processors, the BLAS with its threads, and what of Phalanx is compiled."""
    import numpy as np  # noqa: F401  (so that its BLAS is loaded, hence seen)
    from threadpoolctl import threadpool_info

    from phalanx import engine
    from phalanx.exchange.processors import processors
    from phalanx.pure import kernels

    rows = [
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", platform.python_version()),
        ("cores", f"{processors()} for this process, {os.cpu_count()} in all"),
    ]
    for pool in threadpool_info():
        kind = f" ({pool['architecture']} kernels)" if pool.get("architecture") else ""
        said = f"{pool['internal_api']} {pool['version']}{kind}"
        threads = f"{pool['num_threads']} threads here, 1 in each worker"
        rows.append((pool["user_api"].upper(), f"{said}, {threads}"))
    slower = "{} (slower, the same bits: {} when phalanx was installed)"
    numpys = slower.format("NumPy's", "there was no C compiler")
    pythons = slower.format("Python", "there was no C compiler, or -e,")
    rows.append(("kernels of Phalanx", "compiled" if kernels.IS_COMPILED else numpys))
    rows.append(("step of a worker", "compiled" if engine.is_compiled() else pythons))
    return rows


def libraries() -> list[Row]:
    """Versions of what is needed and of what is optional, without importing any of it."""
    rows = [(name, _version(name) or "MISSING") for name in ("phalanx", *NEEDED)]
    rows += [
        (f"{name} (optional)", _version(name) or f"not installed ({use})")
        for name, use in OPTIONAL.items()
    ]
    return rows


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def measured() -> list[Row]:
    """Start-up of the pool, a meeting of two workers, and memory bandwidth."""
    from phalanx.cli import measures

    return [
        ("two workers started", _said(measures.pool_start, "{:.0f} ms", 1e3)),
        ("two workers meet", _said(measures.meeting, "{:.1f} µs", 1e6)),
        ("256 MB copied", _said(measures.copy_speed, "{:.1f} GB/s", 1e-9)),
    ]


def _said(measure: Callable[[], float], form: str, factor: float) -> str:
    """The measured figure, or why there is none: the other rows are worth having all the same."""
    try:
        return form.format(measure() * factor)
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"

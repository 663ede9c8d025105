"""A run's folder: weights, preprocessing, record and report, as files that anybody can read.

weights.safetensors   layer_0.coef [in, out], layer_0.intercept [out], layer_1.coef ...
preprocessing.json    what was learnt of each column
report.html           the report, one self-contained page
run.json              the record; written last, so a folder that has it is whole
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from phalanx.data.plain import check_format, field
from phalanx.data.preprocessing import Preprocessing
from phalanx.errors import InvalidInput, RunFolderError
from phalanx.models.mlp import MLPSpec
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.models.mlp.losses import LOSSES
from phalanx.pure import checks
from phalanx.pure.arrays import Array
from phalanx.report import render
from phalanx.runs.predictor import Predictor
from phalanx.runs.record import Record
from phalanx.training.checkpoint import NAME, TEMPORARY

WEIGHTS, PREPROCESSING = "weights.safetensors", "preprocessing.json"
RECORD, REPORT = "run.json", "report.html"

Part = TypeVar("Part")


@contextmanager
def new_run_folder(path: Path, checkpoints: Path | None = None) -> Iterator[Path]:
    """The folder at `path`, made if it is missing; one made here is gone again if nothing was
    written to it.

    checkpoints: of the same training, which may lie in the folder, or be the folder itself.
    Raises RunFolderError, before the caller starts its work, where the folder cannot be written,
    is a file, or holds anything else.
    """
    is_new = not path.exists()
    try:
        _check_free(path, checkpoints)
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except RunFolderError:
        raise
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield path
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                path.rmdir()  # the system refuses where the folder holds anything


def _check_free(path: Path, checkpoints: Path | None) -> None:
    if path.exists() and not path.is_dir():
        raise RunFolderError(
            f"a run needs a folder of its own; {path} is a file. "
            "Name a folder as --out, e.g. one that is not there yet."
        )
    if (path / RECORD).exists():
        raise RunFolderError(
            f"a run needs a folder of its own; {path} already holds one. "
            "Choose another --out, or delete that folder."
        )
    others = [entry for entry in _entries(path) if not _is_kept(entry, checkpoints)]
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        raise RunFolderError(
            f"a run needs a folder of its own; {path} already holds {min(others).name!r}{more}. "
            "Choose another --out, or empty that folder."
        )


def _entries(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []


def _is_kept(entry: Path, checkpoints: Path | None) -> bool:
    """Whether an entry belongs to the checkpoints, or is a folder that leads to them."""
    if checkpoints is None:
        return False
    folder, here = checkpoints.resolve(), entry.resolve()
    if here in (folder, *folder.parents):
        return True
    is_checkpoint = NAME.fullmatch(entry.name) or TEMPORARY.fullmatch(entry.name)
    return here.parent == folder and bool(is_checkpoint)


def free_folder(name: str, parent: Path = Path("runs")) -> Path:
    """The first of runs/name-1, runs/name-2 ... that is not there."""
    n = 1
    while (parent / f"{name}-{n}").exists():
        n += 1
    return parent / f"{name}-{n}"


def write_run(path: Path, predictor: Predictor, record: Record) -> None:
    """Write all parts, each under a temporary name first. Raises RunFolderError."""
    write_file(path / WEIGHTS, _packed(predictor))
    write_file(path / PREPROCESSING, _json(predictor.preprocessing.to_json()))
    page = render(record).encode(errors="replace")  # a file's name need not be UTF-8
    write_file(path / REPORT, page)
    write_file(path / RECORD, _json(record.to_json()))


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises RunFolderError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _unwritable(path, error) from error


def read_run(path: Path) -> Predictor:
    """The predictor that a run's folder keeps. Raises RunFolderError naming the damaged part."""
    if not path.is_dir():
        raise RunFolderError(
            f"a run must be a folder that 'phalanx train' wrote; {path} is "
            f"{'a file' if path.exists() else 'not there'}. Check the path."
        )
    if not (path / RECORD).exists():
        raise RunFolderError(
            f"a run must be a folder that 'phalanx train' wrote to its end; {path} has no "
            f"{RECORD}. Check the path, or train again."
        )
    spec = _part(path / RECORD, lambda content: _spec(json.loads(content)))
    preprocessing = _part(
        path / PREPROCESSING, lambda content: Preprocessing.from_json(json.loads(content))
    )
    params_N = _part(path / WEIGHTS, lambda content: _unpacked(content, spec))
    try:
        return Predictor(preprocessing, spec, params_N)
    except InvalidInput as error:
        raise _damaged(path, error) from error


def _part(path: Path, read: Callable[[bytes], Part]) -> Part:
    try:
        return read(path.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise RunFolderError(
            f"a run's folder must have a readable {path.name}; {path}: {reason}. Train again, or "
            "copy the whole folder."
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _spec(entry: Any) -> MLPSpec:
    check_format(entry)
    model = field(entry, "model", dict)
    sizes = field(model, "sizes", list)
    if len(sizes) < 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise InvalidInput(f"'sizes' must be two positive integers at least; got {sizes!r:.200}.")
    checks.one_of("'activation'", field(model, "activation", str), ACTIVATIONS)
    checks.one_of("'loss'", field(model, "loss", str), LOSSES)
    checks.one_of("'dtype_name'", field(model, "dtype_name", str), ("float32", "float64"))
    return MLPSpec(tuple(sizes), model["activation"], model["loss"], model["dtype_name"])


def _packed(predictor: Predictor) -> bytes:
    from safetensors.numpy import save

    tensors = {}
    for i, (coef, intercept) in enumerate(
        zip(*predictor.spec.unpack(predictor.parameters), strict=True)
    ):
        tensors[f"layer_{i}.coef"] = np.ascontiguousarray(coef)
        tensors[f"layer_{i}.intercept"] = np.ascontiguousarray(intercept)
    return save(tensors)


def _unpacked(content: bytes, spec: MLPSpec) -> Array:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
    except SafetensorError as error:
        raise InvalidInput(f"{error}.") from None
    layers = list(enumerate(zip(spec.sizes, spec.sizes[1:], strict=False)))
    coefs = [_tensor(tensors, f"layer_{i}.coef", shape, spec) for i, shape in layers]
    biases = [_tensor(tensors, f"layer_{i}.intercept", shape[1:], spec) for i, shape in layers]
    return spec.pack(coefs, biases)


def _tensor(tensors: dict[str, Array], name: str, shape: tuple[int, ...], spec: MLPSpec) -> Array:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != shape or tensor.dtype != spec.dtype:
        got = "nothing" if tensor is None else f"{tensor.dtype} of shape {tensor.shape}"
        raise InvalidInput(f"{name!r} must be {spec.dtype} of shape {shape}; got {got}.")
    return tensor


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, allow_nan=False, indent=1).encode()


def _damaged(path: Path, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"{path} cannot be read: {error} If it is damaged, restore it from a copy or train again."
    )


def _unwritable(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"{path} must be writable; got {error.strerror or error}. Choose another --out, or check "
        "the rights and the space on that disk."
    )

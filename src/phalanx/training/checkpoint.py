"""A checkpoint on disk: named arrays and JSON facts, in one file that is whole or not there.

step-000000123.safetensors    8 bytes that say how long the header is, the header (JSON), the
                              arrays' bytes

The header's `__metadata__` holds texts only:

    format, version   "phalanx checkpoint" and "1"
    step              in decimal
    facts             JSON; what is not finite is Infinity, -Infinity or NaN, as Python writes it
    checksums         JSON; SHA-256 of each array's name, type, shape and bytes
    checksum          SHA-256 of the header without this entry

The header has sorted keys and blanks only at its end, so that a flip of any byte is found. Every
version keeps that, format, version and checksum, so that a reader can tell newer from damaged.
Arrays are read as bytes and facts as JSON, so nothing in a file can run code.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.errors import CheckpointError, InvalidInput
from phalanx.pure import checks
from phalanx.pure.arrays import Array
from phalanx.training import whole_files

FORMAT, VERSION = "phalanx checkpoint", "1"
METADATA = "__metadata__"
WORD = 8  # bytes; the header fills whole ones, so that every array is aligned in the file
TYPES = {"<f4": "F32", "<f8": "F64", "<i8": "I64"}  # numpy's and safetensors' names
NUMPY_TYPES = {theirs: ours for ours, theirs in TYPES.items()}

NAME = re.compile(r"step-([0-9]{9}|[1-9][0-9]{9,})\.safetensors")
TEMPORARY = whole_files.hidden(NAME)


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: its arrays, ready to be written to, and its facts."""

    path: Path
    step: int
    arrays: dict[str, Array]
    facts: dict[str, Any]


def check_folder(folder: Path) -> None:
    """Make the folder if it is missing, try to write to it, and clear it of what the killed left.

    Raises CheckpointError, before the caller starts its work, where the folder cannot be written.
    """
    try:
        whole_files.prepare(folder, TEMPORARY)
    except OSError as error:
        raise CheckpointError(
            f"checkpoints need a folder that can be written; got {folder}: {_reason(error)}. "
            "Choose another folder, or check the rights and the space on that disk."
        ) from error


def save(
    folder: Path, step: int, arrays: Mapping[str, Array], facts: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write a checkpoint to last, then delete older ones until `keep` are left; its path.

    Killed at any moment, it leaves the earlier checkpoints as they were. Raises CheckpointError,
    naming the last good one, where it cannot be written; InvalidInput for an array of another type
    than float32, float64 and int64, for `step` < 0 and `keep` < 1; TypeError for facts that are no
    JSON.
    """
    checks.number("step", step, integer=True, at_least=0)
    checks.number("keep", keep, integer=True, at_least=1)
    path = folder / f"step-{step:09d}.safetensors"
    largest_first = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    ordered = {name: np.asarray(array, order="C") for name, array in largest_first}
    header = _header(step, ordered, facts)
    size = len(header).to_bytes(WORD, "little")
    try:
        whole_files.write(path, [size, header, *map(_bytes_of, ordered.values())])
    except OSError as error:
        last = _last_whole(folder)
        raise CheckpointError(
            f"a checkpoint needs a folder that can be written; got {path}: {_reason(error)}. "
            f"{f'The last good one is {last}' if last else 'No earlier one can be read there'}. "
            "Check the rights and the space on that disk."
        ) from error
    _forget_older(path, keep)
    return path


def load(path: Path) -> Saved:
    """The checkpoint in a file, or the newest of a folder.

    Raises CheckpointError, naming another that is whole, where it is missing, damaged, no
    checkpoint or of a newer format.
    """
    file = newest(path) if path.is_dir() else path
    if file is None:
        raise CheckpointError(
            f"a checkpoint must be a file that Phalanx saved, or a folder of them; {path} holds "
            "none. Check the path, or train from the start."
        )
    try:
        return _read(file)
    except (OSError, InvalidInput) as error:
        other = _last_whole(file.parent, besides=file)
        advice = f"Pass {other} instead" if other else "Restore it from a copy"
        raise CheckpointError(
            f"a checkpoint must be a whole file that Phalanx saved; {file}: {_reason(error)}. "
            f"{advice}, or train from the start."
        ) from error


def newest(folder: Path) -> Path | None:
    """The checkpoint of the highest step, unread. CheckpointError where none can be listed."""
    return next(iter(_newest_first(folder)), None)


def _header(step: int, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> bytes:
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = _entry(name, array) | {"data_offsets": [start, end]}
    header[METADATA] = {
        "format": FORMAT,
        "version": VERSION,
        "step": str(step),
        "facts": _json(dict(facts)),
        "checksums": _json({name: _checksum(name, array) for name, array in arrays.items()}),
    }
    return _sealed(header)


def _entry(name: str, array: Array) -> dict[str, Any]:
    if array.dtype.str not in TYPES or name == METADATA:
        raise InvalidInput(
            f"an array in a checkpoint must be float32, float64 or int64 and not be named "
            f"{METADATA!r}; got {name!r} of {array.dtype.str}. Convert or rename it."
        )
    return {"dtype": TYPES[array.dtype.str], "shape": list(array.shape)}


def _checksum(name: str, array: Array) -> str:
    digest = sha256(_json([name, TYPES[array.dtype.str], array.shape]).encode())
    digest.update(_bytes_of(array))
    return digest.hexdigest()


def _sealed(header: dict[str, Any]) -> bytes:
    """The header as bytes, with its own checksum added."""
    header[METADATA]["checksum"] = sha256(_json(header).encode()).hexdigest()
    text = _json(header).encode()
    return text + b" " * (-len(text) % WORD)


def _unsealed(text: bytes) -> dict[str, Any]:
    """The header that `_sealed` made these very bytes of. Raises InvalidInput for any other."""
    try:
        header: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput(
            "it is damaged, or no safetensors file: its header cannot be read"
        ) from None
    metadata = header.get(METADATA) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise InvalidInput(
            "it is no checkpoint of Phalanx, or a damaged one: its header does not name the format"
        )
    metadata.pop("checksum", None)
    if _sealed(header) != text:
        raise InvalidInput("it is damaged: its header does not match its checksum")
    if metadata.get("version") != VERSION:
        raise InvalidInput(
            f"a newer Phalanx wrote it, in version {metadata.get('version')} of the format; this "
            f"one reads version {VERSION}: upgrade Phalanx"
        )
    return header


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _read(path: Path) -> Saved:
    """Raises OSError, or InvalidInput that says what is wrong with the file."""
    content = np.fromfile(path, np.uint8)
    start = WORD + int.from_bytes(content[:WORD].tobytes(), "little")
    header = _unsealed(content[WORD:start].tobytes())
    metadata = header.pop(METADATA)
    body = content[start:]
    size = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if body.size != size:
        raise InvalidInput(f"it is damaged: its arrays take {size} bytes, but {body.size} are left")
    arrays = {name: _array(body, entry) for name, entry in header.items()}
    checksums = json.loads(metadata["checksums"])
    for name, array in arrays.items():
        if _checksum(name, array) != checksums[name]:
            raise InvalidInput(f"it is damaged: the array {name!r} does not match its checksum")
    return Saved(path, int(metadata["step"]), arrays, json.loads(metadata["facts"]))


def _array(body: Array, entry: Mapping[str, Any]) -> Array:
    start, end = entry["data_offsets"]
    return body[start:end].view(NUMPY_TYPES[entry["dtype"]]).reshape(entry["shape"])


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _newest_first(folder: Path) -> list[Path]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(
            f"a folder of checkpoints must be readable; got {folder}: {_reason(error)}. "
            "Check its rights."
        ) from error
    return sorted((folder / name for name in names if NAME.fullmatch(name)), key=_step)[::-1]


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _last_whole(folder: Path, besides: Path | None = None) -> Path | None:
    """The newest checkpoint that can be loaded; None where there is none."""
    with contextlib.suppress(OSError):
        for path in _newest_first(folder):
            with contextlib.suppress(OSError, InvalidInput):
                if path != besides:
                    return _read(path).path
    return None


def _forget_older(path: Path, keep: int) -> None:
    """Delete what is older than `path` beyond `keep`; what cannot be deleted does no harm."""
    with contextlib.suppress(OSError):
        older = [other for other in _newest_first(path.parent) if _step(other) < _step(path)]
        for other in older[keep - 1 :]:
            other.unlink()


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)

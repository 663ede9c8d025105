"""Reading a data file into a table: CSV, Parquet or NPZ, by its suffix."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.data.delimited import read_delimited
from phalanx.data.lookalikes import EXACT, are_codes
from phalanx.data.table import Learnt, Table, holds_text, or_drop
from phalanx.errors import InvalidInput, unknown_name
from phalanx.pure.arrays import Array

Reader = Callable[[Path, Learnt], Table]
TEXTS = ("string", "large_string", "string_view")  # of Arrow
ROW_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls one that has no name


def read_table(path: str | Path, learnt: Learnt = None) -> Table:
    """The table in a file.

    learnt: of the columns that a network was trained on, the texts that each may hold, None where
    it holds numbers; None altogether where there is no network yet.

    CSV: see `read_delimited`. Parquet: numbers, bools and text; integers are codes, so text, where
    float64 would round one; a row index of pandas that has no name is no column. NPZ: each array
    [n] is a column of its name, each array [n, F] the columns name_0 ... name_{F-1}.
    Raises InvalidInput for a file that is not there, cannot be read, or breaks its format's rules.
    """
    path = Path(path)
    if not path.exists():
        raise InvalidInput(f"the data must be a file; there is no {path}. Check the path.")
    if path.is_dir():
        raise InvalidInput(
            f"the data must be a file; {path} is a folder. Name one of the files in it."
        )
    suffix = path.suffix.lower()
    if suffix in PACKED:
        raise InvalidInput(
            f"the data must be a file that is not compressed; {path.name} is, by its suffix. "
            f"Decompress it first, e.g. with {PACKED[suffix]}."
        )
    if suffix not in READERS:
        raise unknown_name(f"the suffix of {path}", suffix, READERS)
    try:
        return READERS[suffix](path, learnt)
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInput(f"{path} must be readable; got {reason}. Check its rights.") from error


def read_npz(path: Path, learnt: Learnt = None) -> Table:
    """The table in the named arrays of an NPZ file; pickled objects are refused."""
    arrays = _npz_arrays(path)
    if not arrays:
        raise InvalidInput(
            f"{path} must hold at least one array; it holds none. Write it with "
            "numpy.savez(path, X=X, y=y)."
        )
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {arrays[name].shape}" for name in arrays)
        advice = "Save the arrays of one set of samples together."
        if "indptr" in arrays:
            advice = "A sparse matrix of scipy.sparse.save_npz is for MLPClassifier in Python."
        raise InvalidInput(
            f"{path}: all arrays must have one row a sample, so one length; got {said}. {advice}"
        )
    n_rows = next(iter(lengths.values()))
    _check_rows(path, n_rows)
    columns: dict[str, Array | InvalidInput] = {}
    for name, array in arrays.items():
        made = _npz_columns(path, name, array, learnt)
        for twice in made.keys() & columns.keys():
            raise InvalidInput(
                f"{path}: every column must have a name of its own; got {twice!r} twice, the "
                f"second time of {name!r}: the columns of an array X [n, F] are X_0, X_1 ... "
                "Rename one of the arrays."
            )
        columns |= made
    return Table(str(path), columns, n_rows)


def _npz_arrays(path: Path) -> dict[str, Array]:
    import zlib
    from zipfile import BadZipFile

    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                return {name: loaded[name] for name in loaded.files}
    except (ValueError, BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise InvalidInput(
            f"{path} must be an NPZ file of plain arrays; it is no NPZ file, is damaged, or holds "
            f"pickled objects ({type(error).__name__}). Write it with numpy.savez(path, X=X, y=y)."
        ) from None
    raise InvalidInput(
        f"{path} must be an NPZ file; it is a single array. Write it with "
        "numpy.savez(path, X=X, y=y)."
    )


def _npz_columns(
    path: Path, name: str, array: Array, learnt: Learnt
) -> dict[str, Array | InvalidInput]:
    if array.ndim > 2 or array.dtype.kind not in "biufU":
        return {
            name: InvalidInput(
                f"{path}: an array must be [n] or [n, F] of numbers, bools or text; {name!r} is "
                f"{array.dtype} of shape {array.shape}. Reshape it{or_drop(name, learnt)}."
            )
        }
    if array.dtype.kind == "U":
        array = array.astype(object)
    if array.ndim == 1 or array.shape[1] == 1:
        return {name: array.ravel()}
    return {f"{name}_{f}": array[:, f] for f in range(array.shape[1])}


def read_parquet(path: Path, learnt: Learnt = None) -> Table:
    """The table in a Parquet file. Raises InvalidInput where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InvalidInput(
            f"reading {path} needs pyarrow, which is not installed. Run `pip install pyarrow`."
        ) from None
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, ValueError) as error:
        raise InvalidInput(
            f"{path} must be a Parquet file; got {error}. Check that it was written to its end."
        ) from None
    _check_rows(path, table.num_rows)
    if len(set(table.column_names)) < len(table.column_names):
        raise InvalidInput(
            f"{path}: every column must have a name of its own; got {table.column_names}. "
            "Rename one of each pair."
        )
    left_out = [n for n in table.column_names if ROW_INDEX.fullmatch(n) and n not in (learnt or {})]
    columns = {
        name: _parquet_column(path, name, table[name], learnt)
        for name in table.column_names
        if name not in left_out
    }
    return Table(str(path), columns, table.num_rows, left_out=tuple(left_out))


def _parquet_column(path: Path, name: str, column: Any, learnt: Learnt) -> Array | InvalidInput:
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    is_text = holds_text(name, learnt)
    if str(kind) in TEXTS or (types.is_null(kind) and is_text):
        return np.array([cell or "" for cell in column.to_pylist()], object)
    if types.is_boolean(kind):
        return _bools(column, is_text)
    if types.is_integer(kind):
        return _integers(column.cast(kind), is_text)
    if types.is_floating(kind) or types.is_null(kind):  # the latter has missing values alone
        return np.asarray(column.cast("float64", safe=False).to_numpy())
    return InvalidInput(
        f"{path}: a column must hold numbers, bools or text; {name!r} holds {column.type}. "
        f"Convert it{or_drop(name, learnt)}."
    )


def _bools(column: Any, is_text: bool | None) -> Array:
    """Bools of Arrow; with missing values among them as text, or as numbers if so learnt."""
    if not column.null_count:
        return np.asarray(column.to_numpy())
    if is_text is False:
        return np.asarray(column.cast("float64").to_numpy())
    return np.array(["" if cell is None else str(cell) for cell in column.to_pylist()], object)


def _integers(column: Any, is_text: bool | None) -> Array:
    """Integers of Arrow as text where they are codes, which their digits say if nothing else."""
    if is_text is None:
        known = column.drop_null().to_numpy()
        is_text = are_codes(map(str, known[np.abs(known) > 10**EXACT].tolist()))
    if is_text:
        return np.array(["" if cell is None else str(cell) for cell in column.to_pylist()], object)
    if column.null_count:
        column = column.cast("float64", safe=False)
    return np.asarray(column.to_numpy())


def _check_rows(path: Path, n_rows: int) -> None:
    if not n_rows:
        raise InvalidInput(f"{path} must have samples; it has none. Add one row for each sample.")


PACKED = {
    ".gz": "gunzip --keep",
    ".bz2": "bunzip2 --keep",
    ".xz": "unxz --keep",
    ".zst": "unzstd",
    ".zip": "unzip",
}
READERS: dict[str, Reader] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".txt": read_delimited,
    ".parquet": read_parquet,
    ".npz": read_npz,
}

"""Reading delimited text (CSV): a header that names the columns, then one line a sample."""

from __future__ import annotations

import contextlib
import csv
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from phalanx.data.bools import spelt_alike
from phalanx.data.lookalikes import (
    EXACT,
    are_codes,
    as_number,
    is_rounded,
    may_be_numbers,
    resemblance,
)
from phalanx.data.table import Learnt, Table, holds_text, or_drop, shown
from phalanx.errors import InvalidInput
from phalanx.pure.arrays import Array

DELIMITERS = ",;\t"
SEPARATOR = re.compile(r'"?sep=(\t|[^\w\s"])"?\s*', re.IGNORECASE)  # Excel's
QUOTED = re.compile(r'"[^"]*("|$)')
EMPTY = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
MISSING = (
    "In a CSV file an empty cell, NA, N/A, NaN, null, None and ? are missing values; a class that "
    "is called so needs another name."
)

Line = tuple[int, list[str]]  # its number in the file, counted from 1, and its cells


def read_delimited(path: Path, learnt: Learnt = None) -> Table:
    """The table in a text file.

    The delimiter is seen from the header: what there is most of outside quotes of commas,
    semicolons and tabs, a tab if there is one in a file called .tsv. Excel's line `sep=X` before
    the header says which it is.
    Cells such as '', 'NA' or 'nan' are missing values, unless a category of the column is called
    so. A column is numbers where every other cell is one, else text; one that mixes both, numbers
    prevailing, is an error when it is used.
    Digits with a leading zero, as 007, are a code, and so is a whole number that float64 would
    round, as 9007199254740993: a column that has one is text. So are 1_000 and digits that are no
    ASCII.
    A column of true and false, in whatever case, has them as True and False.
    A blank line is no sample, but of a single column it is a sample whose cell is missing; one at
    the end of the file is none.
    learnt: of columns that are known, the texts that they may hold, None where they hold numbers,
    whatever their cells look like.
    Raises InvalidInput for a file that is no such text, naming the line.
    """
    lines = _lines(path)
    if not lines:
        raise InvalidInput(
            f"{path} must begin with a line that names the columns; the file is empty. "
            "Check that it was written to its end."
        )
    header = _header(path, lines[0])
    body = lines[1:]
    if not body:
        raise InvalidInput(
            f"{path} must have samples below the header; it has the header alone. "
            "Add one line for each sample."
        )
    _check_widths(path, header, body)
    numbers = [number for number, _ in body]
    cells = zip(*(row for _, row in body), strict=True)
    columns = {
        name: _column(path, name, column, numbers, learnt)
        for name, column in zip(header, cells, strict=True)
    }
    return Table(str(path), columns, len(body), gaps=MISSING)


def _lines(path: Path) -> list[Line]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, _cells_of_any_length():
            first = _first_line(file)
            file.seek(0)
            told = SEPARATOR.fullmatch(first)
            delimiter = told[1] if told else _delimiter(first, path.suffix)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            lines = [(reader.line_num, row) for row in reader]
            return _samples(_below(lines) if told else lines)
    except UnicodeDecodeError:
        raise InvalidInput(
            f"{path} must be text in UTF-8; {_no_utf8(path)}. "
            "Save it as UTF-8, or give it the suffix of its true format."
        ) from None
    except csv.Error as error:
        raise InvalidInput(
            f"{path} must be well-formed CSV; got {error}. Check its quotes, and that it is text."
        ) from None


def _first_line(file: Iterable[str]) -> str:
    """The first that is not blank, without its end."""
    first = next((line for line in file if line.strip("\r\n")), "")
    if "\0" in first:
        raise csv.Error("a byte of zero")
    return first.rstrip("\r\n")


def _delimiter(header: str, suffix: str) -> str:
    bare = QUOTED.sub("", header)
    if suffix.lower() == ".tsv" and "\t" in bare:
        return "\t"
    return max(DELIMITERS, key=bare.count)


def _below(lines: list[Line]) -> list[Line]:
    """The lines below the first that is not blank."""
    first = next(place for place, (_, row) in enumerate(lines) if row)
    return lines[first + 1 :]


def _no_utf8(path: Path) -> str:
    """The first byte that is not, and its line; the decoder knows its place in a buffer only."""
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        return f"byte {error.start + 1:,}, 0x{content[error.start]:02x} in line {line:,}, is not"
    return "it is no longer what it was"


@contextlib.contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Meanwhile csv reads cells beyond its limit of 131,072 characters, which is the process's."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _samples(lines: list[Line]) -> list[Line]:
    """The lines that count: not those that are blank, where a line has more cells than one."""
    filled = [line for line in lines if line[1]]
    if not filled or len(filled[0][1]) > 1:
        return filled
    start = lines.index(filled[0])
    end = len(lines) if lines[-1][1] else len(lines) - 1
    return [(number, row or [""]) for number, row in lines[start:end]]


def _header(path: Path, line: Line) -> list[str]:
    names = [name.strip() for name in line[1]]
    counted = [f"{place}" for place in range(len(names))]  # pandas' own, without or with an index
    is_counted = names in (counted, ["", *counted[:-1]])
    if not is_counted and all(_number(name) is not None for name in names):
        raise InvalidInput(
            f"{path} must begin with a line that names the columns; its first line holds only "
            f"numbers: {', '.join(names[:6])}. Add a line of names above it."
        )
    for place, name in enumerate(names):
        if not name:
            raise InvalidInput(
                f"{path}: every column must have a name; column {place + 1} has none. Name it in "
                "the first line (pandas: write with index=False)."
            )
        if name in names[:place]:
            raise InvalidInput(
                f"{path}: every column must have a name of its own; {name!r} names column "
                f"{names.index(name) + 1} and column {place + 1}. Rename one in the first line."
            )
    return names


def _check_widths(path: Path, header: list[str], body: list[Line]) -> None:
    for number, row in body:
        if len(row) != len(header):
            raise InvalidInput(
                f"{path}: every line must have as many cells as the header, {len(header)}; line "
                f"{number} has {len(row)}. Correct that line; text with commas belongs in quotes."
            )


def _column(
    path: Path,
    name: str,
    raw: tuple[str, ...],
    lines: list[int],
    learnt: Learnt,
) -> Array | InvalidInput:
    """The cells as numbers or text, or the error for a mixture."""
    is_text = holds_text(name, learnt)
    if is_text is None:
        is_text = are_codes(raw)
    if is_text:
        return _text([cell.strip() for cell in raw], (learnt or {}).get(name) or ())
    if may_be_numbers(raw):
        with contextlib.suppress(ValueError):  # most columns are whole, and this is the fast way
            return _numbers(raw)
    cells = [cell.strip() for cell in raw]
    values = [_number(cell) for cell in cells]
    texts = [i for i, value in enumerate(values) if value is None]
    if not texts:
        return np.array(values, np.float64)
    filled = sum(cell.lower() not in EMPTY for cell in cells)
    if 2 * len(texts) < filled:
        first = texts[0]
        return InvalidInput(
            f"{path}: column {name!r} holds numbers, but line {lines[first]} has "
            f"{shown(cells[first])}{_and_more(len(texts) - 1)}. Correct the cell or leave it empty"
            f"{or_drop(name, learnt)}.{resemblance(cells[i] for i in texts)}"
        )
    return spelt_alike(_text(cells))


def _numbers(raw: tuple[str, ...]) -> Array:
    """float64, or int64 where that keeps labels apart: some are rounded, though learnt as numbers.

    Raises ValueError where a cell is none.
    """
    values = np.fromiter(map(float, raw), np.float64, len(raw))
    if np.abs(values).max() > 10**EXACT and any(map(is_rounded, raw)):
        with contextlib.suppress(ValueError, OverflowError):  # some are no int64, so no labels
            return np.array([int(cell) for cell in raw], np.int64)
    return values


def _text(cells: list[str], known: Collection[str] = ()) -> Array:
    """Cells as text, empty where missing; known: categories, though one be called 'NA'."""
    return np.array(
        ["" if cell.lower() in EMPTY and cell not in known else cell for cell in cells], object
    )


def _number(cell: str) -> float | None:
    """The cell as a number, NaN where it is empty, None where it is text."""
    return float("nan") if cell.lower() in EMPTY else as_number(cell)


def _and_more(count: int) -> str:
    return f" (and {count} more such cells)" if count else ""

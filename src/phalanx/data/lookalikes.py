"""Text that was perhaps meant as numbers, and numbers that are rather codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal

from phalanx.data.table import shown

CODE = re.compile(r"\s*0[0-9]+\s*")  # 007 and 01234: digits whose leading zeros mean something
WHOLE = re.compile(r"[+-]?[0-9]+")
EXACT = 15  # float64 has every whole number of so many characters
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
DECIMAL_COMMA = re.compile(r"[+-]?([0-9]*|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+([eE][+-]?[0-9]+)?")


def are_codes(cells: Iterable[str]) -> bool:
    """Whether any cell has a leading zero, or is a whole number that float64 would round.

    A look at its first character, at its length and for a point comes before a closer one.

    >>> are_codes(["12", "0.5", "0"]), are_codes(["12", " 007"]), are_codes(["9007199254740993"])
    (False, True, True)
    """
    return any(
        (cell[:1] <= "0" and CODE.fullmatch(cell))
        or (len(cell) > EXACT and "." not in cell and is_rounded(cell))
        for cell in cells
    )


def is_rounded(cell: str) -> bool:
    """Whether the cell is a whole number that would be another one as float64.

    >>> is_rounded("9007199254740992"), is_rounded("9007199254740993"), is_rounded("1e400")
    (False, True, False)
    """
    digits = cell.strip()
    return bool(WHOLE.fullmatch(digits)) and Decimal(digits) != float(digits)


def may_be_numbers(cells: Iterable[str]) -> bool:
    """Whether all are ASCII without an underscore; Python's float takes more than files mean.

    >>> may_be_numbers(["12", "-2e3"]), may_be_numbers(["1_000"])
    (True, False)
    """
    text = "".join(cells)
    return text.isascii() and "_" not in text


def commas(cells: Iterable[str]) -> str:
    """A sentence where the text of a column is numbers with commas, else nothing.

    >>> commas(["0,5", "12"])
    "Its values look like numbers with a decimal comma, e.g. '0,5': write a point instead."
    """
    known = [cell for cell in cells if cell]
    with_comma = [cell for cell in known if "," in cell]
    if not with_comma or not all(map(_is_number, set(known) - set(with_comma))):
        return ""
    if all(map(THOUSANDS.fullmatch, with_comma)):
        what, cure = "commas between thousands", "leave the commas out"
    elif all(map(DECIMAL_COMMA.fullmatch, with_comma)):
        what, cure = "a decimal comma", "write a point instead"
    else:
        return ""
    return f"Its values look like numbers with {what}, e.g. {with_comma[0]!r}: {cure}."


def leading_zeros(cells: Iterable[str]) -> str:
    """A sentence where leading zeros alone make a column text, else nothing."""
    codes = _among_numbers(cells, CODE.fullmatch)
    if not codes:
        return ""
    return (
        f"It counts as text since a value has a leading zero, e.g. {codes[0]!r}; if they are "
        "numbers, write them without it."
    )


def long_codes(cells: Iterable[str]) -> str:
    """A sentence where only whole numbers that float64 would round make a column text."""
    codes = _among_numbers(cells, is_rounded)
    if not codes:
        return ""
    return (
        f"It counts as text since float64 would round a whole number in it, e.g. {shown(codes[0])};"
        " if they are measured, no codes, write them with a decimal point (Parquet: as double)."
    )


def _among_numbers(cells: Iterable[str], is_code: Callable[[str], object]) -> list[str]:
    """The codes among the cells, if all of these are numbers but for the missing ones."""
    known = [cell for cell in cells if cell]
    return list(filter(is_code, known)) if all(map(_is_number, known)) else []


def resemblance(cells: Iterable[str]) -> str:
    """What a column of text may have been meant to be: a sentence with a space before it."""
    cells = list(cells)
    said = commas(cells) or leading_zeros(cells) or long_codes(cells)
    return f" {said}" if said else ""


def _is_number(cell: str) -> bool:
    return as_number(cell) is not None


def as_number(cell: str) -> float | None:
    """The cell, which has no blanks around it, as a number; None where it is text."""
    if not may_be_numbers((cell,)):
        return None
    try:
        return float(cell)
    except ValueError:
        return None

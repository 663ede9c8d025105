"""What is said on the terminal: results to standard output, errors and progress to the other."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from phalanx.errors import PhalanxError

if TYPE_CHECKING:
    from phalanx.data.table import Table
    from phalanx.runs.evaluation import Evaluation
    from phalanx.runs.predictor import Predictor

BAD_INPUT = 2
CTRL_C = 130  # what a shell expects of a program that Ctrl-C ended

out = Console(highlight=False)
err = Console(highlight=False, stderr=True)


class Commands(TyperGroup):
    """The group of all commands: an error made on purpose, or by the system, is one red message."""

    def main(self, *args: Any, **more: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # it need not have all that we say: R², µs
        try:
            return super().main(*args, **more)
        except OSError as error:
            err.print(f"error: {_refused(error)}", style="red", markup=False, soft_wrap=True)
            _flush_or_forget()
            raise SystemExit(BAD_INPUT) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (PhalanxError, MemoryError) as error:
            err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(BAD_INPUT) from None


def _refused(error: OSError) -> str:
    return (
        f"output and files must be writable; got {error.strerror or error}. Check the space and "
        "the rights there."
    )


def _flush_or_forget() -> None:
    """Leave nothing in standard output for the interpreter to fail on at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str = "") -> None:
    """A line of results, as it is: neither wrapped nor read as markup."""
    out.print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A line that is no result: what is going on, or what to beware of."""
    err.print(Text(text, "yellow"), soft_wrap=True)  # a `style` would colour a live bar as well


def note_unknown(predictor: Predictor, table: Table) -> None:
    """One line on the categories that the training had not; they count as missing values do."""
    from phalanx.data.table import shown

    said = [
        f"{name!r} in {len(cells):,} of {table.n_rows:,} samples (e.g. {shown(cells[0])})"
        for name, cells in predictor.preprocessing.unknown(table).items()
    ]
    if said:
        note(f"categories that the training had not count as missing: {', '.join(said)}")


def say_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str = "",
    justify: Literal["left", "right"] = "right",
) -> None:
    """A table. justify: to which side all columns but the first are set; prose to the left."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    if title:
        out.print(title, style="bold", markup=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD)
    for place, name in enumerate(head):
        table.add_column(escape(name), justify=justify if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)


def say_evaluation(evaluation: Evaluation, judged: str) -> None:
    """The figures, and those by class where there are classes."""
    from phalanx.report import words

    title = words.judged(evaluation.samples, judged)
    figures = evaluation.figures.items()
    rows = [(words.FIGURES[name], words.figure(name, value)) for name, value in figures]
    say_table(("metric", "value"), rows, title)
    if evaluation.classes:
        say_table(
            ("class", "precision", "recall", "F1", "log loss", "samples"),
            [
                (
                    c.label,
                    *map(words.decimals, (c.precision, c.recall, c.f1, c.log_loss)),
                    str(c.samples),
                )
                for c in evaluation.classes
            ],
        )

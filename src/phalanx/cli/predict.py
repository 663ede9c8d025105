"""`phalanx predict`: a run's network applied to a data file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phalanx.cli.console import note, note_unknown
from phalanx.cli.options import Data, RunPath, Workers, path_of, workers_of
from phalanx.errors import InvalidInput

if TYPE_CHECKING:
    from phalanx.data.table import Table
    from phalanx.runs.predictor import Predictor


def predict(
    run: RunPath,
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path_of, help="A CSV file instead of standard output."),
    ] = None,
    proba: Annotated[
        bool, typer.Option("--proba", help="Add the probability of each class.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file that --out names.")
    ] = False,
    workers: Workers = "1",
) -> None:
    """Write a prediction for each sample of a data file, as CSV."""
    from phalanx.data.files import read_table
    from phalanx.runs.folder import read_run, write_file

    count = workers_of(workers)
    if out is not None:
        _check_out(out, data, overwrite)
    predictor = read_run(run)
    table = read_table(data, predictor.preprocessing.learnt)
    text = predictions(predictor, table, proba, count)
    note_unknown(predictor, table)
    if out is None:
        typer.echo(text.encode(), nl=False)  # as in a file, whatever a terminal has
    else:
        write_file(out.resolve(), text.encode())  # of a link, what it leads to
        note(f"predictions {out}")


def _check_out(out: Path, data: Path, overwrite: bool) -> None:
    """Raise InvalidInput where the predictions would replace what is to be kept."""
    if not out.parent.is_dir():
        raise InvalidInput(
            f"--out must be writable; there is no folder {out.parent} for {out.name}. Make it "
            "first, or choose another --out."
        )
    if not out.exists():
        return
    if data.exists() and out.samefile(data):
        raise InvalidInput(
            f"predictions need a file of their own; --out {out} is the data file itself. "
            "Choose another --out."
        )
    if not out.is_file():
        raise InvalidInput(
            f"--out must name a file to be written; {out} is "
            f"{'a folder' if out.is_dir() else 'no ordinary file'}. Name a file, or leave --out "
            "out for standard output."
        )
    if not overwrite:
        raise InvalidInput(
            f"predictions need a file of their own; --out {out} is already there. "
            "Choose another --out, or add --overwrite to replace that file."
        )


def predictions(predictor: Predictor, table: Table, proba: bool, workers: int) -> str:
    """CSV text: a header, then one line a sample."""
    predicted_B = predictor.predict(table, workers)
    columns = {"prediction": list(map(str, predicted_B))}  # a number: so that it reads back equal
    if proba:
        proba_BC = predictor.probabilities(table, workers)
        labels = predictor.preprocessing.target.as_dict()["labels"]
        for c, label in enumerate(labels):
            columns[f"probability_{label}"] = [f"{p:.6g}" for p in proba_BC[:, c]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()

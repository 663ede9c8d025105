"""`phalanx predict`: a run's network applied to a data file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phalanx.cli.console import note, note_unknown
from phalanx.cli.options import Data, RunPath, Workers, workers_of

if TYPE_CHECKING:
    from phalanx.data.table import Table
    from phalanx.runs.predictor import Predictor


def predict(
    run: RunPath,
    data: Data,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV file instead of standard output.")
    ] = None,
    proba: Annotated[
        bool, typer.Option("--proba", help="Add the probability of each class.")
    ] = False,
    workers: Workers = "1",
) -> None:
    """Write a prediction for each sample of a data file, as CSV."""
    from phalanx.data.files import read_table
    from phalanx.runs.folder import read_run, write_file

    count = workers_of(workers)
    predictor = read_run(run)
    table = read_table(data, predictor.preprocessing.learnt)
    text = predictions(predictor, table, proba, count)
    note_unknown(predictor, table)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_file(out, text.encode())
        note(f"predictions {out}")


def predictions(predictor: Predictor, table: Table, proba: bool, workers: int) -> str:
    """CSV text: a header, then one line a sample."""
    predicted_B = predictor.predict(table, workers)
    columns = {"prediction": [_cell(value) for value in predicted_B]}
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


def _cell(value: object) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"

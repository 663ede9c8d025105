"""`phalanx evaluate`: how good a run's network is on a data file."""

from __future__ import annotations

from phalanx.cli.console import note_unknown, say_evaluation
from phalanx.cli.options import Data, RunPath, Workers, workers_of


def evaluate(run: RunPath, data: Data, workers: Workers = "1") -> None:
    """Print the metrics of a run's network on a data file that has the target column."""
    from phalanx.data.files import read_table
    from phalanx.runs.folder import read_run

    count = workers_of(workers)
    predictor = read_run(run)
    table = read_table(data, predictor.preprocessing.learnt)
    evaluation = predictor.evaluate(table, count)
    note_unknown(predictor, table)
    say_evaluation(evaluation, f"samples of {data.name}")

"""`phalanx demo`: the promise, shown on scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phalanx.cli.console import say, say_table
from phalanx.cli.options import Out, Workers, workers_of
from phalanx.cli.settings import Settings

if TYPE_CHECKING:
    from phalanx.cli.fitting import Outcome
    from phalanx.data.table import Table

SHARDS = 4  # so that as many as four workers find something to do
HELD_OUT = 0.25
EPOCHS = 40


def demo(
    workers: Workers = "2",
    epochs: Annotated[
        int | None,
        typer.Option(help="Most passes over the digits.", show_default="40; 600 with --chaos"),
    ] = None,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Kill workers during a training, in front of you.")
    ] = False,
    out: Out = None,
) -> None:
    """Learn handwritten digits with 1, 2 and 3 workers; the answers must be equal to the bit."""
    asked = workers_of(workers)
    if chaos:
        _demo_chaos(asked, epochs, out)
    else:
        _demo(asked, EPOCHS if epochs is None else epochs, out)


def _demo_chaos(asked: int, epochs: int | None, out: Path | None) -> None:
    from phalanx.cli import chaos
    from phalanx.cli.fitting import split
    from phalanx.runs.folder import REPORT, free_folder

    n_epochs = chaos.EPOCHS if epochs is None else epochs
    settings = Settings(workers=asked, shards=SHARDS, epochs=n_epochs, validation_fraction=HELD_OUT)
    settings.check()
    parts = split(digits(), "digit", "classification", HELD_OUT, seed=0)
    folder = out or free_folder("chaos")
    calm, stormy, killed = chaos.under_chaos(parts, settings, folder)
    chaos.say_chaos(calm, stormy, killed)
    has_marks = any(event.what == "worker lost" for event in stormy.run.events)
    say(f"report {folder / REPORT}" + (", with the kills on its timeline" if has_marks else ""))
    _say_verdict([calm, stormy], "the same bits, whatever happened to the workers")


def _demo(asked: int, epochs: int, out: Path | None) -> None:
    from phalanx.cli.fitting import fit_to_the_end, split
    from phalanx.cli.train import say_outcome
    from phalanx.runs.folder import free_folder, new_run_folder, write_run

    settings = {
        count: Settings(workers=count, shards=SHARDS, epochs=epochs, validation_fraction=HELD_OUT)
        for count in sorted({1, 2, 3, asked})
    }
    settings[asked].check()
    parts = split(digits(), "digit", "classification", HELD_OUT, seed=0)
    with new_run_folder(out or free_folder("demo")) as folder:
        outcomes = {count: fit_to_the_end(parts, chosen) for count, chosen in settings.items()}
        record = outcomes[asked].record(
            folder.resolve().name,
            "scikit-learn's digits",
            settings[asked],
            repeats=[_repeat(outcome) for outcome in outcomes.values()],
        )
        write_run(folder, outcomes[asked].predictor, record)
    _say_repeats(outcomes)
    say_outcome(outcomes[asked], folder, asked)
    _say_verdict(list(outcomes.values()), "the same bits for any number of workers")


def digits() -> Table:
    """scikit-learn's 1,797 digits: 64 grey values each, and which digit it is."""
    from sklearn.datasets import load_digits

    from phalanx.data.table import Table

    images_BF, digit_B = load_digits(return_X_y=True)
    columns = {f"pixel_{f}": images_BF[:, f] for f in range(images_BF.shape[1])}
    return Table("scikit-learn's digits", {**columns, "digit": digit_B}, len(digit_B))


def _repeat(outcome: Outcome) -> object:
    from phalanx.runs.record import Repeat

    return Repeat(outcome.run.workers, outcome.run.seconds, outcome.run.digest)


def _say_repeats(outcomes: dict[int, Outcome]) -> None:
    from phalanx.report import words

    rows = []
    for asked, outcome in outcomes.items():
        run, figures = outcome.run, outcome.evaluation.figures
        values = [words.figure(name, figures[name]) for name in ("accuracy", "recall", "f1")]
        rows.append(
            (f"{asked}", f"{run.workers}", *values, words.seconds(run.seconds), run.digest[:12])
        )
    head = ("workers", "at work", "accuracy", "recall", "F1", "time", "digest")
    say_table(
        head, rows, "The same training by more and more workers (time includes starting them)"
    )


def _say_verdict(outcomes: Sequence[Outcome], promise: str) -> None:
    """Say whether all digests are equal; exit with 1 where they are not."""
    digests = {outcome.run.digest for outcome in outcomes}
    if len(digests) > 1:
        say(f"THE DIGESTS DIFFER: the promise is broken: {promise}")
        raise typer.Exit(1)
    say(f"all {len(outcomes)} digests are equal: {promise}")

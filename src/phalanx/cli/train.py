"""`phalanx train`: from a data file to a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phalanx.cli.console import CTRL_C, note, say, say_evaluation
from phalanx.cli.keeping import how_to_go_on, keeping
from phalanx.cli.options import (
    CheckpointEvery,
    CheckpointFolder,
    Cluster,
    Data,
    Hosts,
    Out,
    Resume,
    Trainers,
    cluster_of,
    count_or_auto,
    hidden_of,
    trainers_of,
)
from phalanx.cli.settings import Settings
from phalanx.errors import InvalidInput
from phalanx.pure.stopping import Reason

if TYPE_CHECKING:
    from phalanx.cli.fitting import Outcome, Split
    from phalanx.data.preprocessing import Preprocessing


def train(
    data: Data,
    target: Annotated[str, typer.Option(metavar="COLUMN", help="What is to be predicted.")],
    task: Annotated[
        str | None, typer.Option(help="classification or regression; by default from the target.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out; repeatable.")
    ] = None,
    model: Annotated[str, typer.Option(help="The kind and its hidden layers.")] = "mlp:100",
    workers: Trainers = "2",
    shards: Annotated[
        str, typer.Option(metavar="N|auto", help="Slices of each batch; part of the definition.")
    ] = "auto",
    epochs: Annotated[int, typer.Option(help="Most passes over the data.")] = Settings.epochs,
    batch_size: Annotated[
        str, typer.Option(metavar="N|auto", help="Samples of a step, over all workers.")
    ] = "auto",
    learning_rate: Annotated[float, typer.Option(help="Size of a step.")] = Settings.learning_rate,
    solver: Annotated[
        str, typer.Option(help="adam, adamw, sgd, momentum, nesterov, rmsprop, adagrad, lbfgs.")
    ] = Settings.solver,
    activation: Annotated[
        str,
        typer.Option(help="relu, tanh, logistic, sigmoid, identity, leaky_relu, elu, gelu, silu."),
    ] = Settings.activation,
    dropout: Annotated[float, typer.Option(help="Share of hidden neurons left out.")] = 0.0,
    data_distribution: Annotated[
        str, typer.Option(help="random, sequential, strided, stratified.")
    ] = Settings.data_distribution,
    task_assignment: Annotated[
        str, typer.Option(help="round_robin, load_balanced, dynamic.")
    ] = Settings.task_assignment,
    aggregation: Annotated[
        str, typer.Option(help="mean, sum, max, median, trimmed_mean.")
    ] = Settings.aggregation,
    alpha: Annotated[float, typer.Option(help="L2 penalty on the weights.")] = Settings.alpha,
    loss_threshold: Annotated[
        float | None, typer.Option(help="Stop once an epoch's loss is at most this.")
    ] = None,
    tol: Annotated[
        float,
        typer.Option(help="Least improvement of an epoch; of lbfgs, least gradient."),
    ] = Settings.tol,
    patience: Annotated[
        int,
        typer.Option(metavar="N", help="Stop after more than N epochs without it; not lbfgs."),
    ] = Settings.patience,
    early_stopping: Annotated[
        bool,
        typer.Option(
            "--early-stopping",
            help="Judge epochs by the samples held out, not by the loss; keep the best weights.",
        ),
    ] = False,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of the samples held out for the metrics.")
    ] = Settings.validation_fraction,
    sync_every: Annotated[
        int, typer.Option(metavar="H", help="Steps of each shard before all meet (local SGD).")
    ] = Settings.sync_every,
    wire: Annotated[
        str, typer.Option(help="exact, bf16, fp16: how gradients travel between hosts.")
    ] = Settings.wire,
    seed: Annotated[int, typer.Option(help="Of weights, order and split.")] = Settings.seed,
    checkpoint: CheckpointFolder = None,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    cluster: Cluster = None,
    hosts: Hosts = None,
    out: Out = None,
) -> None:
    """Train a network on a data file and write a run's folder with weights and report."""
    settings = Settings(
        model=hidden_of(model),
        workers=trainers_of(workers),
        shards=count_or_auto("--shards", shards),
        epochs=epochs,
        batch_size=count_or_auto("--batch-size", batch_size),
        learning_rate=learning_rate,
        solver=solver,
        activation=activation,
        dropout=dropout,
        data_distribution=data_distribution,
        task_assignment=task_assignment,
        aggregation=aggregation,
        alpha=alpha,
        loss_threshold=loss_threshold,
        tol=tol,
        patience=patience,
        early_stopping=early_stopping,
        validation_fraction=validation_fraction,
        sync_every=sync_every,
        wire=wire,
        seed=seed,
    )
    settings.check()
    kept = keeping(checkpoint, checkpoint_every, resume)
    kept |= cluster_of(cluster, hosts, settings.workers)
    _train(data, target, task, drop or [], settings, kept, out)


def _train(
    data: Path,
    target: str,
    task: str | None,
    drop: list[str],
    settings: Settings,
    kept: dict[str, Any],
    out: Path | None,
) -> None:
    from phalanx.cli.fitting import fit, split
    from phalanx.cli.progress import progress
    from phalanx.clusters.hosts.launch import speaks
    from phalanx.data.files import read_table
    from phalanx.runs.folder import free_folder, new_run_folder, write_run

    _check_kept(target, drop)
    table = read_table(data).without(drop)
    parts = split(table, target, task, settings.validation_fraction, settings.seed)
    if not speaks():  # the first of several hosts writes the folder and says what came of it
        fit(parts, settings, **kept)
        return
    note(_about(data, parts))
    if table.left_out:
        note(f"left out is {', '.join(table.left_out)}, a row index; pandas' reset_index names it")
    for said in _doubts(parts.preprocessing):
        note(said)
    with new_run_folder(out or free_folder(data.stem), kept.get("checkpoint")) as folder:
        bar = progress(settings.epochs, parts.training.n_rows)
        outcome = fit(parts, settings, bar, **kept)
        record = outcome.record(folder.resolve().name, data.name, settings)
        write_run(folder, outcome.predictor, record)
    say_outcome(outcome, folder, settings.processes)
    if outcome.run.reason == Reason.INTERRUPTED:
        if "checkpoint" in kept:
            note(how_to_go_on(out))
        raise typer.Exit(CTRL_C)


def _check_kept(target: str, drop: list[str]) -> None:
    """Raise InvalidInput where the target is among the columns that are to be left out."""
    if target in drop:
        raise InvalidInput(
            f"--target must name a column that is not left out; got --target {target} and --drop "
            f"{target}. Leave that --drop out, or choose another --target."
        )


def _about(data: Path, parts: Split) -> str:
    from phalanx.report.words import count

    preprocessing, held_out = parts.preprocessing, parts.held_out
    return (
        f"{data.name}: {count(parts.training.n_rows, 'sample')} to train on, "
        f"{held_out.n_rows if held_out else 0:,} held out; "
        f"{count(len(preprocessing.inputs), 'column')} as "
        f"{count(preprocessing.n_features, 'feature')}; {preprocessing.target.task} of "
        f"{preprocessing.target.column!r}"
    )


def _doubts(preprocessing: Preprocessing) -> list[str]:
    """What is text, so that it can be learnt, and was perhaps not meant to be."""
    from phalanx.data.inputs import TextInput
    from phalanx.data.lookalikes import commas, long_codes
    from phalanx.data.targets import ClassTarget

    texts = {c.column: c.categories for c in preprocessing.inputs if isinstance(c, TextInput)}
    said = {name: commas(cells) or long_codes(cells) for name, cells in texts.items()}
    if isinstance(preprocessing.target, ClassTarget):
        said[preprocessing.target.column] = commas(preprocessing.target.labels)
    return [f"column {name!r} is taken for text. {what}" for name, what in said.items() if what]


def say_outcome(outcome: Outcome, folder: Path, asked: int) -> None:
    """Metrics, who worked, what befell them, why it stopped, the digest, where the report is."""
    from phalanx.report import words
    from phalanx.runs.folder import REPORT

    run = outcome.run
    say_evaluation(outcome.evaluation, outcome.judged)
    beside = f" on each of {run.hosts} hosts" if run.hosts > 1 else ""
    idle = f" (of {asked}: there is no more to share)" if run.workers < asked else ""
    say(
        f"{words.count(run.workers, 'worker')}{idle}{beside}, {words.count(run.epochs, 'epoch')}, "
        f"{words.seconds(run.seconds)}, {run.samples_a_second:,.0f} samples a second"
    )
    if summary := words.happened(run.events):
        say(summary)
    say(f"stopped because {words.reason(run)}")
    say(f"digest {run.digest}")
    say(f"report {folder / REPORT}")

"""What several commands ask for alike, and how texts become values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from phalanx.errors import InvalidInput, unknown_name

MODELS = ("mlp",)
HOSTS = 2
ONE_A_CORE = ("auto", -1)


def path_of(text: str) -> Path:
    """The path that an option names; an unset shell variable names none. Raises BadParameter."""
    if not text:
        raise typer.BadParameter(
            "it must name a place; got an empty text. Name one, or leave the option out."
        )
    return Path(text)


Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A CSV (.csv, .tsv, .txt), Parquet or NPZ file, by its suffix.",
        show_default=False,
    ),
]
RunPath = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A folder that 'train' wrote.", show_default=False),
]
Workers = Annotated[
    str,
    typer.Option(metavar="N|auto", help="Processes that share the work; auto or -1: one a core."),
]
Trainers = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="Processes that share the work; -1 is one a core, auto finds the quickest number.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        parser=path_of,
        help="The run's folder; the first free of runs/NAME-1, -2 ...",
    ),
]
CheckpointFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", parser=path_of, help="Keep the state of the training in this folder."
    ),
]
CheckpointEvery = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="How often: '500 steps', '2 epochs', '30 seconds'; by default a minute.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on from the newest checkpoint in that folder; from the start if it has none.",
    ),
]

Cluster = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Train on Ray: auto, HOST:PORT or ray://HOST:PORT."),
]
Hosts = Annotated[
    int | None,
    typer.Option(help="Nodes of the Ray cluster that are to train.", show_default="2"),
]


def workers_of(text: str) -> int:
    """A positive number; 'auto' and -1 are one worker a core. Raises InvalidInput."""
    from phalanx.exchange.processors import processors

    count = trainers_of(text)
    return processors() if count in ONE_A_CORE else int(count)


def trainers_of(text: str) -> int | str:
    """A positive number, -1 for one worker a core, or 'auto'. Raises InvalidInput."""
    return -1 if text == "-1" else count_or_auto("--workers", text, ", -1 for one a core,")


def count_or_auto(name: str, text: str, besides: str = "") -> int | str:
    """A positive integer, or 'auto'. Raises InvalidInput, which says what else is taken."""
    if text == "auto":
        return text
    if not text.isdecimal() or not int(text):
        raise InvalidInput(
            f"{name} must be a positive integer{besides} or 'auto'; got {text!r}. "
            f"Try {name} 2, or {name} auto."
        )
    return int(text)


def cluster_of(address: str | None, hosts: int | None, workers: int | str) -> dict[str, Any]:
    """The argument `cluster` of `fit` that the options mean, if they do. Raises InvalidInput."""
    from phalanx.clusters.ray.cluster import RayCluster

    if address is None and hosts is not None:
        raise InvalidInput(
            f"--hosts can be used with a Ray cluster; got --hosts {hosts} alone. Add --cluster "
            "ADDRESS, or leave --hosts out: torchrun and srun say themselves how many there are."
        )
    if address is None:
        return {}
    wanted = HOSTS if hosts is None else hosts
    each = None if workers in ONE_A_CORE else int(workers)
    return {"cluster": RayCluster(address, wanted, workers_per_host=each)}


def hidden_of(model: str) -> tuple[int, ...]:
    """Sizes of the hidden layers from e.g. 'mlp:128,64'. Raises InvalidInput."""
    kind, _, sizes = model.partition(":")
    if kind not in MODELS:
        raise unknown_name("the kind of --model, before the colon,", kind, MODELS)
    texts = sizes.split(",")
    if not all(text.strip().isdecimal() and int(text) for text in texts):
        raise InvalidInput(
            f"--model mlp must be followed by the sizes of its hidden layers, positive integers; "
            f"got {model!r}. Try --model mlp:100, or --model mlp:128,64."
        )
    return tuple(int(text) for text in texts)


def check_fraction(fraction: float) -> None:
    """Raise InvalidInput unless the held-out share is at least 0 and below 1."""
    from phalanx.pure import checks

    hint = "0 holds none out; 0.2 holds a fifth out."
    checks.number("--validation-fraction", fraction, at_least=0, below=1, hint=hint)

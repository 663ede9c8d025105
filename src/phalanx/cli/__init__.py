"""The command line: `phalanx train | evaluate | predict | doctor | demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from phalanx.cli.console import Commands
from phalanx.cli.demo import demo
from phalanx.cli.doctor import doctor
from phalanx.cli.evaluate import evaluate
from phalanx.cli.predict import predict
from phalanx.cli.train import train

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    help="Neural networks trained by many workers, the same bits for any number of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (train, evaluate, predict, doctor, demo):
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        from phalanx import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Neural networks trained by many workers, the same bits for any number of them."""

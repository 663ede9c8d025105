"""`python -m phalanx`: the command line."""

from phalanx.cli import app

app(prog_name="phalanx")

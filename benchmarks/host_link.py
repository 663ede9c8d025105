"""A slow, long link between two hosts: seconds and bytes a step, for hosts.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import IO, NamedTuple, cast

from data import ROOT
from host_names import BF16, DDP, EXACT, ROUNDS
from netlab import Lab

PROGRAM = Path(__file__).with_name("host_program.py")
HOSTS = 2
RATE, ONE_WAY = "100mbit", "10ms"


class Stages(NamedTuple):
    """Steps of an epoch, epochs that are not counted, epochs that are.

    TCP needs some seconds to find out what the link carries.
    """

    steps: int
    warm: int
    counted: int


STAGES = {
    EXACT: Stages(3, 2, 3),
    BF16: Stages(3, 2, 3),
    ROUNDS: Stages(32, 1, 2),  # one round each
    DDP: Stages(3, 2, 3),
}


@dataclass(frozen=True)
class Journey:
    """What one turn took: seconds and bytes of each host, a step."""

    seconds: float
    sent: float


@dataclass(frozen=True)
class Linked:
    """All turns, by contestant."""

    turns: dict[str, list[Journey]]

    def seconds(self, who: str) -> list[float]:
        return [turn.seconds for turn in self.turns[who]]

    def sent(self, who: str) -> list[float]:
        return [turn.sent for turn in self.turns[who]]


def measure(rounds: int, quick: bool) -> Linked:
    """Let everybody have a turn, round after round, each in a laboratory of its own."""
    turns: dict[str, list[Journey]] = {who: [] for who in STAGES}
    for number in range(1, rounds + 1):
        print(f"link: round {number} of {rounds}", file=sys.stderr)
        for who, stages in STAGES.items():
            turns[who].append(turn(who, Stages(stages.steps, 1, 1) if quick else stages))
    return Linked(turns)


def turn(who: str, stages: Stages) -> Journey:
    """Train, from fresh processes to the end; what was counted of it."""
    steps, epochs = stages.steps, stages.warm + stages.counted
    argv = [sys.executable, "-W", "ignore", str(PROGRAM), who, str(steps), str(epochs)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with Lab(HOSTS, RATE, ONE_WAY) as lab:
        running = [
            lab.popen(host, argv, env=environment(lab, host), **pipes) for host in range(HOSTS)
        ]
        marks = []
        with cast(IO[str], running[0].stdout) as lines:
            for _ in lines:
                marks.append((perf_counter(), sum(map(lab.bytes_sent, range(HOSTS)))))
        said = [process.communicate()[1] for process in running]
        if any(process.returncode for process in running) or len(marks) != epochs:
            raise RuntimeError(f"{who} failed on the slow link: {' '.join(said)[-2000:]}")
    return journey(marks[stages.warm - 1 :], steps)


def journey(marks: Sequence[tuple[float, float]], steps: int) -> Journey:
    """From the first mark to the last.

    >>> journey([(1.0, 100.0), (2.0, 500.0), (3.0, 900.0)], 2)
    Journey(seconds=0.5, sent=100.0)
    """
    (begun, before), (ended, after) = marks[0], marks[-1]
    count = steps * (len(marks) - 1)
    return Journey((ended - begun) / count, (after - before) / HOSTS / count)


def environment(lab: Lab, host: int) -> dict[str, str]:
    """Of a host's process."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return os.environ | lab.environment(host) | {"PYTHONPATH": path}

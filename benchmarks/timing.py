"""Rounds: everybody runs once, one after the other, again and again.

The machine is shared and its speed drifts. Contestants that take turns drift together, so their
ratios in one round hold where absolute times do not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from time import sleep

from cases import Case
from contestants import Contestant, contestants
from others import busy_cores

BREATH = 0.1  # seconds before each turn, in which BLAS threads of the one before fall asleep
WARM_UP_EPOCHS = 1

Times = dict[str, list[float]]  # seconds a step, by contestant, one for each round


@dataclass(frozen=True)
class Timed:
    """A case, where its samples came from, and what everybody took.

    `others` says how many cores other programs kept busy just before each round.
    """

    case: Case
    source: str
    times: Times
    others: list[float]


def time_case(case: Case, rounds: int) -> Timed:
    """Let everybody train the case, `rounds` times in turn."""
    data = case.samples()
    return take_turns(case, data.source, contestants(case, data), rounds)


def take_turns(case: Case, source: str, everybody: Mapping[str, Contestant], rounds: int) -> Timed:
    """Let the contestants train the case in turn, and end what they started."""
    return Timed(case, source, *rounds_of(case.key, case.epochs, everybody, rounds))


def rounds_of(
    key: str, epochs: int, everybody: Mapping[str, Contestant], rounds: int
) -> tuple[Times, list[float]]:
    """What everybody took in each round, and the cores kept busy by others before it."""
    with ExitStack() as stack:
        for contestant in everybody.values():
            stack.callback(contestant.close)
        turn_of_each(everybody, WARM_UP_EPOCHS)
        times: Times = {name: [] for name in everybody}
        others: list[float] = []
        for number in range(1, rounds + 1):
            others.append(busy_cores())
            print(f"{key}: round {number} of {rounds}", file=sys.stderr)
            for name, seconds in turn_of_each(everybody, epochs).items():
                times[name].append(seconds)
    return times, others


def turn_of_each(everybody: Mapping[str, Contestant], epochs: int) -> dict[str, float]:
    """One turn for everybody."""
    taken: dict[str, float] = {}
    for name, contestant in everybody.items():
        sleep(BREATH)
        taken[name] = contestant.round(epochs)
    return taken

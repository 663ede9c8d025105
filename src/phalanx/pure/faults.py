"""Faults on order: what is to go wrong, in which worker, at which step and phase. Pure.

A script is a part of the message by which a worker process takes its job, so a fault needs no
clock and no signal from outside. `phalanx.testing` is how users write one.
"""

from __future__ import annotations

from dataclasses import dataclass

from phalanx.errors import InvalidInput, unknown_name
from phalanx.pure import checks

PHASES = (
    "join",  # a process has taken its seat and not begun anything
    "enter",  # it has seen that a step is open
    "read",  # about to gather the samples of a shard
    "compute",  # has gathered them, about to compute the gradient
    "publish",  # has the gradient, has told nobody
    "wait",  # has told of its shards, waits for the others'
    "reduce",  # about to reduce a block
    "norm",  # has reduced a block of a gradient that is clipped by norm, has told nobody
    "update",  # has saved a block in the journal, about to change it
    "commit",  # has changed the block, has told nobody
    "leave",  # has updated its blocks, about to say so
    "open",  # leads, has decided about the next step, has told nobody
    "evaluate",  # about to score a chunk of validation samples
)
ACTIONS = ("kill", "segfault", "exit", "stop", "hang", "raise")


@dataclass(frozen=True)
class Fault:
    """`worker` does `action` when it comes to `phase` of step number `step`, once.

    step: optimiser steps committed before; for "join", whatever it is. life: 1 for the first
    process in the worker's seat, 2 for its replacement, and so on.
    Raises InvalidInput for an unknown phase or action.
    """

    worker: int
    step: int
    phase: str = "compute"
    action: str = "kill"
    life: int = 1

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise unknown_name("phase", self.phase, PHASES)
        if self.action not in ACTIONS:
            raise unknown_name("action", self.action, ACTIONS)


@dataclass(frozen=True)
class Slow:
    """`worker` takes `factor` times as long for all its work, from step `step` on."""

    worker: int
    factor: float
    step: int = 0

    def __post_init__(self) -> None:
        if not self.factor >= 1:
            raise InvalidInput(f"factor must be at least 1; got {self.factor!r}. 4 is a quarter.")
        checks.become_pythons(self, float, "factor")


Script = tuple[Fault | Slow, ...]


def find(script: Script, worker: int, life: int, step: int, phase: str) -> str | None:
    """The action that is due here, if any."""
    for line in script:
        if not isinstance(line, Fault):
            continue
        at = (line.worker, line.life, line.step if phase != "join" else step, line.phase)
        if at == (worker, life, step, phase):
            return line.action
    return None


active: Script = ()  # set by `phalanx.testing.scripted`

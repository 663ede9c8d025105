"""`phalanx demo --chaos`: workers are killed in front of the user; the answer stays the same."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from phalanx.cli.console import note, say, say_table
from phalanx.errors import InvalidInput

if TYPE_CHECKING:
    from phalanx.arena import Arena
    from phalanx.cli.fitting import Outcome, Split
    from phalanx.cli.settings import Settings
    from phalanx.run import EpochRecord, Event

KILLS = 6
EPOCHS_BETWEEN = 15  # a few times as long as it takes to replace a worker; digits stop near 150
DELAY = 0.001  # seconds after the epoch's end, times the kill's number: each finds another moment
EPOCHS = 600  # more than it takes to learn the digits


def under_chaos(parts: Split, settings: Settings, out: Path) -> tuple[Outcome, Outcome, int]:
    """Train undisturbed by one worker, then by several of whom some are killed.

    Both outcomes, and how many were killed. Writes the second one's folder. Raises InvalidInput for
    fewer than two workers.
    """
    from phalanx.cli.fitting import fit_to_the_end
    from phalanx.runs.folder import new_run_folder, write_run
    from phalanx.runs.record import Repeat

    if settings.processes < 2:
        raise InvalidInput(
            "--chaos kills workers while others go on, so it needs two or more; got "
            f"--workers {settings.workers}. Try --workers 2."
        )
    with new_run_folder(out) as folder:
        note("one worker, undisturbed ...")
        calm = fit_to_the_end(parts, replace(settings, workers=1))
        note(f"{settings.processes} workers, one of whom is killed every {EPOCHS_BETWEEN} epochs")
        killer = Killer()
        stormy = fit_to_the_end(parts, settings, killer)
        repeats = [Repeat(o.run.workers, o.run.seconds, o.run.digest) for o in (calm, stormy)]
        name = folder.resolve().name
        record = stormy.record(name, parts.training.source, settings, repeats=repeats)
        write_run(folder, stormy.predictor, record)
    return calm, stormy, killer.killed


def say_chaos(calm: Outcome, stormy: Outcome, killed: int) -> None:
    """Both, one below the other, and whether they are equal."""
    is_equal = calm.run.digest == stormy.run.digest
    rows = [
        _row("undisturbed", calm, 0),
        _row("under chaos", stormy, killed),
        ("equal", "", "", "", "", "yes" if is_equal else "NO"),
    ]
    head = ("training", "workers", "killed", "accuracy", "time", "digest")
    say_table(head, rows, "The same training, undisturbed and with workers killed")
    say(what_happened(stormy.run.events, killed))


def what_happened(events: Sequence[Event], killed: int) -> str:
    """What befell the workers; a training that has ended misses nobody."""
    from phalanx.report import words

    late = killed - sum(event.what == "worker lost" for event in events)
    said = [words.happened(events)]
    if late > 0:
        said.append(f"{words.count(late, 'worker')} killed too late to be missed")
    if not killed:
        said.append("it ended before any worker was killed")
    return "; ".join(filter(None, said))


def _row(name: str, outcome: Outcome, killed: int) -> tuple[str, ...]:
    from phalanx.report import words

    run = outcome.run
    accuracy = words.figure("accuracy", outcome.evaluation.figures["accuracy"])
    time = words.seconds(run.seconds)
    return name, f"{run.workers}", f"{killed}", accuracy, time, run.digest[:12]


class Killer:
    """A follower that has a thread of its own kill a worker every few epochs.

    From the outside, by SIGKILL, while the workers are in the midst of the next epoch.
    """

    def __init__(self) -> None:
        self.killed = 0
        self._orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="phalanx-killer", daemon=True)

    def epoch(self, number: int, record: EpochRecord) -> None:
        """Order a kill where one is due."""
        kill, rest = divmod(number, EPOCHS_BETWEEN)
        if not rest and kill <= KILLS:
            self._orders.put(kill)

    def event(self, event: Event) -> None:
        """Say what happened."""
        note(str(event))

    def watch(self, arena: Arena) -> None:
        """Nothing is to be seen there."""

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._orders.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            sleep(order * DELAY)
            self.killed += kill_one(order)


def kill_one(order: int) -> int:
    """Kill one worker after another, in turn; how many that were."""
    from phalanx.clusters import pool

    warm = pool._pool  # `warm_pool` is for fits: it ends a pool in which somebody has died
    members = sorted(warm.members, key=lambda member: member.rank) if warm else []
    if members:
        victim = members[order % len(members)]
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
            note(f"kill -9 {victim.pid}, which is worker {victim.rank}")
            return 1
    return 0

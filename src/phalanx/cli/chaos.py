"""`phalanx demo --chaos`: workers are killed in front of the user; the answer stays the same."""

from __future__ import annotations

import os
import queue
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.cli.console import note, say, say_table
from phalanx.errors import InvalidInput

if TYPE_CHECKING:
    from phalanx.arena import Arena
    from phalanx.cli.fitting import Outcome, Split
    from phalanx.cli.settings import Settings
    from phalanx.run import EpochRecord, Event

KILLS = 6
EPOCHS = 600  # so that there is a middle to be killed in


def under_chaos(parts: Split, settings: Settings, out: Path) -> list[Outcome]:
    """Train undisturbed by one worker, then by several of whom some are killed; both outcomes.

    Writes the second one's folder. Raises InvalidInput for fewer than two workers.
    """
    from phalanx.cli.fitting import fit
    from phalanx.record import Repeat
    from phalanx.run_folder import new_run_folder, write_run

    if settings.processes < 2:
        raise InvalidInput(
            "--chaos kills workers while others go on, so it needs two or more; got "
            f"--workers {settings.workers}. Try --workers 2."
        )
    with new_run_folder(out) as folder:
        note("one worker, undisturbed ...")
        calm = fit(parts, replace(settings, workers=1))
        note(f"{settings.processes} workers, of whom one is killed {KILLS} times ...")
        stormy = fit(parts, settings, Killer(settings.epochs))
        outcomes = [calm, stormy]
        repeats = [Repeat(o.run.workers, o.run.seconds, o.run.digest) for o in outcomes]
        name = folder.resolve().name
        record = stormy.record(name, parts.training.source, settings, repeats=repeats)
        write_run(folder, stormy.predictor, record)
    return outcomes


def say_chaos(calm: Outcome, stormy: Outcome) -> None:
    """Both, one below the other."""
    from phalanx.report import words

    rows = []
    for name, outcome in (("undisturbed", calm), ("under chaos", stormy)):
        run, figures = outcome.run, outcome.evaluation.figures
        lost = sum(event.what == "worker lost" for event in run.events)
        accuracy, time = words.figure("accuracy", figures["accuracy"]), words.seconds(run.seconds)
        rows.append((name, f"{run.workers}", f"{lost}", accuracy, time, run.digest[:12]))
    head = ("training", "workers", "lost", "accuracy", "time", "digest")
    say_table(head, rows, "The same training, undisturbed and with workers killed")
    say(words.happened(stormy.run.events))


class Killer:
    """A follower that has a thread of its own kill a worker after each of some epochs.

    From the outside, by SIGKILL, while the workers are in the midst of the next epoch.
    """

    def __init__(self, n_epochs: int) -> None:
        self._every = max(1, n_epochs // (KILLS + 1))
        self._orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="phalanx-killer", daemon=True)

    def epoch(self, number: int, record: EpochRecord) -> None:
        """Order a kill where one is due."""
        kill, rest = divmod(number, self._every)
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
            kill_one(order)


def kill_one(order: int) -> None:
    """Kill one worker after another, in turn."""
    from phalanx.clusters.pool import warm_pool

    members = sorted(warm_pool().members, key=lambda member: member.rank)
    if members:
        victim = members[order % len(members)]
        note(f"kill -9 {victim.pid}, which is worker {victim.rank}")
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)

"""How a training is followed: a live bar on a terminal, else a plain line now and then."""

from __future__ import annotations

from time import monotonic
from typing import Any, Protocol

from phalanx.arena import Arena
from phalanx.cli.console import err
from phalanx.cli.event_lines import EventLines
from phalanx.exchange.seats import Seats
from phalanx.report.words import rounded
from phalanx.run import EpochRecord, Event

SECONDS_BETWEEN_LINES = 1.0
MOST_SHARES = 8  # on one line; of more workers, the smallest and the largest are shown


class Progress(Protocol):
    """Told of every epoch and event, and about twenty times a second of the arena.

    A context manager.
    """

    def epoch(self, number: int, record: EpochRecord) -> None: ...

    def event(self, event: Event) -> None: ...

    def watch(self, arena: Arena) -> None: ...

    def __enter__(self) -> Progress: ...

    def __exit__(self, *error: object) -> None: ...


class Shares:
    """Each worker's part of the shards computed so far."""

    def __init__(self) -> None:
        self.parts: list[float] = [1.0]

    def watch(self, arena: Arena) -> None:
        """Take the counts that the workers keep in the arena, which has seats for more of them."""
        done_W = arena["speed"][Seats(arena).members(), 0]
        if done_W.sum() > 0:
            self.parts = (done_W / done_W.sum()).tolist()

    def __str__(self) -> str:
        if len(self.parts) > MOST_SHARES:
            return f"{min(self.parts):.0%} to {max(self.parts):.0%}"
        return " ".join(f"{part:.0%}" for part in self.parts)


class Plain:
    """A line an event; a line an epoch, at most one a second, and always the last."""

    def __init__(self, n_epochs: int, n_samples: int) -> None:
        self.n_epochs, self.n_samples = n_epochs, n_samples
        self.shares, self._events = Shares(), EventLines()
        self.event = self._events.say
        self._said = 0.0
        self._unsaid = ""

    def epoch(self, number: int, record: EpochRecord) -> None:
        """Say a line, or keep it for the end."""
        self._unsaid = (
            f"epoch {number}/{self.n_epochs}  {figures(record, self.n_samples)}  "
            f"shares {self.shares}"
        )
        if monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say()

    def watch(self, arena: Arena) -> None:
        """Refresh the shares; say how many events were held back."""
        self.shares.watch(arena)
        self._events.sum_up()

    def _say(self) -> None:
        err.print(self._unsaid, markup=False, soft_wrap=True)
        self._said, self._unsaid = monotonic(), ""

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *error: object) -> None:
        self._events.sum_up(at_once=True)
        if self._unsaid:
            self._say()


class Live:
    """A bar of epochs that redraws itself, below a line for each event."""

    def __init__(self, n_epochs: int, n_samples: int) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self.n_samples = n_samples
        self.shares, self._events = Shares(), EventLines()
        self.event = self._events.say  # rich moves the bar below what its console prints
        self._bar = Bar(
            TextColumn("epoch {task.completed:g}/{task.total:g}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[figures]}  shares {task.fields[shares]}"),
            console=err,
        )
        self._task = self._bar.add_task("", total=n_epochs, figures="starting", shares="")

    def epoch(self, number: int, record: EpochRecord) -> None:
        """Move the bar."""
        said = figures(record, self.n_samples)
        self._bar.update(self._task, completed=number, figures=said, shares=self.shares)

    def watch(self, arena: Arena) -> None:
        """Refresh the shares; say how many events were held back."""
        self.shares.watch(arena)
        self._bar.update(self._task, shares=self.shares)
        self._events.sum_up()

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._events.sum_up(at_once=True)
        self._bar.stop()


def figures(record: EpochRecord, n_samples: int) -> str:
    """Loss, held-out score if any, and samples a second of an epoch."""
    score = "" if record.score is None else f"  score {record.score:.4f}"
    speed = n_samples / max(record.seconds, 1e-9)
    return f"loss {record.loss:.5f}{score}  {rounded(speed)} samples/s"


def progress(n_epochs: int, n_samples: int) -> Any:
    """What suits standard error: a bar on a terminal, plain lines elsewhere."""
    return (Live if err.is_terminal else Plain)(n_epochs, n_samples)

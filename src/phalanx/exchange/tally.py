"""A tally: who has done which of the tasks that anybody may do.

There is a word for each worker and task, written by that worker alone, and each worker keeps its
results in memory of its own. So a task may be done twice, by two workers at once, without a lock:
both results are the same to the bit, and whoever needs one takes any that is published.
"""

from __future__ import annotations

from collections.abc import Iterable

from phalanx.arena import Arena
from phalanx.exchange.board import fence


class Tally:
    """The words of one kind of task, seen by one worker."""

    def __init__(self, arena: Arena, name: str, rank: int) -> None:
        self.n_tasks = arena[name].shape[1]
        self.words = arena.words(name)
        self._mine = rank * self.n_tasks

    def publish(self, task: int, tick: int) -> None:
        """Let everybody see that I have done a task, and the result written before."""
        fence()
        self.words[self._mine + task] = tick

    def doer(self, task: int, tick: int, ranks: Iterable[int]) -> int | None:
        """Somebody among `ranks` who has done a task in `tick`, if there is anybody."""
        for rank in ranks:
            if self.words[rank * self.n_tasks + task] >= tick:
                return rank
        return None

"""Whose turn it is to have the workers: one job after another, but for those in a callback.

The code in a job's callback may run other jobs, and wait for threads that do. They have their turns
inside that one, which goes on when they are over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Turns inside turns: the innermost is the last, and it alone works."""

    def __init__(self) -> None:
        self._open: list[Turn] = []
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Wait for a turn of this thread's, and have it until the context is left."""
        turn = Turn(self._open, self._changed)
        try:  # around all of it, since Ctrl-C may come between any two lines
            with self._changed:
                self._changed.wait_for(lambda: self._lets_in(turn.thread))
                turn.is_inside = bool(self._open)
                self._open.append(turn)
            yield turn
        finally:
            with self._changed:
                if turn in self._open:
                    self._open.remove(turn)
                    self._changed.notify_all()

    def _lets_in(self, thread: int) -> bool:
        if not self._open:
            return True
        last = self._open[-1]
        return last.is_in_callback or last.thread == thread


class Turn:
    """One job's, in this thread. is_inside: whether another one waits for its end."""

    def __init__(self, open_: list[Turn], changed: threading.Condition) -> None:
        self.thread = threading.get_ident()
        self.is_inside = self.is_in_callback = False
        self._open, self._changed = open_, changed

    @contextmanager
    def callback(self) -> Iterator[None]:
        """Within it turns of any thread may begin; on leaving it, those that did are waited for."""
        try:
            with self._changed:
                self.is_in_callback = True
                self._changed.notify_all()
            yield
        finally:
            with self._changed:
                self.is_in_callback = False
                self._changed.wait_for(lambda: self._open[-1] is self)

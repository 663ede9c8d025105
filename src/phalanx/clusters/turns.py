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
        thread = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._lets_in(thread))
            turn = Turn(thread, bool(self._open), self._open, self._changed)
            self._open.append(turn)
        try:
            yield turn
        finally:
            with self._changed:
                self._open.remove(turn)
                self._changed.notify_all()

    def _lets_in(self, thread: int) -> bool:
        if not self._open:
            return True
        last = self._open[-1]
        return last.is_in_callback or last.thread == thread


class Turn:
    """One job's. is_inside: whether another one waits for its end."""

    def __init__(
        self, thread: int, is_inside: bool, open_: list[Turn], changed: threading.Condition
    ) -> None:
        self.thread, self.is_inside, self.is_in_callback = thread, is_inside, False
        self._open, self._changed = open_, changed

    @contextmanager
    def callback(self) -> Iterator[None]:
        """Within it turns of any thread may begin; on leaving it, those that did are waited for."""
        with self._changed:
            self.is_in_callback = True
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.is_in_callback = False
                self._changed.wait_for(lambda: self._open[-1] is self)

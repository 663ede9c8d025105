"""Wishes about a training that is running, made from a callback or from any other thread."""

from __future__ import annotations

import threading

from phalanx.clusters.base import Session
from phalanx.pure import checks


class Control:
    """How many workers are wanted; whoever runs the training takes note of it.

    session: who carries the wishes out; None where there are no workers. has_begun: whether this
    host has the training's state, from the start or from others; it need not have workers yet.
    """

    def __init__(self, workers: int) -> None:
        self.session: Session | None = None
        self.has_begun = False
        self._lock = threading.Lock()
        self._workers = workers
        self._is_paused = False  # asked for while there was no session

    @property
    def workers(self) -> int:
        """Workers that are wanted now."""
        return self._workers

    def resize(self, workers: int) -> None:
        """Want this many workers from the next step on; of no effect once the training is over.

        Raises InvalidInput unless it is a positive integer.
        """
        checks.number("the number of workers", workers, integer=True, at_least=1)
        with self._lock:
            self._workers = int(workers)
            if self.session is not None:
                self.session.resize(self._workers)

    def pause(self) -> None:
        """Have all hosts halt after the same step, to go on in another session."""
        with self._lock:
            if self.session is None:
                self._is_paused = True
            else:
                self.session.pause()

    def go_on(self) -> None:
        """Forget a pause that was asked for while there was no session."""
        with self._lock:
            self._is_paused = False

    def attach(self, session: Session | None) -> None:
        """The session that is to follow the wishes from now on; None for nobody."""
        with self._lock:
            self.session = session
            if session is not None:
                session.resize(self._workers)
            if session is not None and self._is_paused:
                self._is_paused = False
                session.pause()

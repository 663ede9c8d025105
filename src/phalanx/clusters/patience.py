"""How long a silent worker is waited for: a bound that follows the measured time of a step. Pure:
times in seconds and signs of life are handed in."""

from __future__ import annotations

from collections.abc import Sequence

FIRST_BOUND = 30.0  # seconds, until a step has been measured
LEAST_BOUND = 0.5  # seconds; a machine that is busy with other things may well pause for a tenth
FACTOR = 20  # times the longest step


class Patience:
    """When each worker last gave a sign of life, and how long a sign may be missing."""

    def __init__(self, n_seats: int) -> None:
        self._signs: list[object] = [None] * n_seats
        self._since = [0.0] * n_seats
        self._warned = [0] * n_seats
        self._opened, self._opened_since = -1, 0.0
        self._longest = 0.0

    def begin(self, now: float) -> None:
        """Nobody has been silent yet."""
        self._since, self._warned = [now] * len(self._since), [0] * len(self._warned)
        self._opened = -1

    @property
    def bound(self) -> float:
        """Seconds of silence after which a worker that others wait for is stuck."""
        return max(LEAST_BOUND, FACTOR * self._longest) if self._longest else FIRST_BOUND

    def silent(self, now: float, opened: int, signs: Sequence[object]) -> list[int]:
        """Ranks that have shown the same sign for longer than the bound.

        Each time that a rank is named, the bound doubles for it until the next step: who is merely
        slow gets through. The silence itself is no measure of the step, else each would be waited
        for `FACTOR` times longer than the one before.
        """
        self._measure(now, opened)
        found = []
        for rank, sign in enumerate(signs):
            if sign != self._signs[rank]:
                self._signs[rank], self._since[rank] = sign, now
            elif now - self._since[rank] > self.bound * 2 ** self._warned[rank]:
                self._since[rank] = self._opened_since = now
                self._warned[rank] += 1
                found.append(rank)
        return found

    def _measure(self, now: float, opened: int) -> None:
        if opened != self._opened:
            if self._opened >= 0:
                seconds = (now - self._opened_since) / (opened - self._opened)
                self._longest = max(self._longest, seconds)
                self._warned = [0] * len(self._warned)
            self._opened, self._opened_since = opened, now

"""How long a silent worker is waited for: a bound that follows the measured time of a step. Pure:
times in seconds and signs of life are handed in."""

from __future__ import annotations

from collections.abc import Collection, Sequence

FIRST_BOUND = 30.0  # seconds, until a step has been measured
LEAST_BOUND = 0.5  # seconds; a machine that is busy with other things may well pause for a tenth
FACTOR = 20  # times the longest step of late
FADING = 0.8  # of what was once long, with each look that finds new steps
LONGEST_LOOK = 0.25  # seconds between two looks that count; in more, the driver was held up too


class Patience:
    """When each worker last gave a sign of life, and how long a sign may be missing.

    On a clock that stands still while nobody looks: when a whole machine pauses, nobody in it could
    have given a sign.
    """

    def __init__(self, n_seats: int) -> None:
        self._now = self._looked = 0.0  # on that clock; on the caller's
        self._signs: list[object] = [None] * n_seats
        self._since = [0.0] * n_seats
        self._named = [0] * n_seats
        self._is_new = [False] * n_seats
        self._begun = self._opened = -1
        self._opened_since = self._measured_since = self._longest = 0.0
        self._was_away = False  # since then

    def begin(self, now: float, opened: int) -> None:
        """Nobody has been silent yet, and no step was opened since."""
        self._looked = now
        self._since, self._named = [self._now] * len(self._since), [0] * len(self._named)
        self._begun = self._opened = opened
        self._opened_since = self._measured_since = self._now
        self._was_away = False

    def forget(self, rank: int) -> None:
        """Another process is to have the seat; until its first sign it has the first bound."""
        self._signs[rank], self._since[rank], self._is_new[rank] = None, self._now, True

    @property
    def step_age(self) -> float:
        """Seconds that the present step has been open, as far as was seen."""
        return self._now - self._opened_since

    @property
    def bound(self) -> float:
        """Seconds of silence after which a worker that others wait for is stuck."""
        return max(LEAST_BOUND, FACTOR * self._longest) if self._longest else FIRST_BOUND

    def silent(
        self, now: float, opened: int, signs: Sequence[object], among: Collection[int]
    ) -> list[int]:
        """Those `among` the ranks that have shown the same sign for longer than the bound.

        Each time that a rank is named, the bound doubles for it until the next step: who is merely
        slow gets through. The silence itself is no measure of the step, else each would be waited
        for `FACTOR` times longer than the one before.
        """
        away = now - self._looked
        self._now += min(away, LONGEST_LOOK)
        self._looked, self._was_away = now, self._was_away or away > LONGEST_LOOK
        self._measure(opened)
        found = []
        for rank, sign in enumerate(signs):
            if sign != self._signs[rank]:
                self._is_new[rank] = self._signs[rank] is None and self._is_new[rank]
                self._signs[rank], self._since[rank] = sign, self._now
            elif rank in among and self._now - self._since[rank] > self._bound_of(rank):
                self._since[rank] = self._measured_since = self._now
                self._named[rank] += 1
                found.append(rank)
        return found

    def _bound_of(self, rank: int) -> float:
        bound = FIRST_BOUND if self._is_new[rank] else self.bound
        return float(bound * 2 ** self._named[rank])

    def _measure(self, opened: int) -> None:
        if opened == self._opened:
            return
        # the first step may include starting processes; alone it is no measure
        if not self._was_away and (self._opened > self._begun or opened > self._begun + 1):
            seconds = (self._now - self._measured_since) / (opened - self._opened)
            self._longest = max(FADING * self._longest, seconds)
        self._named = [0] * len(self._named)
        self._opened = opened
        self._opened_since = self._measured_since = self._now
        self._was_away = False

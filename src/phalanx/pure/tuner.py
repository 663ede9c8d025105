"""The tuner: finds the number of workers with which a training runs quickest, by trying. Pure.

Trying is safe, since the answer does not depend on the number. It halves the number from the most
to one, then looks at the neighbours of the best, and keeps to it; now and then it looks again.
"""

from __future__ import annotations

SETTLE = 0.1  # seconds after a change that are not measured
WINDOW = 0.25  # seconds of a measurement, at least
TICKS = 8  # in a measurement, at least
HOLD = 60.0  # seconds until it looks again


class Tuner:
    """Told of the time and the number of steps now and then, it says how many workers to use."""

    def __init__(self, most: int) -> None:
        self.most, self.workers = most, most
        self._speeds: dict[int, float] = {}
        self._changed, self._since, self._ticks = -1.0, -1.0, 0
        self._settled = False

    def look(self, now: float, tick: int) -> int:
        """How many workers to use from now on; seconds, and the number of the last step."""
        if self._changed < 0:
            self._begin(now, tick)
        elif self._settled:
            if now - self._changed > HOLD:
                self._speeds, self._settled = {}, False
                self._begin(now, tick)
        elif self._since - self._changed < SETTLE:
            self._since, self._ticks = now, tick
        elif now - self._since >= WINDOW and tick - self._ticks >= TICKS:
            self._speeds[self.workers] = (tick - self._ticks) / (now - self._since)
            self._choose(now, tick)
        return self.workers

    def _begin(self, now: float, tick: int) -> None:
        self._changed = self._since = now
        self._ticks = tick

    def _choose(self, now: float, tick: int) -> None:
        """The next number to try, or the best of those tried."""
        best = max(self._speeds, key=lambda workers: self._speeds[workers])
        halves = [max(1, self.most >> k) for k in range(self.most.bit_length())]
        neighbours = [n for n in (best - 1, best + 1) if 1 <= n <= self.most]
        untried = [n for n in halves + neighbours if n not in self._speeds]
        self._settled = not untried
        self.workers = untried[0] if untried else best
        self._begin(now, tick)

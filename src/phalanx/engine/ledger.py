"""The ledger: what each epoch of a lease came to, written by the leader, in the arena.

Row 0 is where the lease began; row e + 1 follows from row e. A row is written anew, with the same
content, by whoever takes over from a leader that died while writing it.
"""

from __future__ import annotations

from math import nan

from phalanx.arena import Arena
from phalanx.job import LEDGER_COLUMNS
from phalanx.pure.arrays import Array
from phalanx.pure.stopping import Progress, Reason
from phalanx.run import EpochRecord

REASONS = (None, *Reason)
LOSS, SCORE, SECONDS, REASON, RATE = range(5)


class Ledger:
    """The rows as records."""

    def __init__(self, arena: Arena, is_scored: bool) -> None:
        self._rows = arena["ledger"]
        self._words = arena.words("ledger")
        self._sums, self._n_measures = arena["epoch_sums"], arena["measures"].shape[1]
        self._is_scored = is_scored

    def begin(self, progress: Progress) -> None:
        """Write row 0."""
        self._rows[0] = (nan, nan, 0.0, 0, *progress)

    def rate(self, row: int) -> float:
        """The learning rate of the epoch that follows row `row`."""
        return float(self._words[row * LEDGER_COLUMNS + RATE])

    def progress(self, row: int) -> Progress:
        """What the rule remembers after row `row`."""
        rate, epochs, seen, best_loss, best_score, stale, improved = self._rows[row, RATE:].tolist()
        return Progress(
            rate, int(epochs), int(seen), best_loss, best_score, int(stale), bool(improved)
        )

    def write(
        self,
        row: int,
        loss: float,
        score: float | None,
        seconds: float,
        progress: Progress,
        reason: Reason | None,
    ) -> None:
        """Write a row."""
        shown = nan if score is None else score
        self._rows[row] = (loss, shown, seconds, REASONS.index(reason), *progress)

    def write_sums(self, row: int, measures_M: Array, scores_M: Array) -> None:
        """Write the sums of the training samples' measures, and of the validation chunks."""
        self._sums[row, : self._n_measures] = measures_M
        self._sums[row, self._n_measures : self._n_measures + len(scores_M)] = scores_M

    def records(self, first: int, last: int) -> list[EpochRecord]:
        """The epochs from `first` up to but without `last`, counted from the lease's start."""
        return [self._record(epoch + 1) for epoch in range(first, last)]

    def _record(self, row: int) -> EpochRecord:
        loss, score, seconds, reason = self._rows[row, :RATE].tolist()
        return EpochRecord(
            loss,
            score if self._is_scored else None,
            self.rate(row - 1),
            seconds,
            self.progress(row),
            REASONS[int(reason)],
            tuple(self._sums[row, : self._n_measures].tolist()),
            tuple(self._sums[row, self._n_measures :].tolist()) if self._is_scored else (),
        )

"""The ledger: what each epoch of a lease came to, written by the leader, in the arena.

Row 0 is where the lease began; row e + 1 follows from row e. A row is written anew, with the same
content, by whoever takes over from a leader that died while writing it.
"""

from __future__ import annotations

from itertools import pairwise
from math import nan
from struct import Struct
from typing import Any

from phalanx.arena import Arena
from phalanx.job import LEDGER_COLUMNS
from phalanx.pure.arrays import Array
from phalanx.pure.stopping import Progress, Reason
from phalanx.run import EpochRecord

REASONS = (None, *Reason)
SECONDS, RATE = 2, 4  # columns; the others: loss, score, reason
ROW = Struct("dddq dqqddq?7x")  # eight bytes a column; from RATE on, the fields of Progress


class Ledger:
    """The rows as records."""

    def __init__(self, arena: Arena, is_scored: bool) -> None:
        self._words = arena.words("ledger")
        self._rows = self._words.cast("B")
        self._sums, self._n_measures = arena["epoch_sums"], arena["measures"].shape[1]
        self._is_scored = is_scored

    def begin(self, progress: Progress) -> None:
        """Write row 0."""
        self._put(0, nan, nan, 0.0, 0, *progress)

    def rate(self, row: int) -> float:
        """The learning rate of the epoch that follows row `row`."""
        return float(self._words[row * LEDGER_COLUMNS + RATE])

    def progress(self, row: int) -> Progress:
        """What the rule remembers after row `row`."""
        return Progress(*ROW.unpack_from(self._rows, row * ROW.size)[RATE:])

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
        shown, why = nan if score is None else score, REASONS.index(reason)
        self._put(row, loss, shown, seconds, why, *progress)

    def _put(self, row: int, *columns: float) -> None:
        """In one piece: where it is written anew, a reader sees the same at any time."""
        self._rows[row * ROW.size : (row + 1) * ROW.size] = ROW.pack(*columns)

    def write_sums(self, row: int, measures_M: Array, scores_M: Array) -> None:
        """Write the sums of the training samples' measures, and of the validation chunks."""
        self._sums[row, : self._n_measures] = measures_M
        self._sums[row, self._n_measures : self._n_measures + len(scores_M)] = scores_M

    def records(self, first: int, last: int) -> list[EpochRecord]:
        """The epochs from `first` up to but without `last`, counted from the lease's start."""
        rows = ROW.iter_unpack(self._rows[first * ROW.size : (last + 1) * ROW.size])
        sums = self._sums[first + 1 : last + 1]
        return [
            self._record(before[RATE], row, sums_M.tolist())
            for (before, row), sums_M in zip(pairwise(rows), sums, strict=True)
        ]

    def _record(self, rate: float, row: tuple[Any, ...], sums_M: list[float]) -> EpochRecord:
        n, (loss, score, seconds, reason) = self._n_measures, row[:RATE]
        return EpochRecord(
            loss,
            score if self._is_scored else None,
            rate,
            seconds,
            REASONS[reason],
            tuple(sums_M[:n]),
            tuple(sums_M[n:]) if self._is_scored else (),
        )

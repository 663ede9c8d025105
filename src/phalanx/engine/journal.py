"""The undo journal: what a block was before the update that its worker did not live to finish.

A worker copies a block (parameters and optimiser state) into its own page of the journal, marks
the page with tick and block, and only then changes the block. Whoever takes the block over finds
the mark and puts the copy back before doing the update anew. What a process had written when it
died is all there, in order, since another one looks at it only after the kernel has ended it.
"""

from __future__ import annotations

from phalanx.arena import Arena
from phalanx.pure.arrays import Array

UNMARKED = 0  # ticks count from 1


class Journal:
    """All pages, seen by the worker that writes one of them."""

    def __init__(self, arena: Arena, rank: int) -> None:
        self._pages = arena["journal"]
        self._marks = arena.words("journal_marks")
        self._n_blocks = len(arena["blocks_done"])
        self._rank = rank
        self._page = self._pages[rank] if len(self._pages) else None

    def save(self, tick: int, block: int, values_Xn: Array) -> None:
        """Copy a block and mark it as being changed; the caller's own process has no heir."""
        if self._page is not None:
            self._page[:, : values_Xn.shape[1]] = values_Xn
            self._marks[self._rank] = tick * self._n_blocks + block

    def unfinished(self, tick: int) -> int | None:
        """The block that a former process in my seat had begun to change in this tick, if any.

        It must be restored before my first `save`, which takes the page.
        """
        marked, block = divmod(self._marks[self._rank], self._n_blocks)
        return int(block) if marked == tick else None

    def clear(self) -> None:
        """Take the mark off my page: what I save next is to overwrite it."""
        self._marks[self._rank] = UNMARKED

    def restore(self, tick: int, block: int, values_Xn: Array) -> None:
        """Put back what the block was, if somebody had begun to change it in this tick."""
        mark = tick * self._n_blocks + block
        for page, marked in zip(self._pages, self._marks, strict=False):
            if marked == mark:
                values_Xn[...] = page[:, : values_Xn.shape[1]]
                return

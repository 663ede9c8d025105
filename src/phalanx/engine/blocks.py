"""The blocks of the parameters: each is reduced, saved and updated by its owner, or its heir."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from phalanx.arena import Arena
from phalanx.engine.block import Block
from phalanx.engine.journal import Journal
from phalanx.engine.ledger import Ledger
from phalanx.engine.post import Post
from phalanx.engine.shards import Shards
from phalanx.exchange.board import fence
from phalanx.job import UNCLIPPED
from phalanx.pure.aggregation import checked, mean
from phalanx.pure.arrays import Array, aligned_empty, padded_rows
from phalanx.pure.clipping import square
from phalanx.pure.layout import Kind
from phalanx.pure.rounding import rounded


class Blocks:
    """Seen by one worker. A block has one writer at a time, alive or found dead."""

    def __init__(self, post: Post, arena: Arena, shards: Shards) -> None:
        self.post, self.shards = post, shards
        largest = max(block.stop - block.start for block in post.job.blocks)
        shared_n = aligned_empty((largest,), arena["values"].dtype)  # so that it stays near
        self.blocks = [
            Block(post.job, arena, k, at, shared_n) for k, at in enumerate(post.job.blocks)
        ]
        self.journal = Journal(arena, post.rank)
        self.ledger = Ledger(arena, post.job.n_validation > 0)
        self.aggregate = rounded(checked(post.job.aggregation), post.job.rounding)
        self.done, self.reduced = post.board.blocks, post.board.reduced
        self.clip, self._clips = post.job.clip, post.job.clip != UNCLIPPED
        self._skips = post.job.nonfinite == "skip"
        self.squares = arena.words("squares")
        self._known_weights: list[float] = []
        self._reduced: dict[int, Array] = {}
        self._are_divided = post.job.divides_blocks
        self._reduced_N = arena["reduced"]
        self._sends_means, self._host_rows_HN = post.job.sends_means, arena["host_rows"]
        self._scratch_n = aligned_empty((largest * self._are_divided,), self._reduced_N.dtype)
        self.losses, self.weights = arena.words("losses"), arena.words("weights")
        self.penalties, self.measures_TM = arena.words("penalties"), arena["measures"]
        self._homes: list[Array] = []  # of each block, the gradients where all lie at home
        self._n_home = 0

    def update_mine(self, doers: Sequence[int] | None) -> None:
        """Update those that fall to me from the shards that `doers` computed."""
        self._doers = doers
        self._take_outcomes(doers or self.post.share.owners)
        self._rate = self.ledger.rate(self.post.moment.row)
        self._scale = 1.0
        if self._are_divided or (self.clip.norm is not None and not self._is_skipped):
            self._reduced.clear()
            squares = self._all_squares()
            self._scale = 1.0 if self.clip.norm is None else self.clip.scale(squares)
        self.inherit()

    def inherit(self) -> None:
        """Update those that fall to me and are not yet done."""
        for k in self.post.share.blocks:
            if self.done[k] < self.post.tick:
                self._update(k)

    def are_done(self) -> bool:
        """Whether everybody's are."""
        return all(done >= self.post.tick for done in self.done)

    def mend(self, tick: int) -> None:
        """Undo what a former process in my seat had begun in a tick that is still open."""
        k = self.journal.unfinished(tick)
        if k is not None and self.done[k] < tick:
            self.journal.restore(tick, k, self.blocks[k].values_Xn)

    def _take_outcomes(self, doers: Sequence[int]) -> None:
        losses, weights, *measures = self.shards.outcomes(doers)
        self._loss, self._weight = sum(losses), sum(weights)
        if weights != self._known_weights:  # nearly all steps have the same
            self._known_weights = weights
            self._weights_R = np.array(self._by_host(weights) if self._sends_means else weights)
        if self._n_home != self.shards.live:
            self._n_home = self.shards.live
            self._homes = [block.slots.home(self._n_home) for block in self.blocks]
        self._is_skipped = self._skips and not isfinite(self._loss)
        self._measures = [sum(measure_S) for measure_S in measures]

    def _by_host(self, weights: list[float]) -> list[float]:
        """Weights of the hosts that have shards in this step."""
        parts = self.post.job.live_parts(self.shards.live)
        self._hosts = [host for host, part in enumerate(parts) if part]
        return [sum(weights[part.start : part.stop]) for part in parts if part]

    def _all_squares(self) -> list[float]:
        """Sums of squares of all blocks, once all are reduced; here those that fall to me."""
        self._reduce_mine()
        self.post.exchange.blocks(self.post.tick)
        board, is_there = self.post.board, True
        for k in range(len(self.blocks)):
            is_there = is_there and board.spin(self.reduced, k, self.post.tick)
        if not (is_there and self.post.is_exchanged):
            self._wait_for_reductions()
        fence()
        return list(self.squares)

    def _wait_for_reductions(self) -> None:
        tick = self.post.tick
        for _ in self.post.waiting():
            if self.post.is_exchanged and all(reduced >= tick for reduced in self.reduced):
                return
            if self.post.hear():
                self._reduce_mine()

    def _reduce_mine(self) -> None:
        post = self.post
        for k in post.share.reductions:
            if self.reduced[k] < post.tick:
                post.presence.at("reduce", k)
                grad_n = self._reduce(k)
                self._keep(k, grad_n)
                is_measured = self.clip.norm is not None and self.blocks[k].is_trained
                self.squares[k] = square(grad_n) if is_measured else 0.0
                post.presence.at("norm", k)
                post.board.publish(self.reduced, k, post.tick)

    def _keep(self, k: int, grad_n: Array) -> None:
        """For the update: by me, or by everybody who updates this block on any host."""
        if self._are_divided:
            self._reduced_N[slice(*self.post.job.blocks[k][:2])] = grad_n
        else:
            self._reduced[k] = grad_n

    def _gradient(self, k: int) -> Array:
        """The reduced gradient of a block, which the update may change."""
        if self._are_divided:
            start, stop = self.post.job.blocks[k][:2]
            grad_n = self._scratch_n[: stop - start]
            grad_n[...] = self._reduced_N[start:stop]
            return grad_n
        return self._reduced.pop(k) if k in self._reduced else self._reduce(k)

    def _reduce(self, k: int) -> Array:
        """The shards' gradients of a block as one; of what is not learnt, their mean or first."""
        block = self.blocks[k]
        rows_Rn = self._rows(k)
        if block.is_trained:
            return self.aggregate(rows_Rn, self._weights_R)
        if block.kind is Kind.COPIED:
            return np.array(rows_Rn[0])
        return mean(rows_Rn, self._weights_R)

    def _rows(self, k: int) -> Array:
        """What a block is reduced from: the gradients of shards, or their means of hosts."""
        if self._sends_means:
            return self._host_rows(*self.post.job.blocks[k][:2])
        if self._doers is None:
            return self._homes[k]
        live = range(self.shards.live)
        return self.blocks[k].slots.gathered(live, self._doers, self.post.share.owners)

    def _host_rows(self, start: int, stop: int) -> Array:
        """The means of the hosts that have shards, which always lie alike."""
        rows_HN = self._host_rows_HN
        if len(self._hosts) == len(rows_HN):
            return np.asarray(rows_HN[:, start:stop])
        rows_Rn = padded_rows(len(self._hosts), stop - start, rows_HN.dtype)
        rows_Rn[...] = rows_HN[self._hosts, start:stop]
        return rows_Rn

    def _update(self, k: int) -> None:
        post, block = self.post, self.blocks[k]
        tick, moment = post.tick, post.moment
        penalty = 0.0
        if self._is_skipped:
            block.skip(moment)
        else:
            post.presence.at("reduce", k)
            if not post.share.is_whole:
                self.journal.restore(tick, k, block.values_Xn)
            grad_n = self._gradient(k)
            if self._clips and block.is_trained:
                self.clip.apply(grad_n, self._scale)
            self.journal.save(tick, k, block.values_Xn)
            post.presence.at("update", k)
            penalty = block.update(grad_n, self._weight, moment, self._rate)
        self.penalties[moment.step * len(self.blocks) + k] = penalty
        if k == 0:
            self.losses[moment.step] = self._loss
            self.weights[moment.step] = self._weight or 1.0  # of samples that all weigh nothing
            if self._measures:
                self.measures_TM[moment.step] = self._measures
        post.presence.at("commit", k)
        post.board.publish(self.done, k, tick)

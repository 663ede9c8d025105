"""All blocks reduced before any is updated: where the update is clipped by the norm over them all,
or hosts divide the reductions among them."""

from __future__ import annotations

from phalanx.arena import Arena
from phalanx.engine.post import Post
from phalanx.engine.reduction import Reduction
from phalanx.exchange.board import fence
from phalanx.pure.arrays import Array, aligned_empty
from phalanx.pure.clipping import square


class AllReduced:
    """Seen by one worker. A reduced block lies with whoever reduced it, or, where hosts divide the
    reductions, in the arena, from where it travels."""

    def __init__(self, post: Post, arena: Arena, reduction: Reduction) -> None:
        self.post, self.reduction = post, reduction
        self.are_divided = post.job.divides_blocks
        self._clip, self._words = post.job.clip, post.board.reduced
        self._squares = arena.words("squares")
        self._mine: dict[int, Array] = {}
        self._arena_N = arena["reduced"]
        room = post.job.largest_block if self.are_divided else 0
        self._scratch_n = aligned_empty((room,), self._arena_N.dtype)

    def make(self) -> float:
        """Reduce those that fall to me, and wait for the others; by what all are to be scaled."""
        post, board = self.post, self.post.board
        self._mine.clear()
        self._reduce_mine()
        post.exchange.blocks(post.tick)
        is_there = True
        for k in range(len(self._words)):
            is_there = is_there and board.spin(self._words, k, post.tick)
        if not (is_there and post.is_exchanged):
            self._wait_for_others()
        fence()
        return 1.0 if self._clip.norm is None else self._clip.scale(list(self._squares))

    def take(self, k: int) -> Array:
        """A block's gradient, the caller's to change."""
        if self.are_divided:
            start, stop = self.post.job.blocks[k][:2]
            grad_n = self._scratch_n[: stop - start]
            grad_n[...] = self._arena_N[start:stop]
            return grad_n
        return self._mine.pop(k) if k in self._mine else self.reduction.of(k)

    def _wait_for_others(self) -> None:
        tick = self.post.tick
        for _ in self.post.waiting():
            if self.post.is_exchanged and all(reduced >= tick for reduced in self._words):
                return
            if self.post.hear():
                self._reduce_mine()

    def _reduce_mine(self) -> None:
        for k in self.post.share.reductions:
            if self._words[k] < self.post.tick:
                self._reduce(k)

    def _reduce(self, k: int) -> None:
        post = self.post
        post.presence.at("reduce", k)
        block, grad_n = self.reduction.blocks[k], self.reduction.of(k)
        if self.are_divided:
            self._arena_N[slice(*post.job.blocks[k][:2])] = grad_n
        else:
            self._mine[k] = grad_n if block.region.panel is None else grad_n.copy()
        is_measured = self._clip.norm is not None and block.is_trained
        self._squares[k] = square(grad_n) if is_measured else 0.0
        post.presence.at("norm", k)
        post.board.publish(self._words, k, post.tick)

"""How a worker makes what its shards leave: gradients in slots, or columns of factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from phalanx.arena import Arena
from phalanx.data.entries import Entries, SparseRows
from phalanx.data.samples import Samples
from phalanx.engine.factors import Factors
from phalanx.engine.post import Post
from phalanx.engine.slots import Slots
from phalanx.models.base import FactoredModel, JoinedModel, Model
from phalanx.models.local import LocalModel
from phalanx.pure.arrays import Array
from phalanx.pure.factors import outwards
from phalanx.pure.layout import Kind
from phalanx.pure.randomness import Key
from phalanx.pure.rounding import EXACT

ROWS_AT_ONCE = 256  # more share what shards have in common further, but it is little by then


class Batch(NamedTuple):
    """The samples of a step, and where in them each shard lies: first and past-the-last place."""

    samples_B: Array
    bounds: Sequence[tuple[int, int]]


class Maker(Protocol):
    """Of one worker in one job."""

    def groups(self, shards: Sequence[int]) -> list[Sequence[int]]:
        """Shards that are mine, those together that are made at once."""

    def make(self, group: Sequence[int], batch: Batch) -> Sequence[Sequence[float]]:
        """Leave what a group's shards leave; their losses, weights and measures."""

    def given(self, batch: Batch) -> SparseRows | None:
        """The samples of all columns, if they are a factor that nobody leaves."""


class Slotted:
    """Every shard's gradient in a slot, one after another."""

    def __init__(self, post: Post, arena: Arena, samples: Samples, model: Model) -> None:
        job = post.job
        self._post, self._model = post, model
        rows = job.plan.max_shard_rows
        # replicas take their rows step by step
        local = model if isinstance(model, LocalModel) else None
        self._gatherer: Any = local.gatherer(samples) if local else samples.gatherer(rows)
        self._slots = Slots(arena, 0, job.model.size)
        self._rounding = job.rounding
        regions = job.model.regions if job.wire != EXACT else ()
        self._rounded = [slice(r.start, r.stop) for r in regions if r.kind is Kind.TRAINED]

    def groups(self, shards: Sequence[int]) -> list[Sequence[int]]:
        return [[s] for s in shards]

    def make(self, group: Sequence[int], batch: Batch) -> list[Sequence[float]]:
        (s,), post = group, self._post
        rows, key = _read(s, batch, post, self._gatherer)
        grad_N = self._slots.one(s, post.rank, post.share.owners[s])
        outcome = self._model.gradient(rows, grad_N, key)
        for trained in self._rounded:
            self._rounding.apply(grad_N[trained])
        return [outcome]

    def given(self, batch: Batch) -> None:
        return None


def _read(s: int, batch: Batch, post: Post, gatherer: Any) -> tuple[Any, Key]:
    """The rows of a shard, and its key."""
    post.presence.at("read", s)
    first, last = batch.bounds[s]
    key = Key(post.job.plan.seed, post.moment.updates, s)
    rows = gatherer.rows(batch.samples_B[first:last], key)
    post.presence.at("compute", s)
    return rows, key


class Columns:
    """Every shard's columns of the batch's factors, computed one shard after another."""

    def __init__(self, post: Post, arena: Arena, samples: Samples, model: FactoredModel) -> None:
        layout = post.job.model.factors
        assert layout is not None
        self._post, self._model = post, model
        self._gatherer: Any = samples.gatherer(post.job.plan.max_shard_rows)
        self._factors, self._layout = Factors(arena, layout), layout
        self._mine: dict[tuple[int, int], list[Array]] = {}

    def groups(self, shards: Sequence[int]) -> list[Sequence[int]]:
        return [[s] for s in shards]

    def make(self, group: Sequence[int], batch: Batch) -> list[Sequence[float]]:
        (s,) = group
        rows, key = _read(s, batch, self._post, self._gatherer)
        return [self._model.leave(rows, self._columns(s), batch.bounds[-1][1], key)]

    def given(self, batch: Batch) -> None:
        return None

    def _columns(self, s: int) -> list[Array]:
        """Those of a shard, where I am to leave them."""
        batch = self._factors.at(self._post.rank, self._post.share.owners[s])
        if (s, id(batch)) not in self._mine:
            columns = self._layout.columns([s])
            self._mine[s, id(batch)] = [factor[:, columns] for factor in batch]
        return self._mine[s, id(batch)]


class SideBySide:
    """Columns of several shards at once, where that comes to the same bits."""

    def __init__(self, post: Post, arena: Arena, samples: Samples, model: JoinedModel) -> None:
        layout = post.job.model.factors
        assert layout is not None
        self._post, self._model, self._seed = post, model, post.job.plan.seed
        self._gatherer: Any = samples.gatherer(0)  # it fills the columns
        self._factors, self._layout = Factors(arena, layout), layout
        self._filled: dict[tuple[int, ...], Array] = {}

    def groups(self, shards: Sequence[int]) -> list[Sequence[int]]:
        """As many neighbours together as have few rows and come to the same bits so.

        Where there are other hosts, each by itself, in their order, in which they travel: one does
        while the next is computed.
        """
        if not self._post.job.place.is_alone:
            return [[s] for s in shards]
        count = max(1, ROWS_AT_ONCE // self._layout.width)
        groups: list[Sequence[int]] = []
        for run in self._layout.runs(shards):
            for at in range(0, len(run), count):
                group = run[at : at + count]
                may_join = len(group) == 1 or self._model.may_be_joined(len(group))
                groups += [group] if may_join else [[s] for s in group]
        return groups

    def make(self, group: Sequence[int], batch: Batch) -> Sequence[Sequence[float]]:
        post, bounds = self._post, batch.bounds
        factors = self._factors.at(post.rank, post.share.owners[group[0]])
        for s in group:
            post.presence.at("read", s)
        index_C = batch.samples_B.take(self._filling(group, bounds))
        rows = self._gatherer.rows_into(self._model.inputs(factors, group), index_C)
        for s in group:
            post.presence.at("compute", s)
        keys = [Key(self._seed, post.moment.updates, s) for s in group]
        counts = [bounds[s][1] - bounds[s][0] for s in group]
        return self._model.leave_all(rows, factors, group, counts, bounds[-1][1], keys)

    def given(self, batch: Batch) -> SparseRows | None:
        entries: Entries | None = self._gatherer.entries
        if entries is None:
            return None
        in_order = outwards(len(batch.bounds))
        return entries.rows(batch.samples_B.take(self._filling(in_order, batch.bounds)))

    def _filling(self, group: Sequence[int], bounds: Sequence[tuple[int, int]]) -> Array:
        """The place in the batch of which a sample goes into each column: behind the last one of a
        shard, that one again."""
        key = (bounds[-1][1], *group)
        if key not in self._filled:
            width = range(self._layout.width)
            filling = [min(bounds[s][0] + c, bounds[s][1] - 1) for s in group for c in width]
            self._filled[key] = np.array(filling)
        return self._filled[key]


def maker_of(post: Post, arena: Arena, samples: Samples, model: Model) -> Maker:
    """What makes that which the shards of a job leave."""
    kind: Any = SideBySide if isinstance(model, JoinedModel) else Columns
    if post.job.model.factors is None:
        kind = Slotted
    made: Maker = kind(post, arena, samples, model)
    return made

"""Words and what they speak of, as Arm may show them: what was written before a word is seen once a
fence stands between the look at the word and the look at it; a word is written behind a fence."""

from types import SimpleNamespace

import numpy as np
import pytest

from phalanx.arena import Arena
from phalanx.engine.chunks import Chunks
from phalanx.engine.courier import Courier
from phalanx.engine.shards import Shards
from phalanx.engine.share import Share
from phalanx.exchange import board
from phalanx.exchange.board import DEATHS, LAST, NEVER, OPENED, PLAN, SNAPSHOT_TAKEN
from phalanx.exchange.seats import Seats
from phalanx.exchange.tally import Tally
from phalanx.training.keeper import Keeper
from test_leader import Stage
from test_words import JOB

TICK, S = 5, 3


@pytest.fixture
def arena():
    return Arena.private(JOB.fields)


@pytest.fixture
def at_fences(monkeypatch):
    """Has something happen at every fence of a module."""

    def happens(module, what):
        monkeypatch.setattr(f"phalanx.{module}.fence", what)

    return happens


def test_one_section_would_let_in_what_comes_before_and_what_comes_after(monkeypatch):
    class Lock:
        taken = 0

        def __enter__(self):
            self.taken += 1

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(board, "_fence", Lock())
    board._by_lock()
    assert board._fence.taken == 2


class TestSeats:
    """From which tick on a life counts is known once it is seen to be let in."""

    def test_it_is_written_first(self, arena, at_fences):
        seats, seen = Seats(arena), []
        seats.born[1] = 2
        at_fences("exchange.seats", lambda: seen.append((seats.since[1], seats.admitted[1])))
        seats.admit(1, TICK)
        assert seen == [(TICK, 0)]

    def test_who_lives(self, arena, at_fences):
        seats = Seats(arena)
        seats.admitted[1] = 2
        at_fences("exchange.seats", lambda: seats.since.__setitem__(1, TICK))
        assert seats.alive(TICK - 1) == []

    def test_who_is_let_in(self, arena, at_fences):
        seats = Seats(arena)
        at_fences("exchange.seats", lambda: seats.since.__setitem__(1, TICK))
        assert seats.counts_from(1, 2) == NEVER
        seats.admitted[1] = 2
        assert seats.counts_from(1, 2) == TICK


class TestPlan:
    def test_it_is_changed_between_two_counts(self, at_fences):
        stage, seen = Stage(), []
        stage.run(1)
        stage.lose(1)
        before = stage.door[PLAN]
        at_fences("engine.leader", lambda: seen.append((stage.door[PLAN], stage.shares)))
        stage.run(1)
        changes = [(before + 1, [4, 4, 0, 0]), (before + 1, [8, 0, 0, 0])]
        assert any(seen[i : i + 2] == changes for i in range(len(seen)))
        assert stage.door[PLAN] == before + 2

    def test_newcomers_are_let_in_between_two_counts(self, at_fences):
        stage, seen = Stage(), []
        stage.run(1)
        stage.lose(1)
        stage.run(1)
        stage.bear(1, life=2)
        before = stage.door[PLAN]
        at_fences("engine.leader", lambda: seen.append((stage.door[PLAN], stage.seats.admitted[1])))
        stage.run(1)
        assert any(seen[i : i + 2] == [(before + 2, 1), (before + 2, 2)] for i in range(len(seen)))

    def test_who_has_seen_the_count_sees_the_plan(self, at_fences):
        stage = Stage()
        stage.run(1)
        share = Share(stage.job, stage.arena, stage.board, stage.seats, 0)
        stage.door[PLAN] += 2
        at_fences("engine.share", lambda: stage.arena["shard_owner"].fill(0))
        share.muster(stage.tick)
        assert share.shards == list(range(8))
        assert not share.is_outdated()

    def test_who_has_seen_a_death_sees_who_died(self, at_fences):
        """Else the leader would take the dead for one of those who have their part."""
        stage = Stage()
        stage.run(1)
        stage.door[DEATHS] += 1
        at_fences("engine.leader", lambda: stage.seats.ended.__setitem__(1, 1))
        stage.run(1)
        assert stage.shares == [8, 0, 0, 0]


class TestResults:
    """Of tasks that two may have done at once: they are those of whom a look has found."""

    @pytest.mark.parametrize("kind", [Shards, Chunks])
    def test_parameters_are_read_before_the_look_for_another_doer(self, kind, arena, at_fences):
        other = Tally(arena, "shards_done", 1)
        mine = kind.__new__(kind)
        mine.post = SimpleNamespace(
            tick=TICK, rank=0, presence=SimpleNamespace(at=lambda *told: None),
            share=SimpleNamespace(others=[1]), job=JOB,
        )  # fmt: skip
        mine.done = Tally(arena, "shards_done", 0)
        at_fences(f"engine.{kind.__name__.lower()}", lambda: other.publish(S, TICK))
        if kind is Shards:
            mine._stops, mine.results, mine._stride, mine._width = False, [0.0] * 99, 0, 2
            mine._publish(S, (1.0, 1.0))
        else:
            mine.bounds, mine.model = [(0, 1)] * (S + 1), None
            mine.samples = SimpleNamespace(rows=lambda index, key: None)
            mine.score = SimpleNamespace(sums=lambda model, rows: [1.0])
            mine.partials_VM = np.zeros((S + 1, 1))
            mine._score(S)
        assert mine.done.doer(S, TICK, [0]) is None

    def test_the_courier_sends_those_of_whom_it_has_found(self, arena, at_fences):
        courier, results_WSR, sent = Courier.__new__(Courier), np.zeros((3, S + 1, 1)), []
        courier.ranks, courier.shards_done = range(2), Tally(arena, "shards_done", 1)
        courier.host, courier._live_parts, courier.wish = 0, [range(S, S + 1)], 0
        courier.results_WSR, courier.job = results_WSR, SimpleNamespace(courier=2)
        courier._send = lambda parts, rows_SR, header: sent.append(rows_SR[S, 0])
        courier.shards_done.publish(S, TICK)
        at_fences("engine.courier", lambda: results_WSR[1].fill(7.0))
        courier._send_figures(TICK)
        assert sent == [7.0]

    def test_the_leader_adds_those_of_whom_it_has_found(self, at_fences):
        stage = Stage()
        leader = stage.leader
        leader.job = SimpleNamespace(chunks=[(0, 1)])
        done_WV, partials_WVM = np.array([[4], [5]]), np.zeros((2, 1, 1))
        leader.arena = {"chunks_done": done_WV, "partials": partials_WVM}
        at_fences("engine.leader", lambda: partials_WVM[1].fill(7.0))
        assert leader._sums().tolist() == [7.0]


def test_a_courier_that_sees_the_door_closed_sees_after_which_tick(at_fences):
    courier = Courier.__new__(Courier)
    courier.door = [0] * 10
    courier.door[OPENED], courier.door[LAST] = TICK, NEVER
    at_fences("engine.courier", lambda: courier.door.__setitem__(LAST, TICK - 1))
    courier.run(SimpleNamespace(tick=TICK - 1))


def test_a_keeper_that_sees_a_snapshot_taken_sees_the_snapshot(at_fences, monkeypatch):
    happened = []
    keeper = Keeper.__new__(Keeper)
    keeper._thread, keeper._due, keeper._written = None, TICK, None
    monkeypatch.setattr(keeper, "_write_beside", happened.append)
    at_fences("training.keeper", lambda: happened.append("fence"))
    door = np.zeros(10, np.int64)
    door[SNAPSHOT_TAKEN] = TICK
    keeper.look({"door": door})
    assert happened == ["fence", TICK]

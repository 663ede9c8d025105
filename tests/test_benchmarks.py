"""The arithmetic and the tables of benchmarks/, on made-up figures."""

import sys
from math import inf
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from cases import DIGITS
from elastic import Step, noted
from figures import Finding, Spread, ratio, spread
from host_link import Journey, journey
from nothing_fails import Price
from phalanx.run import Event
from recovery import Kill, judged
from scale import Load
from section import Section
from slow_worker import share
from table import ranged, table


def test_a_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_ratios_are_taken_round_by_round() -> None:
    slow, fast = [2.0, 40.0, 6.0], [1.0, 10.0, 2.0]
    assert ratio(slow, fast) == Spread(3.0, 2.0, 4.0)


def test_rounds_must_pair_up() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("at_least", "met"), [(True, True), (False, False)])
def test_a_target_is_a_floor_or_a_ceiling(at_least: bool, met: bool) -> None:
    assert Finding("it", 2.0, 1.5, "x", at_least).met is met


def test_a_finding_says_what_was_asked_for() -> None:
    assert Finding("it", 2.0, 1.5, " s", False).sentence() == "it: 2.00 s, target at most 1.5 s"


def test_a_table_is_padded_markdown() -> None:
    assert table(["a", "b"], [["1", "long"]]) == "| a | b    |\n|---|------|\n| 1 | long |"


def test_a_figure_shows_its_range() -> None:
    assert ranged(Spread(2.0, 1.5, 3.0), "x", digits=1) == "2.0x (1.5..3.0)"


def test_a_killed_worker_is_judged_by_its_own_events() -> None:
    events = [
        Event("worker lost", 3, worker=0, at=11.0, cost=1.0),
        Event("worker lost", 5, worker=1, at=12.5, cost=250.0),
        Event("worker joined", 9, worker=1, at=14.0, cost=1500.0),
    ]
    assert judged(events, worker=1, killed=12.0, same_bits=True) == Kill(0.75, 2.0, True)


def test_what_a_run_does_not_tell_took_for_ever() -> None:
    assert judged([], worker=1, killed=12.0, same_bits=True) == Kill(inf, inf, True)


def test_a_slow_worker_s_share_is_of_the_sum_of_both_speeds() -> None:
    times = {"it": [2.0, 1.0], "it, slowed": [4.0, 1.6]}
    assert share(times, "it") == Spread(0.9, 0.8, 1.0)


def test_new_code_is_compared_turn_by_turn_with_the_old_before_and_after_it() -> None:
    slowing_down = {"old": [1.0, 10.0], "new": [3.0, 45.0], "old again": [2.0, 20.0]}
    steady = {"old": [2.0], "new": [4.0], "old again": [2.0]}
    price = Price(DIGITS, 2, [slowing_down, steady])
    assert price.new_over_old == Spread(2.0, 2.0, 2.5)
    assert price.noise == Spread(2.0, 1.0, 2.0)
    assert not price.finding().met


def test_a_note_of_torchrun_s_workers_is_read() -> None:
    assert noted("1 4711 12.5\n") == Step(1, 4711, 12.5)


def test_a_section_has_its_title_and_its_paragraphs() -> None:
    assert Section("A", ["b", "c"], []).text() == "## A\n\nb\n\nc"


def test_a_journey_is_from_the_first_mark_to_the_last() -> None:
    marks = [(1.0, 100.0), (2.0, 500.0), (3.0, 900.0)]
    assert journey(marks, 2) == Journey(seconds=0.5, sent=100.0)


@pytest.mark.parametrize("hosts", [2, 64])
def test_with_a_shard_a_host_as_much_is_sent_as_by_a_ring(hosts: int) -> None:
    load = Load(n=640, s=hosts, h=hosts)
    assert load.shards_sent() + load.blocks_sent() == 2 * 640 * (hosts - 1) / hosts


def test_one_host_sends_nothing_and_touches_every_slot() -> None:
    load = Load(n=100, s=8, h=1)
    assert (load.sent("exact"), load.slots(), load.reduced()) == (0, 4 * 800, 0)


def test_what_the_benchmark_of_scale_times_is_there() -> None:
    phases = pytest.importorskip("scale_program").PHASES
    assert all(callable(getattr(owner, name)) for owner, name in phases.values())

"""Events on the terminal: at once, above the bar, and never a flood."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from phalanx.cli import console, event_lines, progress
from phalanx.cli.event_lines import MOST_ALIKE, EventLines
from phalanx.cli.progress import Live, Plain
from phalanx.cli.train import say_outcome
from phalanx.run import EpochRecord, Event
from small_runs import outcome

LOST = Event("worker lost", 1200, "killed by\nsignal 9 [red]", 1, 12.0, 31.4)
LINE = "step 1,200: worker lost (worker 1): killed by signal 9 [red]; it cost 31.4 ms"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(event_lines, "monotonic", lambda: now[0])
    return now


def terminal(monkeypatch, is_terminal):
    said = io.StringIO()
    screen = Console(file=said, force_terminal=is_terminal, width=60, highlight=False)
    for module in (console, progress):
        monkeypatch.setattr(module, "err", screen)
    return said


@pytest.fixture
def plain(monkeypatch):
    return terminal(monkeypatch, is_terminal=False)


def lines(said):
    return said.getvalue().splitlines()


def test_an_event_is_one_line_at_once(plain):
    with Plain(5, 100) as bar:
        bar.event(LOST)
        assert lines(plain) == [LINE]


def test_an_event_stands_above_the_bar(monkeypatch):
    said = terminal(monkeypatch, is_terminal=True)
    with Live(5, 100) as bar:
        bar.epoch(1, EpochRecord(0.5, None, 0.1, 1.0, None))
        bar.event(LOST)
        bar.epoch(2, EpochRecord(0.4, None, 0.1, 1.0, None))
    text = said.getvalue()
    assert LINE in text
    assert text.index(LINE) < text.rindex("epoch 2/5")
    assert text.count("\x1b[33m") == 1, "the line alone is yellow, not the bar"


def test_a_flood_is_counted_and_said_in_one_line_later(plain, clock):
    events = EventLines()
    for step in range(300):
        events.say(Event("worker lost", step))
    events.say(Event("worker joined", 300))
    assert len(lines(plain)) == MOST_ALIKE + 1
    events.sum_up()
    assert len(lines(plain)) == MOST_ALIKE + 1
    clock[0] += 1
    events.sum_up()
    assert lines(plain)[-1] == "step 5 to 299: worker lost, 295 more"
    events.say(Event("worker lost", 400))
    assert lines(plain)[-1] == "step 400: worker lost"
    assert len(lines(plain)) == MOST_ALIKE + 3


def test_a_count_precedes_the_next_event(plain, clock):
    events = EventLines()
    for _ in range(MOST_ALIKE + 1):
        events.say(Event("checkpoint", 7))
    clock[0] += 1
    events.say(Event("checkpoint", 9))
    assert lines(plain)[-2:] == ["step 7: checkpoint, 1 more", "step 9: checkpoint"]


@pytest.mark.parametrize("kind", [Plain, Live])
def test_nothing_held_back_is_lost_at_the_end(plain, clock, kind):
    with kind(5, 100) as bar:
        for step in range(20):
            bar.event(Event("worker lost", step))
    assert "step 5 to 19: worker lost, 15 more" in lines(plain)


def test_the_end_sums_events_up(tmp_path, capsys):
    made = outcome()
    say_outcome(made, tmp_path, 1)
    assert "lost" not in capsys.readouterr().out
    events = [LOST, Event("checkpoint", 1300, cost=2.0), Event("checkpoint failed", 1400)]
    say_outcome(replace(made, run=replace(made.run, events=events)), tmp_path, 1)
    said = "1 worker lost, 1 checkpoint written, 1 checkpoint failed; cost 33.4 ms in all"
    assert said in capsys.readouterr().out.splitlines()

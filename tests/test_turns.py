"""Whose turn it is: one job after another, but for those in a callback."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from phalanx.clusters.turns import Turns

SOON = 30.0  # seconds; nobody waits for so long unless something is wrong


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as executor:
        yield executor


def job(turns, told, name):
    with turns.turn() as turn:
        told.append(f"{name} begins")
        told.append(f"{name} ends")
        return turn.is_inside


def test_one_after_another(threads):
    turns, told = Turns(), []
    with turns.turn() as turn:
        other = threads.submit(job, turns, told, "other")
        told.append("first ends")
    assert not other.result(SOON)
    assert not turn.is_inside
    assert told == ["first ends", "other begins", "other ends"]


def test_a_job_of_the_same_thread_is_let_in():
    turns, told = Turns(), []
    with turns.turn() as turn:
        assert job(turns, told, "predict")
        with turn.callback():
            assert job(turns, told, "fit")
    assert not job(turns, told, "next")


def test_a_job_of_another_thread_is_let_in_by_a_callback(threads):
    turns, told = Turns(), []
    with turns.turn() as turn, turn.callback():
        both = [threads.submit(job, turns, told, name) for name in "ab"]
        assert all(other.result(SOON) for other in both)
    assert sorted(told) == ["a begins", "a ends", "b begins", "b ends"]
    assert [told[i][0] for i in (0, 2)] == [told[i][0] for i in (1, 3)], "one after the other"


def test_who_was_let_in_is_waited_for(threads):
    turns, told = Turns(), []
    is_in, may_end = threading.Event(), threading.Event()

    def slow():
        with turns.turn():
            is_in.set()
            assert may_end.wait(SOON)
            told.append("other ends")

    def callback_is_over():
        with turns._changed:  # given up by the first job as it begins to wait
            may_end.set()

    with turns.turn() as turn:
        with turn.callback():
            other = threads.submit(slow)
            assert is_in.wait(SOON)
            threads.submit(callback_is_over)
        told.append("first goes on")
        later = threads.submit(job, turns, told, "later")
        told.append("first ends")
    other.result(SOON)
    later.result(SOON)
    assert told == ["other ends", "first goes on", "first ends", "later begins", "later ends"]


def test_callbacks_within_callbacks(threads):
    turns, told = Turns(), []

    def inner():
        with turns.turn() as turn, turn.callback():
            assert threads.submit(job, turns, told, "innermost").result(SOON)
            told.append("inner ends")

    with turns.turn() as turn:
        with turn.callback():
            threads.submit(inner).result(SOON)
        told.append("outer ends")
    assert told[-2:] == ["inner ends", "outer ends"]


def test_ctrl_c_as_a_turn_begins_gives_it_back(threads):
    class Interrupted(threading.Condition):
        def __exit__(self, *error):
            super().__exit__(*error)
            turns._changed = condition
            raise KeyboardInterrupt

    turns, told = Turns(), []
    condition, turns._changed = turns._changed, Interrupted()
    with pytest.raises(KeyboardInterrupt), turns.turn():
        pytest.fail("still here")
    assert not threads.submit(job, turns, told, "next").result(SOON)


def test_ctrl_c_as_a_callback_begins_ends_it(threads):
    class Interrupted(threading.Condition):
        def __exit__(self, *error):
            super().__exit__(*error)
            turn._changed = turns._changed
            raise KeyboardInterrupt

    turns, told = Turns(), []
    with turns.turn() as turn:
        turn._changed = Interrupted()
        with pytest.raises(KeyboardInterrupt), turn.callback():
            pytest.fail("still here")
        other = threads.submit(job, turns, told, "other")
        told.append("first ends")
    assert not other.result(SOON)
    assert told == ["first ends", "other begins", "other ends"]


def test_a_job_that_fails_gives_its_turn_back(threads):
    turns, told = Turns(), []
    with pytest.raises(ZeroDivisionError), turns.turn() as turn, turn.callback():
        raise ZeroDivisionError
    assert not threads.submit(job, turns, told, "next").result(SOON)

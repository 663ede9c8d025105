"""Which fault of a script is due."""

from itertools import product

import numpy as np
import pytest

from phalanx.errors import InvalidInput
from phalanx.pure.faults import ACTIONS, PHASES, Fault, Slow, find


def test_a_fault_is_due_in_its_worker_life_step_and_phase_alone():
    script = (Fault(1, step=2, phase="reduce", action="stop", life=2),)
    due = [
        place
        for place in product(range(3), range(1, 4), range(4), PHASES)
        if find(script, *place) is not None
    ]
    assert due == [(1, 2, 2, "reduce")]
    assert find(script, *due[0]) == "stop"


def test_a_fault_while_joining_is_due_at_whatever_step_that_happens():
    script = (Fault(0, step=5, phase="join"),)
    assert [find(script, 0, 1, step, "join") for step in (0, 5, 9)] == ["kill"] * 3
    assert find(script, 0, 2, 5, "join") is None
    assert find(script, 0, 1, 5, "enter") is None


def test_of_several_faults_the_first_that_is_due_is_found():
    script = (Slow(0, factor=4), Fault(0, 1, action="hang"), Fault(0, 2), Fault(0, 1))
    assert [find(script, 0, 1, step, "compute") for step in range(4)] == [
        None, "hang", "kill", None,
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"phase": "lunch"}, {"action": "sneeze"}])
def test_an_unknown_phase_or_action_is_refused_with_those_there_are(wrong):
    (name, value), known = next(iter(wrong.items())), PHASES if "phase" in wrong else ACTIONS
    with pytest.raises(InvalidInput, match=f"{name}.*{value}") as caught:
        Fault(0, 0, **wrong)
    assert known[-1] in str(caught.value)


@pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan")])
def test_nobody_is_slowed_down_by_less_than_one(factor):
    with pytest.raises(InvalidInput, match="factor must be at least 1"):
        Slow(0, factor)


def test_a_factor_of_numpy_is_pythons():  # time.sleep takes no float32
    assert type(Slow(0, np.float32(1.5)).factor) is float

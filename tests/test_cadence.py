from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import InvalidInput
from phalanx.pure.cadence import Cadence, parse_cadence


@pytest.mark.parametrize(
    ("given", "amount", "unit"),
    [
        (1, 1, "epochs"),
        (12, 12, "epochs"),
        (np.int64(2), 2, "epochs"),
        ("1 epoch", 1, "epochs"),
        ("2 epochs", 2, "epochs"),
        ("2.0 epochs", 2, "epochs"),
        ("500 steps", 500, "steps"),
        ("1 step", 1, "steps"),
        ("500steps", 500, "steps"),
        ("  7  steps\n", 7, "steps"),
        ("1 s", 1, "seconds"),
        ("1 second", 1, "seconds"),
        ("0.25 seconds", 0.25, "seconds"),
        ("2 min", 120, "seconds"),
        ("1 minute", 60, "seconds"),
        ("1.5 minutes", 90, "seconds"),
        ("1 h", 3600, "seconds"),
        ("1 hour", 3600, "seconds"),
        ("0.5 hours", 1800, "seconds"),
    ],
)
def test_what_is_understood(given, amount, unit):
    assert parse_cadence(given) == Cadence(amount, unit)


@pytest.mark.parametrize(
    "given",
    [
        0, -1, 1.5, 2.0, True, False, None, float("nan"), float("inf"), [], (5, "steps"), 10**400,
        np.True_, np.int64(0), np.float64(2),
        "", " ", "often", "steps", "5", "-5 steps", "+5 steps", "0 steps", "0.0 s", "1.5 steps",
        "0.5 epochs", ".5 s", "1. s", "1e3 steps", "1,000 steps", "1_000 steps", "5 Steps",
        "5 stepss", "5 batches", "5 m", "5 ss", "5 mins", "five steps", "5 steps 2", "5 5 steps",
        "every 5 steps", "5 steps;", "nan s", "inf s", "9" * 400 + " s", "9" * 400 + " steps",
        b"5 steps",
    ],
    ids="{!r:.20}".format,
)  # fmt: skip
def test_what_is_not(given):
    with pytest.raises(InvalidInput, match="positive number of steps, epochs, seconds") as caught:
        parse_cadence(given)
    assert f"got {given!r}. Write e.g. '500 steps'" in str(caught.value)


@given(st.text(max_size=12))
def test_no_text_is_met_by_any_other_error(text):
    with suppress(InvalidInput):
        assert parse_cadence(text).amount > 0

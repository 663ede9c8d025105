"""The arithmetic and the tables of benchmarks/, on made-up figures."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from figures import Finding, Spread, ratio, spread
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

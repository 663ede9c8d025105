"""What is learnt from the training table, and how it is applied again."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from phalanx.data.inputs import numbers
from phalanx.data.preprocessing import Preprocessing
from phalanx.data.table import Table
from phalanx.errors import InvalidInput


def table(**columns):
    arrays = {
        name: np.array(cells, object if isinstance(cells[0], str) else None)
        for name, cells in columns.items()
    }
    return Table("t.csv", arrays, len(next(iter(arrays.values()))))


TRAINING = table(
    size=[1.0, 3.0, np.nan, 2.0],
    same=[7, 7, 7, 7],
    colour=["r", "g", "", "r"],
    y=["u", "v", "u", "v"],
)


def test_numbers_are_standardised_and_text_is_one_hot():
    learnt = Preprocessing.learn(TRAINING, "y")
    features_BF = learnt.samples(TRAINING)
    assert features_BF.dtype == np.float32
    third = np.sqrt(1.5)
    np.testing.assert_allclose(features_BF[:, 0], [-third, third, 0, 0], rtol=1e-6)
    assert features_BF[:, 1].tolist() == [0, 0, 0, 0]
    assert features_BF[:, 2:].tolist() == [[0, 1], [1, 0], [0, 0], [0, 1]]
    assert learnt.targets(TRAINING).tolist() == [0, 1, 0, 1]


def test_a_part_of_a_table_knows_which_samples_it_has():
    part = TRAINING.take(np.array([3, 1, 0])).without(["same"]).take(np.array([1, 0]))
    assert [part.sample(row) for row in range(part.n_rows)] == [2, 4]
    assert TRAINING.sample(2) == 3


def test_errors_name_the_samples_of_the_whole_table():
    whole = table(size=[1.0, 2.0, np.inf], far=[0.0, 1e300, 1], text=["", "", "x"], y=["u", "", ""])
    part, ends = whole.take(np.array([1, 2])), whole.take(np.array([0, 2]))
    learnt = Preprocessing.learn(table(far=[0.0, 1], y=["u", "v"]), "y")
    with pytest.raises(InvalidInput, match="sample 3 has inf"):
        numbers(part, "size")
    with pytest.raises(InvalidInput, match="sample 3 has 'x'"):
        numbers(ends, "text")
    with pytest.raises(InvalidInput, match="sample 2 has 1e"):
        learnt.samples(part)
    with pytest.raises(InvalidInput, match="first is sample 3"):
        learnt.targets(ends)


def test_unknown_categories_are_all_zeros_and_further_columns_do_no_harm():
    learnt = Preprocessing.learn(TRAINING, "y")
    new = table(extra=["?"], colour=["violet"], same=[8], size=[2.0])
    assert learnt.samples(new).tolist() == [[0, 1, 0, 0]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e300, -1.7e308])
def test_a_number_too_far_from_those_learnt_is_refused(value):
    learnt = Preprocessing.learn(TRAINING, "y")
    new = table(size=[2.0, np.nan, value], same=[7, 7, 7], colour=["r", "r", "r"])
    with pytest.raises(InvalidInput, match=r"'size' must hold.*2 ± 0\.816; sample 3 has .*e\+30"):
        learnt.samples(new)


def test_what_was_learnt_of_each_column_and_what_is_unknown():
    learnt = Preprocessing.learn(TRAINING, "y")
    assert learnt.learnt == {"size": None, "same": None, "colour": ("g", "r"), "y": ("u", "v")}
    codes = Preprocessing.learn(table(x=[1, 2], y=["01", "1"]), "y")
    assert codes.learnt == {"x": None, "y": ("01", "1")}
    long = Preprocessing.learn(table(x=[1, 2], y=["9007199254740993", "1"]), "y")
    assert long.learnt == {"x": None, "y": ("1", "9007199254740993")}
    mixed = Preprocessing.learn(table(x=[1, 2, 3], y=["A", "1", "2"]), "y")
    assert mixed.learnt["y"] == ("1", "2", "A")
    for labels in ([1, 2], [0.5, -3.0], [1e22, 0.0], ["2", "11"]):
        assert Preprocessing.learn(table(x=[1, 2], y=labels), "y", "classification").learnt == {
            "x": None, "y": None
        }  # fmt: skip
    assert learnt.unknown(table(colour=["violet", "r", "", "b"])) == {"colour": ["violet", "b"]}
    assert learnt.unknown(TRAINING) == {}


def test_json_and_back_is_the_same():
    for target, task in (("y", None), ("size2", "regression")):
        wide = Table("t", {**TRAINING.columns, "size2": np.array([1.5, 2.5, 0, 1])}, 4)
        learnt = Preprocessing.learn(wide, target, task)
        assert Preprocessing.from_json(json.loads(json.dumps(learnt.to_json()))) == learnt


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (["a", "b", "a"], "classification"),
        ([True, False, True], "classification"),
        ([1, 2, 1], "classification"),
        ([1.0, 2.0, 1.0], "classification"),
        ([1.5, 2.0, 1.0], "regression"),
        (list(range(30)), "regression"),
    ],
)
def test_the_task_follows_from_the_target(cells, task):
    assert Preprocessing.learn(table(x=np.arange(len(cells)), y=cells), "y").target.task == task


def test_labels_are_the_same_whether_read_as_text_or_as_numbers():
    learnt = Preprocessing.learn(table(x=[1, 2], y=[3.0, 11.0]), "y")
    assert learnt.target.labels == ("3", "11")
    assert learnt.targets(table(x=[1], y=["11"])).tolist() == [1]


def test_a_regression_target_is_standardised_and_restored():
    values = [10.0, 20.5, 40.0]
    learnt = Preprocessing.learn(table(x=[1, 2, 3], y=values), "y")
    standard = learnt.targets(table(x=[1, 2, 3], y=values))
    assert abs(standard.mean()) < 1e-12
    np.testing.assert_allclose(learnt.target.restore(standard), values)


BAD_TABLES = {
    "one class": ({"x": [1, 2], "y": ["a", "a"]}, None, "two classes"),
    "missing target": ({"x": [1, 2], "y": [1.5, np.nan]}, None, "every sample must have a target"),
    "empty target": ({"x": [1, 2], "y": ["a", ""]}, None, "first is sample 2"),
    "infinite target": ({"x": [1, 2], "y": [1.5, np.inf]}, None, "finite numbers"),
    "text to regress": ({"x": [1, 2], "y": ["a", "b"]}, "regression", "target of numbers"),
    "unknown task": ({"x": [1, 2], "y": [1, 2]}, "regresion", "Did you mean 'regression'"),
    "no inputs": ({"y": [1, 2]}, None, "beside the target"),
    "all missing": (
        {"x": [np.nan, np.nan], "y": [1, 2]}, None, "none of the 2 samples.*--drop x"
    ),
    "a name with a space": (
        {"user id": [np.nan, np.nan], "y": [1, 2]}, None, r"with --drop 'user id'\.$"
    ),
    "ids by a name with a space": (
        {"user id": [f"c{i}" for i in range(60)], "y": [0, 1] * 30}, None, "with --drop 'user id'"
    ),
    "infinite input": ({"x": [np.inf, 1], "y": [1, 2]}, None, "sample 1 has inf"),
    "too large": ({"x": [1e200, -1e200], "y": [1, 2]}, None, "finite mean and spread"),
    "too small": ({"x": [1e-200, 2e-200], "y": [1, 2]}, None, "spread of 1e-150 at least.*smaller"),
    "decimal commas to regress": (
        {"x": [1, 2], "y": ["1,5", "2,5"]}, "regression", "decimal comma"
    ),
    "too many decimal commas": (
        {"x": [f"{i},5" for i in range(60)], "y": [0, 1] * 30}, None, "--drop x.*decimal comma"
    ),
    "too many categories": (
        {"x": [f"c{i}" for i in range(60)], "y": [0, 1] * 30}, None, r"has 60.*--drop x"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables(case):
    columns, task, said = BAD_TABLES[case]
    with pytest.raises(InvalidInput, match=said):
        Preprocessing.learn(table(**columns), "y", task)


def test_what_cannot_be_predicted_from():
    learnt = Preprocessing.learn(TRAINING, "y")
    with pytest.raises(InvalidInput, match="must have a column 'same'"):
        learnt.samples(table(size=[1.0], colour=["r"]))
    with pytest.raises(InvalidInput, match=r"'size' must hold numbers.*was trained on") as error:
        learnt.samples(table(size=["big"], colour=["r"], same=[7]))
    assert "--drop" not in str(error.value)
    with pytest.raises(InvalidInput, match="decimal comma"):
        learnt.samples(table(size=["1,5"], colour=["r"], same=[7]))
    with pytest.raises(InvalidInput, match="got 'w'"):
        learnt.targets(table(y=["w"]))


def test_among_text_and_numbers_the_error_names_the_first_text():
    cells = table(x=["", "2", "oops", "bad"], codes=["", "07", "8", "9"])
    with pytest.raises(InvalidInput, match=r"'x' must hold numbers; sample 3 has 'oops'"):
        numbers(cells, "x")
    with pytest.raises(InvalidInput, match="'codes' must hold numbers; sample 2 has '07'"):
        numbers(cells, "codes")


def test_bools_are_the_same_numbers_however_a_file_has_them():
    learnt = Preprocessing.learn(table(x=[True, False, True], y=["u", "v", "u"]), "y")
    features_BF = learnt.samples(table(x=[True, False, True, np.nan]))
    for cells in (["True", "False", "True", ""], ["true", "false", "TRUE", ""], [1, 0, 1, np.nan]):
        np.testing.assert_array_equal(learnt.samples(table(x=cells)), features_BF)
    assert np.isnan(numbers(table(x=["", ""]), "x")).all()
    with pytest.raises(InvalidInput, match="sample 2 has 'yes'"):
        numbers(table(x=["True", "yes"]), "x")
    with pytest.raises(InvalidInput, match="sample 2 has 'True'"):
        numbers(table(x=["1", "True"]), "x")


def test_bools_learnt_as_text_are_found_in_another_spelling():
    """As of a Parquet file's texts, or of a run that is older than the one spelling of CSV."""
    learnt = Preprocessing.learn(table(x=["true", "false"], y=["TRUE", "FALSE"]), "y")
    other = table(x=["False", "TRUE", "maybe"], y=["true", "False", "True"])
    assert learnt.samples(other).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert learnt.targets(other).tolist() == [1, 0, 1]
    assert learnt.unknown(other) == {"x": ["maybe"]}


@pytest.mark.parametrize("cells", [["true", "True", "no"], ["true", "True", "False"]])
def test_where_spellings_or_other_texts_were_learnt_apart_they_stay_apart(cells):
    learnt = Preprocessing.learn(table(x=cells, y=["u", "v", "u"]), "y")
    assert learnt.unknown(table(x=["TRUE", *cells])) == {"x": ["TRUE"]}


DAMAGE = {
    "no format": lambda j: j.pop("format"),
    "newer format": lambda j: j.update(format=99),
    "format of text": lambda j: j.update(format="1"),
    "no inputs": lambda j: j.update(inputs=[]),
    "inputs missing": lambda j: j.pop("inputs"),
    "input of text": lambda j: j.update(inputs=["a"]),
    "unknown kind": lambda j: j["inputs"][0].update(kind="image"),
    "scale 0": lambda j: j["inputs"][0].update(scale=0),
    "mean of text": lambda j: j["inputs"][0].update(mean="x"),
    "mean not finite": lambda j: j["inputs"][0].update(mean=float("nan")),
    "categories twice": lambda j: j["inputs"][2].update(categories=["a", "a"]),
    "one label": lambda j: j["target"].update(labels=["a"]),
    "target missing": lambda j: j.pop("target"),
    "unknown target": lambda j: j["target"].update(kind="boxes"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_json(case):
    plain = copy.deepcopy(Preprocessing.learn(TRAINING, "y").to_json())
    DAMAGE[case](plain)
    with pytest.raises(InvalidInput):
        Preprocessing.from_json(plain)


def test_a_newer_format_says_to_upgrade():
    with pytest.raises(InvalidInput, match=r"newer Phalanx wrote it\. Upgrade Phalanx"):
        Preprocessing.from_json({"format": 2})

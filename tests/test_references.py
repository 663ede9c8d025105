"""What is imported is the same wherever it is used, or the difference is told."""

from __future__ import annotations

import functools
import importlib
import sys

import numpy as np
import pytest

from phalanx import MLPClassifier, UserFunctionError, references
from phalanx.clusters import pool
from phalanx.testing import Fault, scripted

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
X = np.random.default_rng(0).normal(size=(80, 5))
Y = np.arange(80) % 3
RULES = """
import numpy as np

SCALE = 1.0
MORE = [1]
calls = 0

def scaled(grads_Sn, weights_S):
    return SCALE * grads_Sn.mean(axis=0)

def counted(grads_Sn, weights_S):
    global calls
    calls += 1
    return grads_Sn.mean(axis=0)

class Rule:
    calls = 0

    def __call__(self, grads_Sn, weights_S):
        Rule.calls += 1
        return self.inner(grads_Sn)

    @staticmethod
    def inner(grads_Sn):
        return scaled(grads_Sn, None)
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """A module of the user's own, in a file that tests edit."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # one edited in the same second is stale
    (tmp_path / "own_rules.py").write_text(RULES)
    yield importlib.import_module("own_rules")
    del sys.modules["own_rules"]
    pool.shutdown()


def edit(rules, before, after):
    with open(rules.__file__) as file:
        text = file.read()
    assert before in text
    with open(rules.__file__, "w") as file:
        file.write(text.replace(before, after))
    importlib.invalidate_caches()


def fit(aggregation, n_jobs=2, **more):
    clf = MLPClassifier(
        (7,), shards=4, max_iter=3, batch_size=40, random_state=0, n_jobs=n_jobs,
        aggregation=aggregation,
    )  # fmt: skip
    return clf.fit(X, Y, **more).run_.digest


def told(value):
    pickler = references.Pickler()
    pickler.dump(value)
    return pickler.told


# -- what is told --------------------------------------------------------------------------------


def test_a_function_is_told_with_the_values_that_it_reads(rules):
    assert {*told(rules.scaled)} == {"own_rules:scaled", "own_rules:SCALE"}
    assert told(rules.scaled)["own_rules:SCALE"] == "1.0"
    assert {*told(functools.partial(rules.scaled, weights_S=3))} == {*told(rules.scaled)}


def test_what_it_sets_itself_is_a_count_and_not_told(rules):
    assert {*told(rules.counted)} == {"own_rules:counted"}
    rules.counted(X, None)
    assert {*told(rules.counted)} == {"own_rules:counted"}


def test_of_a_class_the_methods_and_what_they_use_are_told(rules):
    names = {"own_rules:Rule", "own_rules:scaled", "own_rules:SCALE"}
    before = told(rules.Rule())
    assert {*before} == names
    rules.Rule()(X, None)  # counts
    assert told(rules.Rule()) == before


def test_what_a_notebook_names_of_a_module_is_told(rules):
    code = "def mine(grads_Sn, weights_S):\n    return rules.SCALE * rules.scaled(grads_Sn, None)"
    exec(code, space := {"rules": rules, "__name__": "__main__"})
    assert {*told(space["mine"])} == {"own_rules:scaled", "own_rules:SCALE"}


def test_wrappers_are_seen_through(rules):
    edit(
        rules,
        "class Rule",
        """import functools

def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

mean = wrapped(scaled)
count = wrapped(len)
count.__module__ = __name__
count.__qualname__ = "count"

class Odd:
    __slots__ = ("a",)
    b = property()
    c = wrapped(scaled)

    def __getattr__(self, name):
        return self

    d = count

class Rule""",
    )
    importlib.reload(rules)
    rules.mean.__qualname__ = "mean"
    assert "own_rules:SCALE" in told(rules.mean)
    assert {*told(rules.count)} == {"own_rules:count"}
    assert {*told(rules.Odd)} == {"own_rules:Odd"}


@pytest.mark.parametrize("value", [np.mean, functools.reduce, MLPClassifier, len, 3, None, X])
def test_what_is_installed_is_the_same_everywhere(value):
    assert told(value) == {}


def test_other_code_is_another_fact(rules):
    before = told(rules.scaled)
    edit(rules, "mean(axis=0)", "sum(axis=0)")
    importlib.reload(rules)
    after = told(rules.scaled)
    assert {*after} == {*before}
    assert after["own_rules:scaled"] != before["own_rules:scaled"]
    edit(rules, "sum(axis=0)", "mean(axis=0)")
    importlib.reload(rules)
    assert told(rules.scaled) == before


def test_a_text_that_depends_on_no_hash(rules):
    code = compile("a in {'x', 'y', 'z', 'w'}", "", "eval")
    other = compile("a in {'w', 'z', 'y', 'x'}", "", "eval")
    assert references._text(code) == references._text(other)


# -- across processes ----------------------------------------------------------------------------


def test_a_module_that_was_reloaded_is_what_the_workers_have(rules):
    first = fit(rules.scaled)
    edit(rules, "SCALE = 1.0", "SCALE = 3.0\nNEW = 2.0")
    importlib.reload(rules)
    assert fit(rules.scaled) == fit(rules.scaled, None) != first
    edit(rules, "class Rule", "def new(g, w):\n    return NEW * scaled(g, w)\n\n\nclass Rule")
    importlib.reload(rules)
    assert fit(rules.new) == fit(rules.new, None)


def test_workers_stay_warm_where_nothing_has_changed(rules):
    fit(rules.scaled)
    pids = [member.pid for member in pool.warm_pool().members]
    fit(rules.counted)
    fit(rules.Rule())
    assert [member.pid for member in pool.warm_pool().members] == pids


@pytest.mark.parametrize("name", ["scaled", "Rule"])
def test_a_value_that_was_set_is_told(rules, name):
    rules.SCALE = 3.0
    rule = rules.Rule() if name == "Rule" else rules.scaled
    fit(rule, None)  # in the caller's process
    with pytest.raises(UserFunctionError, match=r"own_rules\.SCALE is 3\.0 .* and 1\.0 for a"):
        fit(rule)
    rules.SCALE = 1.0
    assert fit(rule) == fit(rule, None)


def test_a_file_that_was_edited_and_not_reloaded_is_told(rules):
    edit(rules, "mean(axis=0)", "sum(axis=0)")
    with pytest.raises(UserFunctionError, match=r"own_rules\.scaled is the code .* and the code"):
        fit(rules.scaled)
    importlib.reload(rules)
    assert fit(rules.scaled) == fit(rules.scaled, None)


def test_a_newcomer_does_not_go_on_with_other_code(rules):
    """A file is edited while a training runs, and a worker dies."""

    def callback(epoch, record):
        if epoch == 1:
            edit(rules, "SCALE = 1.0", "SCALE = 3.0")

    with (
        scripted(Fault(worker=1, step=4, phase="compute", action="kill")),
        pytest.raises(UserFunctionError, match=r"own_rules\.SCALE"),
    ):
        fit(rules.scaled, callback=callback)

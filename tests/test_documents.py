"""What the documents show is run: the README's Python, and the examples in docstrings."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from test_architecture import INNER, SOURCE

ROOT = SOURCE.parent.parent
README = (ROOT / "README.md").read_text()
WITH_EXAMPLES = [name for name, path in INNER if "    >>> " in path.read_text()]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_readmes_program(capsys):
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    accuracy, record = capsys.readouterr().out.splitlines()
    assert float(accuracy) > 0.95
    assert re.fullmatch(r"2 \[0\.5, 0\.5\] [0-9a-f]{64}", record)


def test_the_readmes_files_exist():
    named = re.findall(r"`((?:tests|benchmarks|scripts|docs)/[\w./]+)`", README)
    named += re.findall(r"\]\(([\w./]+)\)", README)
    assert len(named) > 5
    assert not [name for name in named if not Path(ROOT, name).exists()]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name):
    failed, tried = doctest.testmod(importlib.import_module(f"phalanx.{name}"))
    assert tried
    assert not failed

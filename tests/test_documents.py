"""What the documents show is run: the README's Python, and the examples in docstrings."""

import doctest
import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from test_architecture import INNER, SOURCE

ROOT = SOURCE.parent.parent
README = (ROOT / "README.md").read_text()
WITH_EXAMPLES = [name for name, path in INNER if "    >>> " in path.read_text()]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_readmes_program(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "none that there is")  # the program says which
    programs = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program, functions, module, keras_model, checkpoints, faults = programs
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(program, "README.md", "exec"), names)
    exec(compile(functions, "README.md", "exec"), names)
    accuracy, record = capsys.readouterr().out.splitlines()
    assert float(accuracy) > 0.95
    assert re.fullmatch(r"2 \[0\.\d+, 0\.\d+\] [0-9a-f]{64}", record)
    clf, data = names["clf"], (names["X_train"], names["y_train"])
    own = {"aggregation": "majority", "data_distribution": "newest_first"}
    own["task_assignment"] = "all_to_the_last"
    clf.set_params(max_iter=3, **{name: names[function] for name, function in own.items()})
    assert clf.fit(*data).run_.shares[1] > 0.5
    for _ in range(2):
        exec(compile(module, "README.md", "exec"), names)
        exec(compile(keras_model, "README.md", "exec"), names)
    *first, of_torch, of_keras = capsys.readouterr().out.splitlines()
    assert first == [of_torch, of_keras]  # both are seeded
    for line in (of_torch, of_keras):
        figure, digest = line.split()
        assert len(digest) == 64
    assert names["run"].history["val_accuracy"][-1] > 0.9
    assert float(figure) < 0.2
    exec(compile(checkpoints, "README.md", "exec"), names)
    assert list(tmp_path.glob("checkpoints/step-*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(faults, "README.md", "exec"), names)
    assert names["shaken"].run_.events[0].what == "worker lost"


def test_the_readmes_command_line(tmp_path):
    commands = re.search(r"```bash\n(python -c .*?)```", README, re.DOTALL).group(1)
    quick = re.sub(r"^phalanx (doctor|demo).*\n", "", commands, flags=re.M)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-e", "-c", quick], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True
    )
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    record = json.loads((tmp_path / "runs" / "first" / "run.json").read_text())
    assert record["run"]["workers"] == 2  # as many as it asks for
    predictions = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(predictions) == 151
    assert set(predictions[1:]) == {"setosa", "versicolor", "virginica"}


def test_the_program_for_several_machines(capsys):
    page = (ROOT / "docs" / "cluster.md").read_text()
    program = re.search(r"```python\n(# train.py\n.*?)```", page, re.DOTALL)
    exec(compile(program.group(1), "train.py", "exec"), {"__name__": "__main__"})
    assert re.fullmatch(r"1 \d+ [0-9a-f]{64}\n", capsys.readouterr().out)


def test_the_readmes_files_exist():
    named = re.findall(r"`((?:tests|benchmarks|scripts|docs)/[\w./]+)`", README)
    named += re.findall(r"\]\(([\w./]+)\)", README)
    assert len(named) > 5
    assert not [name for name in named if not Path(ROOT, name).exists()]


def test_what_to_install_is_told_so_that_it_works():
    """Phalanx comes from its clone, not by a name; zsh takes bare brackets for its own."""
    texts = [path.read_text() for path in (*SOURCE.rglob("*.py"), *ROOT.glob("docs/*.md"))]
    told = re.findall(r"pip install ([^`\n]*)", "\n".join([README, *texts]))
    assert len(told) > 5
    assert not [said for said in told if "phalanx" in said or "[" in re.sub('"[^"]*"', "", said)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name):
    failed, tried = doctest.testmod(importlib.import_module(f"phalanx.{name}"))
    assert tried
    assert not failed

"""The step as it is compiled into wheels: what users have is held to what the sources are.

Tests that replace a part of the step by a stand-in run on the sources alone; classes that are
compiled take none.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
OUTSIDE_IN = ("test_tiny.py", "test_digests.py", "test_failures.py", "test_torch_digests.py")

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that phalanx is installed in, compiled."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("installed")
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, tree)
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tree / "src", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    where = ["--no-deps", "--no-build-isolation", "--target", str(target), str(tree)]
    run([*pip, *where], os.environ)
    return target


def run(command, environment):
    """Its output, shown where it fails."""
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-8000:]
    return result.stdout


def on(installed):
    """The environment in which it is that which is imported."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**ours, "PYTHONPATH": str(installed)}


def test_step_and_kernels_are_compiled(installed):
    code = (
        "import phalanx; from phalanx import engine; from phalanx.pure import kernels;"
        "print(phalanx.__file__, engine.is_compiled(), kernels.IS_COMPILED)"
    )
    said = run([sys.executable, "-c", code], on(installed)).split()
    assert said == [str(installed / "phalanx" / "__init__.py"), "True", "True"]


def test_both_forms_come_to_the_same_bits(installed):
    code = (
        "import numpy as np; from phalanx import MLPRegressor;"
        "x = np.random.default_rng(0).random((150, 7));"
        "net = MLPRegressor(hidden_layer_sizes=(9,), max_iter=3, random_state=0, batch_size=32,"
        " n_jobs=2, early_stopping=True, dropout=0.3, tol=0);"
        "print(net.fit(x, x.sum(axis=1)).run_.digest)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert run(command, on(installed)) == run(command, os.environ)


@pytest.mark.parametrize("module", OUTSIDE_IN)
def test_what_is_seen_from_outside_is_the_same(installed, module):
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider"]
    run([*command, f"tests/{module}"], on(installed))

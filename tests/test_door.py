"""The public door: every name there, nothing more, and nothing loaded before it is asked for."""

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest

import phalanx


def test_every_public_name_is_there():
    for name in phalanx.__all__:
        assert getattr(phalanx, name) is not None
    assert dir(phalanx) == sorted(phalanx.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = phalanx.Trainer


@pytest.mark.parametrize("loaded", ["sklearn", "torch", "scipy", "keras", "multiprocessing"])
def test_import_is_light(loaded):
    code = f"import sys, phalanx; sys.exit({loaded!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_engine_module_loads_scikit_learn_or_torch():
    code = (
        "import sys, phalanx.training.train, phalanx.clusters.process;"
        "sys.exit(any(name in sys.modules for name in ('sklearn', 'torch', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_help_of_fit_lists_every_option_and_says_where():
    pytest.importorskip("torch")
    from phalanx.fitting.pytorch.modules import fit_module
    from phalanx.fitting.wishes import Wishes

    said = inspect.getdoc(phalanx.fit)
    assert "options of a torch module are listed here" in said.split("\n\n")[1].replace("\n", " ")
    listed = {name for line in said.splitlines() for name in line.split(" : ")[0].split(", ")}
    taken = inspect.signature(fit_module).parameters.values()
    options = {one.name for one in taken if one.kind is one.KEYWORD_ONLY}
    assert options
    assert not (options | {wish.name for wish in fields(Wishes)}) - listed


def test_errors_are_one_family():
    for name in ("InvalidInput", "UserFunctionError", "WorkerError", "WorkerLost"):
        assert issubclass(getattr(phalanx, name), phalanx.PhalanxError)
    assert issubclass(phalanx.InvalidInput, ValueError)
    assert issubclass(phalanx.RunFolderError, OSError)

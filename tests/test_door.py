"""The public door: every name there, nothing more, and nothing loaded before it is asked for."""

import subprocess
import sys

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


def test_errors_are_one_family():
    for name in ("InvalidInput", "UserFunctionError", "WorkerError", "WorkerLost"):
        assert issubclass(getattr(phalanx, name), phalanx.PhalanxError)
    assert issubclass(phalanx.InvalidInput, ValueError)
    assert issubclass(phalanx.RunFolderError, OSError)

"""The programs in examples/ run as they stand, to the same digest for any number of workers."""

import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import mnist
import standard_library

EXAMPLES = Path(mnist.__file__).parent
KERAS_WAITS = pytest.mark.skip(reason="phalanx.fit does not train Keras models yet")

TINY = {
    "torch_mnist.py": ["--epochs=1", "--limit=96", "--batch-size=48", "--shards=2"],
    "char_transformer.py": [
        "--epochs=1", "--characters=6000", "--batch-size=32", "--shards=2", "--sample=10",
    ],
    "keras_mnist_convnet.py": ["--epochs=1", "--limit=256"],
    "lstm_text.py": ["--epochs=1", "--limit=256"],
}  # fmt: skip
IN_KERAS = ("keras_mnist_convnet.py", "lstm_text.py")
PROGRAMS = [pytest.param(name, marks=[KERAS_WAITS] * (name in IN_KERAS)) for name in TINY]


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_ends_in_one_digest(name):
    one, two = (digest(name, workers) for workers in (1, 2))
    assert one == two


def digest(name, workers):
    """What an example prints in a process of its own, where each has one thread."""
    command = [sys.executable, str(EXAMPLES / name), *TINY[name], f"--workers={workers}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"\n{workers} workers, " in done.stdout
    (found,) = re.findall(r"^digest ([0-9a-f]{64})$", done.stdout, re.MULTILINE)
    return found


def test_every_example_is_tried_and_named():
    helpers = {"mnist.py", "standard_library.py"}
    programs = {path.name for path in EXAMPLES.glob("*.py")} - helpers
    assert programs == set(TINY)
    readme = (EXAMPLES / "README.md").read_text()
    assert all(name in readme for name in programs | helpers)


def test_digits_stand_in_for_mnist(monkeypatch, tmp_path):
    monkeypatch.delenv("PHALANX_MNIST", raising=False)
    monkeypatch.setattr(mnist, "BESIDE", tmp_path)
    data = mnist.load()
    assert data.x_train.shape == (1500, 28, 28)
    assert data.x_test.shape == (297, 28, 28)
    assert data.x_train.max() == 255
    assert set(data.y_test) == set(range(10))


def test_idx_files_are_read(monkeypatch, tmp_path):
    for name in mnist.FILES:
        shape = (2, 2, 2) if "images" in name else (2,)
        head = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        (tmp_path / name).write_bytes(head + bytes(math.prod(shape)))
    monkeypatch.setenv("PHALANX_MNIST", str(tmp_path))
    data = mnist.load(1)
    assert data.name == "MNIST"
    assert (data.x_train.shape, data.y_train.shape) == ((1, 2, 2), (1,))


def test_a_named_folder_without_mnist_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PHALANX_MNIST", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="train-images"):
        mnist.load()


def test_files_are_kept_back_whole():
    names = list(standard_library.sources("json/*.py"))
    most, few = standard_library.parted(names, one_in=5)
    assert len(few) == 1
    assert sorted(most + few) == sorted(names)

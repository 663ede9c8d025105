"""The programs in examples/ run as they stand, to the same digest for any number of workers."""

import math
import os
import re
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import mnist
import standard_library

EXAMPLES = Path(mnist.__file__).parent
TINY = {
    "torch_mnist.py": ["--epochs=1", "--limit=96", "--batch-size=48", "--shards=2"],
    "char_transformer.py": [
        "--epochs=1", "--characters=6000", "--batch-size=32", "--shards=2", "--sample=10",
    ],
    "keras_mnist_convnet.py": ["--epochs=1", "--limit=256"],
    "lstm_text.py": ["--epochs=1", "--limit=256"],
}  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch"}


@pytest.mark.parametrize("name", TINY)
def test_an_example_ends_in_one_digest(name):
    if "import keras" in (EXAMPLES / name).read_text() and find_spec("keras") is None:
        pytest.skip("Keras is not installed")
    both = [started(name, workers) for workers in (1, 2)]  # side by side: most of it is imports
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], [err for _, err in outputs]
    one, two = (digest(out, workers) for workers, (out, _) in enumerate(outputs, 1))
    assert one == two


def started(name, workers):
    """An example in a process of its own."""
    command = [sys.executable, str(EXAMPLES / name), *TINY[name], f"--workers={workers}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def digest(output, workers):
    """What an example printed in the end."""
    assert f"\n{workers} workers, " in output
    (found,) = re.findall(r"^digest ([0-9a-f]{64})$", output, re.MULTILINE)
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

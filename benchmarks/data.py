"""The data: scikit-learn's iris and digits, and MNIST from its IDX files."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
MNIST = Path(os.environ.get("PHALANX_MNIST", ROOT.parent / "shared" / "data" / "mnist"))
IDX_HEADERS = {"images": 16, "labels": 8}  # bytes before the first value


@dataclass(frozen=True)
class Data:
    """Samples `x` [n, F] in float32, class indices `y` [n], and where they come from."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    source: str

    def first(self, n_samples: int) -> Data:
        return Data(self.x[:n_samples], self.y[:n_samples], self.source)


def iris() -> Data:
    """150 flowers, of 4 measures each."""
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return Data(x.astype(np.float32), y.astype(np.int64), "load_iris")


def digits() -> Data:
    """1,797 images of 8 x 8."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Data((x / 16).astype(np.float32), y.astype(np.int64), "load_digits")


def mnist() -> Data:
    """60,000 images of 28 x 28, or noise of the same shape where the files are absent."""
    if not (MNIST / "train-images-idx3-ubyte.gz").exists():
        return noise(60_000, 784)
    return _mnist("train")


def mnist_test() -> Data:
    """The 10,000 images that are not trained on, or other noise."""
    if not (MNIST / "t10k-images-idx3-ubyte.gz").exists():
        return noise(10_000, 784, seed=1)
    return _mnist("t10k")


def _mnist(part: str) -> Data:
    pixels = idx(MNIST / f"{part}-images-idx3-ubyte.gz", IDX_HEADERS["images"])
    labels = idx(MNIST / f"{part}-labels-idx1-ubyte.gz", IDX_HEADERS["labels"])
    x = pixels.reshape(-1, 784).astype(np.float32) / np.float32(255)
    return Data(x, labels.astype(np.int64), "MNIST")


def idx(path: Path, header: int) -> npt.NDArray[np.uint8]:
    """The values of a compressed IDX file of bytes."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def noise(n_samples: int, n_features: int, seed: int = 0) -> Data:
    """Random samples of ten random classes: the arithmetic of real ones, nothing to learn."""
    rng = np.random.default_rng(seed)
    x = rng.random((n_samples, n_features), np.float32)
    return Data(x, rng.integers(0, 10, n_samples), "synthetic stand-in for MNIST")

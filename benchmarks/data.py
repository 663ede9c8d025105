"""The data: scikit-learn's iris and digits, and MNIST from its IDX files."""

from __future__ import annotations

import gzip
import os
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
MNIST = Path(os.environ.get("PHALANX_MNIST", ROOT.parent / "shared" / "data" / "mnist"))
IDX_HEADERS = {"images": 16, "labels": 8}  # bytes before the first value


@dataclass(frozen=True)
class Data:
    """Samples `x` [n, F] in float32, dense or sparse, class indices `y` [n], and where they come
    from."""

    x: Any
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


def standardised_mnist() -> Data:
    """Every pixel with mean 0 and variance 1, so that few are 0: those that always were."""
    from sklearn.preprocessing import StandardScaler

    images = mnist()
    return Data(StandardScaler().fit_transform(images.x), images.y, f"{images.source}, scaled")


PIECE = 8  # lines of a sample of text
WORDS = 5_000


def text() -> Data:
    """Pieces of the source of Python's standard library: of which of ten packages each is, by the
    words that are in it (tf-idf), sparse."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    pieces, packages = [], []
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*/*.py")):
        if path.parent.name in ("test", "site-packages"):
            continue
        lines = path.read_text("utf-8", "replace").splitlines()
        found = ["\n".join(lines[at : at + PIECE]) for at in range(0, len(lines), PIECE)]
        pieces += found
        packages += [path.parent.name] * len(found)
    names = [name for name, _ in Counter(packages).most_common(10)]
    kept = [i for i, package in enumerate(packages) if package in names]
    mixed = np.random.default_rng(0).permutation(kept)
    x = TfidfVectorizer(max_features=WORDS, dtype=np.float32).fit_transform(
        [pieces[i] for i in mixed]
    )
    y = np.array([names.index(packages[i]) for i in mixed])
    return Data(x.tocsr(), y, "Python's standard library")


def idx(path: Path, header: int) -> npt.NDArray[np.uint8]:
    """The values of a compressed IDX file of bytes."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def noise(n_samples: int, n_features: int, seed: int = 0) -> Data:
    """Random samples of ten random classes: the arithmetic of real ones, nothing to learn."""
    rng = np.random.default_rng(seed)
    x = rng.random((n_samples, n_features), np.float32)
    return Data(x, rng.integers(0, 10, n_samples), "synthetic stand-in for MNIST")

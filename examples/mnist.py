"""MNIST as arrays, without a download: the handwritten digits that the other programs here learn.

Read from the four IDX files of http://yann.lecun.com/exdb/mnist/, packed with gzip or not, in the
folder that the environment variable PHALANX_MNIST names, or else in ../shared/data/mnist beside
this repository. Where there are none, scikit-learn's 1,797 digits stand in, enlarged to 28 x 28.
"""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
BESIDE = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "mnist"


class Mnist(NamedTuple):
    """Images [n, 28, 28] of bytes and labels [n] from 0 to 9."""

    name: str
    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]


def load(limit: int | None = None) -> Mnist:
    """MNIST, or what stands in for it; at most the first `limit` samples of each part."""
    folder = Path(os.environ.get("PHALANX_MNIST", BESIDE))
    paths = [_path(folder, name) for name in FILES]
    if all(path is not None for path in paths):
        name, arrays = "MNIST", [read_idx(path) for path in paths if path is not None]
    elif "PHALANX_MNIST" in os.environ:
        raise FileNotFoundError(f"PHALANX_MNIST is {folder}, and {', '.join(FILES)} are not there.")
    else:
        name, arrays = "scikit-learn's digits", _digits()
    x_train, y_train, x_test, y_test = (array[:limit] for array in arrays)
    return Mnist(name, x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of bytes: two zeros, the type 8, the number of axes, their lengths, the data."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read()
    zeros, kind, n_axes = struct.unpack_from(">HBB", content)
    if zeros or kind != 8:
        raise ValueError(f"{path} is no IDX file of bytes.")
    shape = struct.unpack_from(f">{n_axes}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def _path(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.exists()), None)


def _digits() -> list[NDArray[np.uint8]]:
    """Each of the 8 x 8 pixels becomes 3 x 3, with a margin of 2; five sixths are for training."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    x = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    y = labels.astype(np.uint8)
    return [x[:1500], y[:1500], x[1500:], y[1500:]]

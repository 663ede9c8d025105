"""A dataset without arrays is known again by some of its samples."""

from __future__ import annotations

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import phalanx  # noqa: E402 - torch is an extra
import torch_models as models  # noqa: E402
from phalanx.data.fingerprint import fingerprint  # noqa: E402
from phalanx.errors import CheckpointError  # noqa: E402
from phalanx.models.pytorch.batches import GLIMPSED, DatasetSamples  # noqa: E402


class Made:
    """Samples that are made when they are asked for."""

    def __init__(self, sample, n=3 * GLIMPSED):
        self.sample, self.n = sample, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.sample(i)


def of(sample, n=3 * GLIMPSED):
    return fingerprint(DatasetSamples.of(Made(sample, n), None))


SAMPLES = {
    "tensor": lambda i: torch.full((3,), float(i)),
    "nan": lambda i: torch.tensor([float("nan")]),
    "bfloat16": lambda i: torch.full((), i, dtype=torch.bfloat16),
    "sparse": lambda i: torch.eye(3).to_sparse(),
    "array": lambda i: np.full(3, i),
    "nest": lambda i: {"x": np.float32(i), "label": (i, "text", None)},
    "drawn": lambda i: torch.rand(3) + random.random() + np.random.rand(),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_dataset_is_known_again(name):
    assert of(SAMPLES[name]) == of(SAMPLES[name])


def test_others_are_told_apart():
    found = [of(sample) for sample in SAMPLES.values()]
    found += [of(lambda i: torch.full((1, 3), float(i))), of(lambda i: np.full(3, i, np.int8))]
    found += [of(lambda i: torch.full((3,), float(i == 3 * GLIMPSED - 3))), of(lambda i: i, 5)]
    assert len({*found}) == len(found)


def test_what_is_never_the_same_tells_nothing_apart():
    rng = np.random.default_rng()
    assert of(lambda i: rng.random()) == of(lambda i: rng.integers(2**62))
    assert of(lambda i: object()) == of(lambda i: object())


def test_a_checkpoint_of_another_dataset_is_refused(tmp_path):
    def fit(offset, **more):
        data = Made(lambda i: (models.X[i] + offset, models.CLASSES[i]), len(models.X))
        settings = dict(loss="cross_entropy", batch_size=16, workers=1, checkpoint=tmp_path)
        return phalanx.fit(models.mlp(), data, **settings, **more)

    fit(0.0)
    with pytest.raises(CheckpointError, match="differs in data"):
        fit(5.0, epochs=2, resume=True)
    assert fit(0.0, epochs=2, resume=True).epochs == 2

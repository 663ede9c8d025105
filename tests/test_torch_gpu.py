"""`device="cuda"`: the same API and the same record. Needs a GPU, and is skipped without one."""

import pytest

import phalanx
import torch_models as models

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def data():
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def fitted(device, workers=1):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
    )
    run = phalanx.fit(
        module, data(), loss="cross_entropy", epochs=2, batch_size=32, shards=2, device=device,
        workers=workers,
    )  # fmt: skip
    return module, run


def test_any_number_of_workers_ends_in_the_same_digest():
    (one, alone), (two, together) = fitted("cuda"), fitted("cuda", workers=2)
    assert alone.digest == together.digest
    models.assert_alike(one, two)


def test_the_losses_are_those_of_the_processor():
    assert fitted("cuda")[1].losses == pytest.approx(fitted("cpu")[1].losses, rel=1e-3)
    assert next(fitted("cuda")[0].parameters()).device.type == "cpu"  # the user's stays in place

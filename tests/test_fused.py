"""The direct call of torch's fused kernels: for whom it is, and that it gives the same bits."""

import pytest

torch = pytest.importorskip("torch")

from phalanx.models.pytorch.describing import Described  # noqa: E402


def described(make):
    module = torch.nn.Linear(3, 2)
    return Described(module, make(module.parameters())).described


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.SGD,
        lambda params: torch.optim.Adam(params, weight_decay=0.1, maximize=True),
        lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    ],
)
def test_torchs_own_classes_are_called_directly(make):
    assert described(make).is_direct


class OwnAdam(torch.optim.Adam):
    pass


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.RMSprop,
        OwnAdam,
        lambda params: torch.optim.Adam(params, amsgrad=True),
        lambda params: torch.optim.Adam(params, lr=torch.tensor(0.1)),
    ],
)
def test_all_others_make_their_own_step(make):
    assert not described(make).is_direct

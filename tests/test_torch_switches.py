"""torch's switches for a whole process: the answer is the same whichever process computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as hooks

import phalanx
import torch_models as models
from phalanx import CheckpointError, InvalidInput
from phalanx.fitting.pytorch.arguments import settings_of
from phalanx.models.pytorch import switches

BACKENDS = torch.backends
SETTINGS = dict(loss="cross_entropy", epochs=2, batch_size=16, shards=4)
HAS_PRECISIONS = hasattr(torch._C, "_get_fp32_precision_getter")
needs_precisions = pytest.mark.skipif(not HAS_PRECISIONS, reason="torch 2.9 has brought them")


def all_of_them():
    return {name: switch.read() for name, switch in switches._switches().items()}


@pytest.fixture(autouse=True)
def as_before():
    """Puts everything back."""
    before = all_of_them()
    yield
    torch.set_float32_matmul_precision("highest")
    for name, value in before.items():
        switches._switches()[name].write(value)
    assert all_of_them() == before


class Attends(nn.Module):
    """Says which switches it has seen, in its output."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        seen = [
            torch.backends.mkldnn.enabled,
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.get_deterministic_debug_mode() == 0,
        ]
        if HAS_PRECISIONS:
            for part in (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv):
                seen += [part.fp32_precision == kind for kind in ("tf32", "bf16")]
            seen += [torch.backends.fp32_precision == kind for kind in ("tf32", "bf16")]
        number = sum(2**i for i, flag in enumerate(seen) if flag)
        return self.inner(x) * (1 + number / 1000)


def set_mkldnn():
    BACKENDS.mkldnn.enabled = False


def set_all():
    BACKENDS.fp32_precision = "tf32"


def set_matmul():
    BACKENDS.mkldnn.matmul.fp32_precision = "bf16"


def set_cuda():
    BACKENDS.cudnn.deterministic = True
    BACKENDS.cuda.matmul.fp32_precision = "tf32"


def set_conv():
    BACKENDS.mkldnn.conv.fp32_precision = "bf16"
    torch.set_float32_matmul_precision("high")


WAYS = [
    set_mkldnn,
    lambda: BACKENDS.cuda.enable_flash_sdp(False),
    lambda: BACKENDS.cuda.enable_mem_efficient_sdp(False),
    lambda: BACKENDS.cuda.enable_math_sdp(False),
    lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    *[
        pytest.param(way, marks=needs_precisions)
        for way in (set_all, set_matmul, set_cuda, set_conv)
    ],
]


def fitted(workers, make=Attends, data=(models.X, models.CLASSES)):
    module = models.made(make)
    run = phalanx.fit(module, data, workers=workers, **SETTINGS)
    outputs = phalanx.predict(module, data[0], workers=workers)
    figures = phalanx.evaluate(module, data, loss="cross_entropy", workers=workers)
    return run.digest, outputs.tobytes(), figures


@pytest.mark.parametrize("way", WAYS)
def test_workers_have_the_callers(way):
    plain = fitted(2)
    way()
    mine = all_of_them()
    alone, together = fitted(1), fitted(2)
    assert all_of_them() == mine
    assert alone == together
    if way is not set_cuda:  # which a CPU has no part in
        assert alone != plain
    torch.set_float32_matmul_precision("highest")
    for name, switch in switches._switches().items():
        if name not in switches.MATMULS:
            switch.write(switch.default)
    assert fitted(2) == plain, "the next job of the same workers"


def test_attention_by_one_kernel():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 24)
            self.outer = nn.Linear(8, 3)

        def forward(self, x):
            parts = self.inner(x)[:, None].chunk(3, dim=-1)
            return self.outer(functional.scaled_dot_product_attention(*parts)[:, 0].mean(dim=1))

    data = torch.randn(48, 64, 8), models.CLASSES
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        assert fitted(1, Attentive, data) == fitted(2, Attentive, data)


def test_numbers_near_zero_are_kept():
    class Tiny(nn.Linear):
        def forward(self, x):
            return super().forward((x * 1e-40) * 1e36)

    plain = fitted(1, lambda: Tiny(6, 3))
    try:
        torch.set_flush_denormal(True)
        assert fitted(1, lambda: Tiny(6, 3)) == fitted(2, lambda: Tiny(6, 3)) == plain
        assert float(torch.tensor([1e-40]) * 0.5) == 0.0, "as the caller has set it"
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("name", ["forward_pre_hook", "forward_hook", "full_backward_hook"])
def test_hooks_on_all_modules_are_refused(name):
    handle = getattr(hooks, f"register_module_{name}")(lambda *arguments: None)
    try:
        with pytest.raises(InvalidInput, match=r"(?s)on all modules.*Remove them"):
            phalanx.fit(models.mlp(), (models.X, models.CLASSES), **SETTINGS)
        with pytest.raises(InvalidInput, match="on all modules"):
            phalanx.predict(models.mlp(), models.X)
    finally:
        handle.remove()
    phalanx.predict(models.mlp(), models.X, workers=1)


def test_what_a_checkpoint_knows_says_only_what_is_not_as_usual():
    usual = repr(settings_of("float32", "cpu"))
    assert usual == (
        "Settings(default_dtype='float32', matmul_precision='highest', precision='float32', "
        "device='cpu')"
    )
    BACKENDS.mkldnn.enabled = False
    BACKENDS.cudnn.deterministic = True  # a CPU has no part in it
    settings = settings_of("float32", "cpu")
    assert (repr(settings), settings.switches) == (usual, (("mkldnn.enabled", False),))


@pytest.mark.parametrize("changes", [{}, {"mkldnn.enabled": False}])
def test_a_checkpoint_goes_on_with_the_switches_that_it_began_with(changes, tmp_path):
    def fit(**more):
        phalanx.fit(
            models.mlp(), (models.X, models.CLASSES), **SETTINGS, workers=1,
            checkpoint=tmp_path / "a.phx", **more,
        )  # fmt: skip

    fit()
    if changes:
        BACKENDS.mkldnn.enabled = False
        with pytest.raises(CheckpointError, match=r"mkldnn\.enabled=False"):
            fit(resume=True)
    else:
        fit(resume=True)

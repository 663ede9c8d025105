import numpy as np
import pytest
import torch

from phalanx.pure.optimizers import (
    OPTIMIZERS,
    Adagrad,
    Adam,
    AdamW,
    KeepGradient,
    Momentum,
    RMSprop,
    Slice,
)

RATE = 0.05
TINY = 1e-14  # torch adds epsilon after Adam's bias correction, scikit-learn and we before
GRADS = np.random.default_rng(1).normal(size=(12, 40))
START = np.random.default_rng(2).normal(size=40)


def run(optimizer, cuts=(0, 40), dtype="float64"):
    params = START.astype(dtype)
    state = np.zeros((len(optimizer.slots), 40), dtype)
    for step, grad in enumerate(GRADS.astype(dtype), start=1):
        for start, stop in zip(cuts, cuts[1:], strict=False):
            view, scratch = state[:, start:stop], np.empty(stop - start, dtype)
            at = Slice(params[start:stop], view, scratch, grad[start:stop].copy())
            optimizer.update(at, step, RATE)
    return params, state


def run_torch(make):
    params = torch.tensor(START, requires_grad=True)
    optimizer = make([params])
    for grad in GRADS:
        params.grad = torch.tensor(grad)
        optimizer.step()
    return params.detach().numpy()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (OPTIMIZERS["sgd"](), lambda p: torch.optim.SGD(p, RATE)),
        (Momentum(0.9), lambda p: torch.optim.SGD(p, RATE, momentum=0.9)),
        (OPTIMIZERS["nesterov"](0.9), lambda p: torch.optim.SGD(p, RATE, 0.9, nesterov=True)),
        (AdamW(epsilon=TINY), lambda p: torch.optim.AdamW(p, RATE, eps=TINY, weight_decay=0.01)),
        (RMSprop(0.9, 1e-8), lambda p: torch.optim.RMSprop(p, RATE, alpha=0.9, eps=1e-8)),
        (Adagrad(1e-8), lambda p: torch.optim.Adagrad(p, RATE, eps=1e-8)),
        (Adam(epsilon=TINY), lambda p: torch.optim.Adam(p, RATE, eps=TINY)),
    ],
    ids=["sgd", "momentum", "nesterov", "adamw", "rmsprop", "adagrad", "adam"],
)
def test_follows_torch(ours, theirs):
    np.testing.assert_allclose(run(ours)[0], run_torch(theirs), rtol=1e-9)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_element_by_element_and_in_its_dtype(name, dtype):
    whole, state = run(OPTIMIZERS[name](), dtype=dtype)
    parts, _ = run(OPTIMIZERS[name](), cuts=(0, 16, 32, 40), dtype=dtype)
    assert whole.dtype == state.dtype == dtype
    np.testing.assert_array_equal(whole, parts)
    assert not np.array_equal(whole, START.astype(dtype))


def test_keep_gradient_changes_no_parameter():
    params, state = run(KeepGradient())
    np.testing.assert_array_equal(params, START)
    np.testing.assert_array_equal(state[0], GRADS[-1])


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"sgd"}))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_state_stays_subnormal(name, dtype):
    """Gradients that vanish, as those of weights that the L2 penalty alone moves, or that end."""
    optimizer, tiny = OPTIMIZERS[name](), np.finfo(dtype).tiny
    size, smallest = 64, np.log10(tiny)
    params, state = np.ones(size, dtype), np.zeros((len(optimizer.slots), size), dtype)
    vanishing = 10.0 ** np.linspace(smallest - 6, 0, size)
    for step in range(1, 25_000, 1):
        grad = (vanishing if step < 3 else np.zeros(size)).astype(dtype)
        optimizer.update(Slice(params, state, np.empty_like(grad), grad), step, RATE)
        assert step < 4 or not np.any((state != 0) & (np.abs(state) < tiny)), step

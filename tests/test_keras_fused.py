"""torch's own kernels in place of Keras' operations: for whom, and that they compute the same."""

import numpy as np
import pytest

import keras_models as km
from phalanx import references
from phalanx.fitting.keras3.data import KerasData
from phalanx.fitting.keras3.described import DescribedModel
from phalanx.models.keras3 import fused, recurrent
from phalanx.models.keras3.optimizers import (
    KerasOptimizer,
    OptimizerKind,
    scalar_names,
    slot_names,
)
from phalanx.models.pytorch.tape import Tape
from phalanx.pure.layout import Region
from phalanx.pure.optimizers import Slice
from phalanx.pure.timetable import Moment

keras, torch = km.keras, pytest.importorskip("torch")
pytestmark = km.marks
N = 37
RNG = np.random.default_rng(0)


def described(optimizer, name=None):
    optimizer.build([keras.Variable(np.zeros(N, np.float32))])
    config = {**optimizer.get_config(), "learning_rate": 0.001}
    packed = references.dumps((OptimizerKind.of(optimizer), config, {}, {}))
    names = slot_names(optimizer, 1), scalar_names(optimizer)
    return KerasOptimizer(packed, *names, 1, None, name or type(optimizer).__name__)


def block(optimizer, dtype=np.float32):
    numbers = [RNG.random(N).astype(dtype) for _ in range(2)]
    state_MN = np.zeros((len(optimizer.slots), N), dtype)
    at = Slice(
        numbers[0], state_MN, np.zeros(N, dtype), numbers[1],
        np.zeros((2, optimizer.n_scalars)),
        np.full((9, 1), 0.01), Region(0, N),
    )  # fmt: skip
    optimizer.fresh(at)
    return at


def is_fused(optimizer):
    return optimizer.bind(block(optimizer)).__self__.__class__.__name__ == "FusedUpdate"


ADAMS = {
    "Adam": keras.optimizers.Adam,
    "decayed": lambda: keras.optimizers.Adam(weight_decay=0.1, beta_1=0.5, epsilon=1e-3),
    "AdamW": lambda: keras.optimizers.AdamW(weight_decay=0.1),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ADAMS)
def test_adam_by_the_kernel_is_keras_own_to_rounding(name, dtype, monkeypatch):
    blocks, start = [], None
    for kernel in (fused.fused_adam, lambda *_: None):
        monkeypatch.setattr(fused, "fused_adam", kernel)
        optimizer = described(ADAMS[name]())
        at = block(optimizer, dtype)
        start = at.params_n.copy() if start is None else start
        at.params_n[...] = start
        update = optimizer.bind(at)
        for step in range(9):
            at.grad_n = np.random.default_rng(step).standard_normal(N).astype(dtype)
            update(Moment(0, step, step, 0), 0.0)
        blocks.append((update.__self__.__class__.__name__, at))
    (one, mine), (other, theirs) = blocks
    assert (one, other) == ("FusedUpdate", "BlockUpdate")
    np.testing.assert_allclose(mine.params_n, theirs.params_n, 1e-6, 1e-6)
    np.testing.assert_allclose(mine.state_Mn, theirs.state_Mn, 1e-5, 1e-7)
    assert mine.scalars_2C.tolist() == theirs.scalars_2C.tolist() == [[8], [9]]


@pytest.mark.parametrize(
    "make",
    [
        keras.optimizers.SGD,
        lambda: keras.optimizers.Adam(amsgrad=True),
        lambda: keras.optimizers.Adam(loss_scale_factor=2.0),
        keras.optimizers.Nadam,
    ],
)
def test_all_others_are_left_to_keras(make):
    assert not is_fused(described(make()))


def test_a_kernel_that_computes_something_else_is_not_used(monkeypatch):
    assert is_fused(described(keras.optimizers.Adam()))
    monkeypatch.setattr(fused.FusedAdam, "_keras_correction", lambda self, k: 0.9)
    assert not is_fused(described(keras.optimizers.Adam()))
    monkeypatch.delattr(torch, "_fused_adamw_")
    assert not is_fused(described(keras.optimizers.Adam()))


def outputs_of(make, by_torch):
    """Outputs, states, and gradients of their sum."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, make()(inputs))
    if by_torch:
        recurrent.use_torch_recurrence(model)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 5, 3)).astype("float32"))
    torch.manual_seed(0)
    found = keras.tree.flatten(model(x, training=True))
    params = [variable._value for variable in model.trainable_variables]
    grads = torch.autograd.grad(sum(part.square().sum() for part in found), params)
    return [part.detach() for part in [*found, *grads]]


RECURRENT = {
    "last output": {},
    "sequences": dict(return_sequences=True),
    "states": dict(return_state=True, return_sequences=True),
    "backwards": dict(go_backwards=True, return_sequences=True),
    "dropout": dict(dropout=0.5, seed=1),
}
LSTM = keras.layers.LSTM
KINDS = [LSTM, keras.layers.GRU, keras.layers.SimpleRNN]


def assert_same_by_torch(make):
    by_keras, by_torch = (outputs_of(make, way) for way in (False, True))
    assert any(not torch.equal(*pair) for pair in zip(by_keras, by_torch, strict=True))
    for pair in zip(by_keras, by_torch, strict=True):
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_by_torch_is_keras_own_to_rounding(kind, name):
    assert_same_by_torch(lambda: kind(4, **RECURRENT[name]))


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways(kind):
    assert_same_by_torch(lambda: keras.layers.Bidirectional(kind(4, return_sequences=True)))


def test_an_activation_of_ones_own_may_be_unhashable():
    class Activation:
        __hash__ = None

        def __call__(self, x):
            return torch.tanh(x)

    layer = keras.layers.SimpleRNN(4, activation=Activation())
    recurrent.use_torch_recurrence(keras.Sequential([keras.Input((5, 3)), layer]))
    assert "inner_loop" not in vars(layer)


def test_a_simple_layer_may_have_relu():
    assert_same_by_torch(lambda: keras.layers.SimpleRNN(4, activation="relu"))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *(
            (kind, settings)
            for kind in KINDS
            for settings in (
                dict(activation="elu"),
                dict(use_bias=False),
                dict(unroll=True),
                dict(recurrent_dropout=0.1),
                dict(dtype="float64"),
            )
        ),
        (keras.layers.LSTM, dict(recurrent_activation="hard_sigmoid")),
        (keras.layers.LSTM, dict(use_cudnn=False)),
        (keras.layers.GRU, dict(use_cudnn=False)),
        (keras.layers.GRU, dict(reset_after=False)),
        (keras.layers.GRU, dict(dropout=0.1, implementation=1)),
    ],
    ids=str,
)
def test_others_are_left_to_keras(kind, settings):
    layer = kind(4, **settings)
    by_keras = layer.inner_loop
    model = keras.Sequential([keras.Input((5, 3)), layer])
    recurrent.use_torch_recurrence(model)
    assert layer.inner_loop == by_keras


def test_who_says_no_to_cudnn_says_no_in_the_workers_too():
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, use_cudnn=False)])
    model.compile("adam", "mse")
    spec = DescribedModel(
        model, KerasData.of(np.zeros((4, 5, 3)), np.zeros((4, 4)), None).samples(), False
    ).spec
    built = spec.build(np.zeros(spec.size, spec.dtype)).model
    assert built.layers[0].use_cudnn is False
    assert "inner_loop" not in vars(built.layers[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_torch", [False, True])
def test_one_state_for_all_sequences(by_torch, kind):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 3)), kind(4)])
    if by_torch:
        recurrent.use_torch_recurrence(model)
    layer, x = model.layers[0], torch.ones(8, 5, 3)
    one = [torch.full((1, 4), 0.5), torch.full((1, 4), -0.5)][: 1 + (kind is keras.layers.LSTM)]
    all_alike = [state.repeat(8, 1) for state in one]
    torch.testing.assert_close(layer(x, initial_state=one), layer(x, initial_state=all_alike))
    if by_torch:
        with pytest.raises(RuntimeError, match="expand"):
            layer.inner_loop(x, [torch.zeros(3, 4) for _ in one], None)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_of_integers(kind):
    found = []
    for by_torch in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((5, 3)), kind(4)])
        if by_torch:
            recurrent.use_torch_recurrence(model)
        found.append(model.layers[0](torch.arange(30).reshape(2, 5, 3)))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


MASK = torch.tensor(
    [
        [True, True, True, True, True],
        [True, True, False, False, False],
        [False, False, False, True, True],
        [True, False, True, False, True],
        [False, False, False, False, False],
    ]
)


def made(kind, settings, by_torch):
    """A layer for series of five steps, by torch or as Keras has it."""
    keras.utils.set_random_seed(0)
    layer = kind(4, **settings)
    model = keras.Sequential([keras.Input((5, 3)), layer])
    if by_torch:
        recurrent.use_torch_recurrence(model)
    return layer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_begun", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(return_sequences=True),
        dict(return_sequences=True, go_backwards=True),
        dict(return_sequences=True, zero_output_for_mask=True),
        dict(zero_output_for_mask=True),
    ],
    ids=str,
)
def test_masked_steps(kind, is_begun, settings):
    """Padding on either side, holes, and sequences of which nothing counts."""
    states = [torch.full((5, 4), 0.5), torch.full((5, 4), -0.5)][: 1 + (kind is LSTM)]

    def found(by_torch):
        layer = made(kind, settings, by_torch)
        x = torch.arange(75.0).reshape(5, 5, 3).sin().requires_grad_()
        outputs = layer(x, mask=MASK, initial_state=states if is_begun else None)
        variables = [variable._value for variable in layer.trainable_variables]
        weights = torch.arange(outputs.numel()).reshape(outputs.shape)
        return [outputs, *torch.autograd.grad((outputs * weights).sum(), [x, *variables])]

    torch.testing.assert_close(found(True), found(False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "mask"),
    [
        (dict(return_state=True), MASK),
        (dict(return_sequences=True, return_state=True), MASK),
        ({}, MASK.unsqueeze(-1)),
    ],
    ids=["state", "sequences", "column"],
)
def test_masks_that_are_left_to_keras(kind, settings, mask):
    def found(by_torch):
        layer = made(kind, settings, by_torch)
        return layer(torch.ones(5, 5, 3), mask=mask)

    torch.testing.assert_close(found(True), found(False), rtol=0, atol=0)


def test_a_masked_layer_is_recorded():
    """So that its steps are played: Keras' own loop looks at numbers, which no tape can."""
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Embedding(3, 2, mask_zero=True), keras.layers.LSTM(4)]
    )
    recurrent.use_torch_recurrence(model)
    tokens = torch.tensor([[1, 2, 1, 0, 0], [2, 0, 0, 0, 0]])
    assert Tape(lambda x: [model(x)], [tokens]).calls

"""Images are not copied between Keras' layers: the same figures, to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import keras_models as km  # which chooses Keras' backend
import phalanx
from keras_models import keras, layers
from phalanx.models.keras3 import images

pytestmark = km.marks
nn = images._backend()
RNG = np.random.default_rng(3)
SERIES, IMAGES, VOLUMES = (
    RNG.normal(size=(5, *sizes, 4)).astype(np.float32) for sizes in ((9,), (9, 8), (6, 7, 5))
)
LAYERS = {
    "Conv1D": (lambda: layers.Conv1D(3, 2, padding="same"), SERIES),
    "MaxPooling1D": (lambda: layers.MaxPooling1D(3, 1), SERIES),
    "Conv2D": (lambda: layers.Conv2D(3, 3), IMAGES),
    "Conv2D same": (lambda: layers.Conv2D(3, 2, padding="same", strides=2), IMAGES),
    "Conv2D dilated": (lambda: layers.Conv2D(3, 3, dilation_rate=2), IMAGES),
    "Conv2D groups": (lambda: layers.Conv2D(6, 3, groups=2), IMAGES),
    "Conv2D 1x1": (lambda: layers.Conv2D(1, 1), IMAGES),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), IMAGES),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(5, 3, padding="same"), IMAGES),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"), IMAGES),
    "MaxPooling2D": (lambda: layers.MaxPooling2D(2), IMAGES),
    "MaxPooling2D overlapping": (lambda: layers.MaxPooling2D(3, 1, padding="same"), IMAGES),
    "AveragePooling2D": (lambda: layers.AveragePooling2D(3, 2, padding="same"), IMAGES),
    "Conv3D": (lambda: layers.Conv3D(3, 2), VOLUMES),
    "MaxPooling3D": (lambda: layers.MaxPooling3D(2), VOLUMES),
    "AveragePooling3D": (lambda: layers.AveragePooling3D(2), VOLUMES),
}


@pytest.fixture(autouse=True)
def keras_own(monkeypatch):
    """What other tests build in this process keeps images as they lie from then on."""
    found = nn._transpose_spatial_inputs
    monkeypatch.setattr(nn, images.TRANSPOSE, getattr(found, "_by_keras", found))


def outputs_and_gradients(layer, x):
    x = torch.tensor(x, requires_grad=True)
    outputs = layer(x)
    weights = [variable.value for variable in layer.trainable_variables]
    torch.manual_seed(0)
    slopes = torch.randn(outputs.shape)
    gradients = torch.autograd.grad((outputs * slopes).sum(), [x, *weights])
    return [part.detach().numpy() for part in (outputs, *gradients)]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_what_it_gave(name):
    make, x = LAYERS[name]
    layer = make()
    layer.build(x.shape)
    expected = outputs_and_gradients(layer, x)
    with images.kept_as_they_lie():
        found = outputs_and_gradients(layer, x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("x", "is_copied"), [(SERIES, True), (IMAGES, False), (VOLUMES, False)])
def test_nothing_is_copied(x, is_copied):
    """Series are: torch has no layout for them that has channels last."""
    given = torch.tensor(x)
    with images.kept_as_they_lie():
        images.keep_as_they_lie()  # a model that is built meanwhile
        transposed = nn._transpose_spatial_inputs(given)
    assert transposed.shape == (x.shape[0], x.shape[-1], *x.shape[1:-1])
    assert (transposed.data_ptr() != given.data_ptr()) == is_copied
    assert nn._transpose_spatial_inputs(given).data_ptr() != given.data_ptr()


def test_a_keras_that_does_otherwise_is_left_alone(monkeypatch):
    monkeypatch.delattr(nn, images.TRANSPOSE)
    with images.kept_as_they_lie():
        assert not hasattr(nn, images.TRANSPOSE)


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_keras_is_as_before(fails):
    before, seen = nn._transpose_spatial_inputs, []

    def look(epoch, logs):
        seen.append(nn._transpose_spatial_inputs)
        if fails:
            raise ArithmeticError

    callback = keras.callbacks.LambdaCallback(on_epoch_end=look)
    try:
        phalanx.fit(
            km.images(), km.IMAGES, km.LABELS, callbacks=[callback], **km.SETTINGS, workers=1
        )
    except ArithmeticError:
        assert fails
    assert seen == [before] * (1 if fails else 2), "callbacks have Keras' own"
    assert nn._transpose_spatial_inputs is before


@pytest.mark.parametrize("workers", [1, 2])
def test_evaluate_and_predict(workers):
    model = km.images()
    expected = model.predict(km.IMAGES, verbose=0)
    found = phalanx.predict(model, km.IMAGES, workers=workers)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    loss = phalanx.evaluate(model, km.IMAGES, km.LABELS, workers=workers)
    assert loss == pytest.approx(model.evaluate(km.IMAGES, km.LABELS, verbose=0), rel=1e-5)


class Flat(layers.Layer):
    """By a view of its own, of images as they lie: channels last in the workers, first in Keras."""

    def __init__(self, order, **more):
        super().__init__(**more)
        self.order = order

    def compute_output_shape(self, shape):
        return shape[0], int(np.prod(shape[1:]))

    def call(self, x):
        return x.permute(self.order).view(len(x), -1)

    def get_config(self):
        return {**super().get_config(), "order": self.order}


def flattened(order):
    parts = layers.MaxPooling2D(2), Flat(order), layers.Dense(3, "softmax")
    return km.compiled(keras.Sequential([keras.Input((6, 6, 2)), *parts]))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_view_of_images_as_they_lie(workers):
    model = flattened((0, 1, 2, 3))
    phalanx.fit(model, km.IMAGES, km.LABELS, workers=workers, **km.SETTINGS)
    assert phalanx.predict(model, km.IMAGES, workers=workers).shape == (km.N, 3)


@pytest.mark.parametrize("door", [phalanx.fit, phalanx.predict])
def test_a_view_of_images_as_they_would_lie_in_keras_is_refused(door):
    data = (km.IMAGES,) if door is phalanx.predict else (km.IMAGES, km.LABELS)
    with pytest.raises(phalanx.InvalidInput, match=r"(?s)view size is not compatible.*reshape"):
        door(flattened((0, 3, 1, 2)), *data, workers=1, verbose=0)

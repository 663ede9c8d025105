"""Models of every kind and of every layer that people use, with parts of their own, are trained."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import keras_models as km
import phalanx
from keras_models import keras

pytestmark = km.marks
Model, Sequential, layers, ops = keras.Model, keras.Sequential, keras.layers, keras.ops
SETTINGS = {**km.SETTINGS, "shards": 2}
IMAGES = np.random.default_rng(2).normal(size=(km.N, 8, 8, 1)).astype(np.float32)
COUNTS = np.random.default_rng(3).normal(size=(km.N, 4)).astype(np.float32)


def trained(model, x, y=km.LABELS, workers=2, **more):
    return phalanx.fit(model, x, y, workers=workers, **{**SETTINGS, **more})


def assert_learns(make, x, y=km.LABELS, epochs=6, **more):
    """Its loss falls, and two workers agree with one."""
    model = make()
    before = km.weights_of(model) if model.built else None
    history = trained(model, x, y, epochs=epochs, **more)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]
    assert before is None or any(
        not np.array_equal(a, b) for a, b in zip(before, km.weights_of(model), strict=True)
    )
    assert trained(make(), x, y, workers=1, epochs=epochs, **more).run.digest == history.run.digest
    return model, history


def every_layer():
    """Images, tokens and numbers, each in a branch of its own."""
    keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1), name="image")
    a = layers.ZeroPadding2D(1)(image)
    a = layers.Conv2D(3, 3)(a)
    a = layers.BatchNormalization()(a)
    a = layers.Activation("relu")(a)
    a = layers.MaxPooling2D(2)(a)
    mean, top = layers.GlobalAveragePooling2D()(a), layers.GlobalMaxPooling2D()(a)
    rows = layers.TimeDistributed(layers.Flatten())(a)
    rows = layers.SimpleRNN(3)(rows)

    tokens = layers.Input((5,), name="tokens", dtype="int32")
    b = layers.Embedding(12, 4)(tokens)
    b = layers.SpatialDropout1D(0.1)(b)
    b = layers.Conv1D(4, 2, padding="same")(b)
    b = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(b)
    b = layers.Permute((2, 1))(b)
    b = layers.GRU(3)(b)

    numbers = layers.Input((4,), name="numbers")
    c = layers.Lambda(lambda x: x * 2.0)(numbers)
    c = layers.RepeatVector(2)(c)
    c = layers.Reshape((8,))(c)
    c = layers.Dropout(0.1)(c)

    joined = layers.Concatenate()([mean, top, rows, b, c])
    joined = Sequential([layers.InputLayer(shape=(joined.shape[1],)), layers.Dense(8)])(joined)
    label = layers.Dense(3, "softmax", name="label")(joined)
    value = layers.Dense(2, name="value")(joined)
    model = Model([image, tokens, numbers], [label, value])
    model.compile("adam", ["sparse_categorical_crossentropy", "mse"], loss_weights=[1.0, 0.5])
    return model


def test_every_layer_in_several_inputs_and_outputs():
    x, y = [IMAGES, km.TOKENS, COUNTS], [km.LABELS, km.VALUES]
    model, history = assert_learns(every_layer, x, y, validation_split=0.2)
    assert set(history.history) == {
        *("loss", "label_loss", "value_loss"),
        *("val_loss", "val_label_loss", "val_value_loss"),
    }
    label, value = phalanx.predict(model, x)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(label, expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value, expected[1], rtol=1e-4, atol=1e-6)


def test_inputs_in_a_dict():
    def make():
        keras.utils.set_random_seed(0)
        inputs = {"x": layers.Input((6,), name="x"), "t": layers.Input((5,), name="t")}
        joined = layers.Concatenate()([layers.Dense(4, "relu")(part) for part in inputs.values()])
        return km.compiled(Model(inputs, layers.Dense(3, "softmax")(joined)))

    x = {"t": km.TOKENS.astype(np.float32), "x": km.X}
    model, _ = assert_learns(make, x)
    found = phalanx.predict(model, x)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-4, atol=1e-6)


def test_a_sequential_model_that_is_built_by_the_data():
    def make():
        keras.utils.set_random_seed(0)
        return km.compiled(Sequential([layers.Dense(8, "relu"), layers.Dense(3, "softmax")]))

    model, _ = assert_learns(make, km.X)
    assert model.built


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """A layer with a weight and an argument."""

    def __init__(self, units, start=1.0, **more):
        super().__init__(**more)
        self.units, self.start = units, start
        self.inner = layers.Dense(units)

    def build(self, shape):
        self.inner.build(shape)
        self.scale = self.add_weight(
            shape=(self.units,), initializer=keras.initializers.Constant(self.start)
        )

    def call(self, x):
        return self.inner(x) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units, "start": self.start}


class Shifted(layers.Layer):
    """A layer that nobody registered."""

    def build(self, shape):
        self.shift = self.add_weight(shape=shape[1:], initializer="zeros")

    def call(self, x):
        return x + self.shift


class Described(Model):
    """With a get_config."""

    def __init__(self, units, **more):
        super().__init__(**more)
        self.units = units
        self.first, self.last = Scaled(units, 0.5), layers.Dense(3, "softmax")

    def call(self, x, training=False):
        return self.last(ops.tanh(self.first(x)))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Undescribed(Model):
    """Without one, and with a branch in `call`."""

    def __init__(self, units=5):
        super().__init__()
        self.blocks = [layers.Dense(units, "relu") for _ in range(2)]
        self.dropout = layers.Dropout(0.2)
        self.last = layers.Dense(3, "softmax")

    def call(self, x, training=False):
        for block in self.blocks:
            x = block(x)
        if training:
            x = self.dropout(x, training=training)
        return self.last(x)


class Kept(Undescribed):
    """Which can be created anew, since it remembers its arguments."""

    def __init__(self, units=5, rate=0.2):
        super().__init__(units)
        self.units, self.dropout.rate = units, rate


class WithOwnLoss(Undescribed):
    """Which computes its loss itself."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))


@pytest.mark.parametrize(
    "kind", [lambda: Described(6), Undescribed, lambda: Kept(units=7), WithOwnLoss]
)
def test_subclassed_models(kind):
    def make():
        keras.utils.set_random_seed(0)
        model = km.compiled(kind(), metrics=["accuracy"])
        model(km.X[:2])
        return model

    model, history = assert_learns(make, km.X, validation_data=(km.X[:10], km.LABELS[:10]))
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    found = phalanx.predict(model, km.X)
    np.testing.assert_allclose(found, model.predict(km.X, verbose=0), rtol=1e-4, atol=1e-6)


def test_a_subclassed_model_that_was_never_called():
    model = km.compiled(Undescribed())
    losses = trained(model, km.X, epochs=6).history["loss"]
    assert losses[-1] < losses[0]
    assert model.built


@pytest.mark.parametrize(
    "kind", [lambda: Undescribed(units=7), lambda: Kept(rate=0.5)], ids=["shapes", "rate"]
)
def test_a_model_that_would_be_created_otherwise_is_not_trained(kind):
    with pytest.raises(phalanx.InvalidInput, match=r"created anew.*Implement get_config"):
        trained(km.compiled(kind()), km.X)


def test_frozen_layers_of_a_subclassed_model_stay_as_they_are():
    model = Undescribed()
    model.blocks[0].trainable = False
    model(km.X[:2])
    before = km.weights_of(model.blocks[0])
    trained(km.compiled(model), km.X)
    for a, b in zip(before, km.weights_of(model.blocks[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(model.trainable_variables) == 4


def swish_like(x):
    return x * ops.sigmoid(1.5 * x)


def test_custom_layers_and_activations():
    def make():
        keras.utils.set_random_seed(0)
        parts = [
            keras.Input((6,)), Scaled(8, 2.0), layers.Activation(swish_like), Shifted(),
            layers.Dense(5, activation=swish_like), layers.Dense(3, "softmax"),
        ]  # fmt: skip
        return km.compiled(Sequential(parts))

    assert_learns(make, km.X)


def test_registered_things_need_not_be_registered_in_the_workers():
    register = keras.saving.register_keras_serializable("script")

    @register
    class Doubled(layers.Layer):  # local, hence by value, as what a script or a notebook defines
        def call(self, x):
            return x * 2

    @register
    class Error(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    @register
    def halved(x):
        return x * 0.5

    def make():
        keras.utils.set_random_seed(0)
        return km.compiled(
            Sequential([keras.Input((6,)), Doubled(), layers.Dense(2, halved)]), Error()
        )

    digests = {trained(make(), km.X, km.VALUES, workers=n).run.digest for n in (1, 2)}
    assert len(digests) == 1


def test_lambdas_and_closures_in_layers_know_what_they_refer_to():
    def scaled(factor):
        def scale(x):
            return ops.multiply(x, factor)

        return scale

    def make():
        keras.utils.set_random_seed(0)
        parts = [
            keras.Input((6,)), layers.Lambda(lambda x: ops.multiply(x, 2.0)),
            layers.Activation(scaled(3.0)), layers.Dense(5, activation=scaled(0.5)),
            layers.Dense(3, activation=lambda x: ops.softmax(x * 0.5)),
        ]  # fmt: skip
        return km.compiled(Sequential(parts))

    model, _ = assert_learns(make, km.X)
    found = phalanx.predict(model, km.X, workers=1)
    np.testing.assert_allclose(found, model.predict(km.X, verbose=0), rtol=1e-4, atol=1e-6)


def own_loss(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred) ** 1.5, axis=-1)


class OwnLoss(keras.losses.Loss):
    """A loss class with an argument."""

    def __init__(self, power=1.5, name="own", reduction="sum_over_batch_size"):
        super().__init__(name=name, reduction=reduction)
        self.power = power

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** self.power, axis=-1)

    def get_config(self):
        return {**super().get_config(), "power": self.power}


def closed_over(power):
    def loss(y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** power, axis=-1)

    return loss


@pytest.mark.parametrize(
    "loss", [own_loss, OwnLoss(), closed_over(1.5), lambda a, b: ops.mean(ops.abs(a - b) ** 1.5)]
)
def test_custom_losses(loss):
    _, history = assert_learns(lambda: km.plain("adam", loss), km.X, km.VALUES)
    reference = trained(km.plain("adam", own_loss), km.X, km.VALUES, epochs=6)
    np.testing.assert_allclose(history.history["loss"], reference.history["loss"], rtol=1e-5)


class Above(keras.metrics.Metric):
    """How many outputs exceed a threshold."""

    def __init__(self, threshold=0.0, name="above", **more):
        super().__init__(name=name, **more)
        self.threshold = threshold
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign_add(ops.sum(ops.cast(y_pred > self.threshold, "float32")))

    def result(self):
        return self.count

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


def largest_error(y_true, y_pred):
    return ops.max(ops.abs(y_true - y_pred), axis=-1)


def test_custom_metrics():
    _, history = assert_learns(
        lambda: km.plain("adam", metrics=[Above(0.1), largest_error]), km.X, km.VALUES
    )
    assert set(history.history) == {"loss", "above", "largest_error"}
    assert all(0 < count <= 2 * km.N for count in history.history["above"])
    assert any(a != b for a, b in pairwise(history.history["largest_error"]))


class OwnOptimizer(keras.optimizers.SGD):
    """A user's own."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(ops.sign(gradient), variable, learning_rate)


def test_a_custom_optimizer():
    _, signed = assert_learns(lambda: km.plain(OwnOptimizer(0.01)), km.X, km.VALUES)
    plain = trained(km.plain(keras.optimizers.SGD(0.01)), km.X, km.VALUES, epochs=6)
    assert signed.run.digest != plain.run.digest


def test_frozen_layers_stay_as_they_are():
    model = km.mlp()
    model.layers[0].trainable = False
    km.compiled(model)
    before = km.weights_of(model)
    trained(model, km.X)
    after = km.weights_of(model)
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])


def test_a_model_within_a_model():
    def make():
        keras.utils.set_random_seed(0)
        inner = Sequential([keras.Input((6,)), layers.Dense(5, "relu"), layers.Dropout(0.1)])
        inputs = keras.Input((6,))
        return km.compiled(Model(inputs, layers.Dense(3, "softmax")(inner(inputs))))

    assert_learns(make, km.X)


def test_a_saved_model_goes_on_like_the_one_that_was_saved(tmp_path):
    y = keras.utils.to_categorical(km.LABELS)
    model = km.compiled(km.mlp(), "categorical_crossentropy", metrics=["accuracy"])
    trained(model, km.X, y)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(phalanx.predict(again, km.X), phalanx.predict(model, km.X))
    assert again.evaluate(km.X, y, verbose=0) == model.evaluate(km.X, y, verbose=0)
    assert trained(again, km.X, y).run.digest == trained(model, km.X, y).run.digest
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 12
    classes = phalanx.predict(again, km.X).argmax(axis=1)
    assert keras.utils.to_categorical(classes, 3).shape == y.shape


def test_all_kinds_of_arrays_are_data():
    import torch

    digests = {
        trained(km.mlp(), x, y).run.digest
        for x, y in [
            (km.X, km.LABELS),
            (km.X.astype(np.float64), km.LABELS.tolist()),
            (torch.from_numpy(km.X), torch.from_numpy(km.LABELS)),
            (np.asfortranarray(km.X), km.LABELS[:, None]),
        ]
    }
    assert len(digests) == 1


def test_lists_are_split_like_arrays():
    runs = [
        trained(km.mlp(), x, y, validation_split=0.2, class_weight={0: 2.0}).run
        for x, y in [(km.X, km.LABELS), (km.X.tolist(), km.LABELS.tolist())]
    ]
    assert runs[0].digest == runs[1].digest
    assert runs[0].scores == runs[1].scores


def test_a_torch_dataset_and_a_loader_are_data():
    import torch

    data = torch.utils.data.TensorDataset(torch.from_numpy(km.X), torch.from_numpy(km.LABELS))
    loader = torch.utils.data.DataLoader(data, batch_size=7, shuffle=True)
    digests = {
        phalanx.fit(km.tied(), given, workers=2, **SETTINGS).run.digest for given in (data, loader)
    }
    assert digests == {trained(km.tied(), km.X).run.digest}
    settings = {name: value for name, value in SETTINGS.items() if name != "batch_size"}
    run = phalanx.fit(km.tied(), loader, workers=1, **{**settings, "epochs": 1}).run
    assert run.steps == -(-len(data) // 7)


@pytest.fixture
def global_bfloat16():
    """The policy of all layers that name none."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("global_bfloat16")
def test_layers_created_anew_in_a_worker_have_the_policy_of_the_caller():
    def make():
        keras.utils.set_random_seed(0)
        model = Undescribed()
        model(km.X[:2])
        return km.compiled(model)

    assert make().blocks[0].compute_dtype == "bfloat16"
    assert_learns(make, km.X)


def test_policies_do_not_outlive_a_training():
    assert keras.config.dtype_policy().name == "float32"
    one, two = (trained(km.compiled(km.mlp()), km.X, workers=n).run.digest for n in (1, 2))
    assert one == two


def test_masked_sequences():
    def make(shards=None):
        keras.utils.set_random_seed(0)
        parts = [
            keras.Input((5,)), layers.Embedding(12, 4, mask_zero=True),
            layers.LSTM(3, return_sequences=True), layers.Dense(2),
        ]  # fmt: skip
        return km.compiled(Sequential(parts), "mse")

    y = np.stack([km.TOKENS, km.TOKENS % 3], axis=-1).astype(np.float32) / 12
    assert (km.TOKENS == 0).any()
    assert_learns(make, km.TOKENS, y)
    theirs, ours = make(), make()
    settings = dict(batch_size=16, epochs=3, shuffle=False, verbose=0)
    expected = theirs.fit(km.TOKENS, y, **settings)
    found = phalanx.fit(ours, km.TOKENS, y, shards=1, workers=1, **settings)
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=1e-6)


class Penalised(Model):
    """Whose only loss is one that it adds in `call`."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = layers.Dense(3), layers.Dense(6)

    def call(self, x):
        decoded = self.decoder(self.encoder(x))
        self.add_loss(ops.mean((decoded - x) ** 2))
        return decoded


def test_a_model_whose_loss_is_added_in_its_call():
    def make():
        keras.utils.set_random_seed(0)
        model = Penalised()
        model.compile("adam")
        model(km.X[:2])
        return model

    assert_learns(make, km.X, None)


def test_normalised_and_augmented_images():
    def make():
        keras.utils.set_random_seed(0)
        normalisation = layers.Normalization()
        normalisation.adapt(IMAGES + 3)
        parts = [
            keras.Input((8, 8, 1)), normalisation, layers.RandomFlip(), layers.RandomTranslation(
                0.1, 0.1), layers.Conv2D(3, 3), layers.GlobalMaxPooling2D(),
            layers.Dense(3, "softmax"),
        ]  # fmt: skip
        return km.compiled(Sequential(parts))

    assert_learns(make, IMAGES + 3)


def test_a_training_leaves_the_callers_generators_alone():
    import torch

    drawn = []
    for workers in (1, 2):
        torch.manual_seed(5)
        np.random.seed(5)
        trained(km.mlp(), km.X, workers=workers)
        drawn.append((float(torch.rand(())), float(np.random.rand())))
    assert drawn[0] == drawn[1]


def test_more_predictions_than_one_chunk_has():
    model = km.mlp()
    x = np.tile(km.X, (60, 1))
    found = phalanx.predict(model, x, workers=2)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-4, atol=1e-6)

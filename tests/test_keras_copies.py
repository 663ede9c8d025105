"""What workers create anew is what the user has, or is refused: layers, losses, metrics, optimisers
and models of the user's own classes, as Keras' guides and examples write them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from torch.nn.functional import pairwise_distance

import keras_models as km
import phalanx
from keras_models import keras
from phalanx.models.keras3.blueprint import config_of
from phalanx.models.keras3.configs import DRAWN, created

pytestmark = km.marks
layers, ops = keras.layers, keras.ops
ByFunction = keras.losses.MeanSquaredError.__base__  # which Keras has no public name for
SETTINGS = dict(batch_size=16, epochs=2, shuffle=False, verbose=0)


def built(*parts, loss="mse", optimizer="sgd", **more):
    model = keras.Sequential([keras.Input((6,)), *parts, layers.Dense(2)])
    return km.compiled(model, loss, optimizer, **more)


def fitted(model, workers=1, **more):
    return phalanx.fit(model, km.X, km.VALUES, workers=workers, **{**SETTINGS, **more})


def assert_as_in_keras(make):
    """The figures are those of `model.fit`, and two workers agree with one."""

    def new():
        keras.utils.set_random_seed(5)
        model = make()
        keras.utils.set_random_seed(5)  # a copy draws the same numbers, if it draws from this
        return model

    expected = new().fit(km.X, km.VALUES, **SETTINGS)
    history = fitted(new(), shards=1)
    assert set(history.history) == set(expected.history)
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, 1e-5, err_msg=name)
    assert fitted(new(), workers=2, shards=2).run.digest == fitted(new(), shards=2).run.digest


class Projection(layers.Layer):
    """An array that nobody can draw again, and one under a private name."""

    def __init__(self, units, **more):
        super().__init__(**more)
        self.units = units
        self.matrix = np.random.normal(size=(6, units)).astype("float32")
        self._scale = ops.convert_to_tensor(np.random.uniform(1, 2, units).astype("float32"))

    def call(self, x):
        return ops.matmul(x, self.matrix) * self._scale


class Scale(layers.Layer):
    """With all kinds of attributes, and none of them an argument."""

    factor = 1.0

    def __init__(self, **more):
        super().__init__(**more)
        self.row, self.config, self.function = np.ones(6, "float32"), {"of": 1.0}, ops.tanh
        self.texts, self._factor = [], 1.0

    def call(self, x):
        shift = ops.convert_to_tensor(getattr(self, "shift", 0.0), "float32")
        factors = ops.convert_to_tensor(self.row) * self.config["of"] * self.factor * self._factor
        return self.function(x * factors) + shift


def changed(name, value):
    layer = Scale()
    setattr(layer, name, value)
    return built(layer)


def drawing():
    rows = np.random.normal(size=6)
    return changed("function", lambda x: x * ops.convert_to_tensor(rows))


def test_arrays_that_a_layer_has_drawn():
    assert_as_in_keras(lambda: built(Projection(5)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("row", np.full(6, 5, "float32")), ("shift", 2.0), ("shift", np.arange(6.0))],
)
def test_what_a_layer_was_given_after_it_was_made(name, value):
    assert_as_in_keras(lambda: changed(name, value))


class Doubled(keras.regularizers.L2):
    def __init__(self, l2=0.01, boost=1.0):
        super().__init__(l2)
        self.boost = boost

    def __call__(self, x):
        return self.boost * super().__call__(x)


class Hidden(keras.losses.Loss):
    def __init__(self, power=2.0, **more):
        super().__init__(**more)
        self._exponent = power

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred) ** self._exponent, axis=-1)


class HiddenCount(keras.metrics.Mean):
    def __init__(self, limit=0.5, name="count", **more):
        super().__init__(name=name, **more)
        self._limit = [limit]

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(ops.cast(ops.abs(y_true - y_pred) < self._limit[0], "float32"))


class HiddenRate(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.01, boost=1.0, **more):
        super().__init__(learning_rate, **more)
        self.factors = [boost]

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient * self.factors[0], variable, learning_rate)


OTHERS = [
    (lambda: changed("config", {"of": 5.0}), r"config of Scale then is {'of': 1.0} instead"),
    (lambda: changed("factor", 5.0), r"factor of Scale then is 1.0 instead of 5.0"),
    (lambda: changed("_factor", 5.0), r"_factor of Scale then is 1.0 instead of 5.0"),
    (lambda: changed("texts", ["a"]), r"texts of Scale then is \[\] instead of \['a'\]"),
    (lambda: changed("function", ops.square), "function of Scale then is tanh instead of square"),
    (drawing, "function of Scale then is tanh instead of drawing"),
    (lambda: changed("call", lambda x: x), "call of Scale then is .* instead of"),
    (lambda: built(layers.Dense(3, kernel_regularizer=Doubled(0.1, 5.0))), "boost of Doubled then"),
    (lambda: built(loss=Hidden(1.0)), "_exponent of Hidden then is 2.0 instead of 1.0"),
    (lambda: built(metrics=[HiddenCount(3.0)]), r"_limit of HiddenCount then is \[0.5\] instead"),
    (lambda: built(optimizer=HiddenRate(0.01, 3.0)), r"factors of HiddenRate then is \[1.0\]"),
]


@pytest.mark.parametrize(("make", "message"), OTHERS)
def test_what_would_be_another_in_the_workers_is_refused(make, message):
    with pytest.raises(phalanx.InvalidInput, match=f"created anew .*{message}.*get_config"):
        fitted(make())


class Regularised(keras.losses.Loss):
    """Word for word as in Keras' guide, but for the name."""

    def __init__(self, regularization_factor=0.1, name="custom_mse"):
        super().__init__(name=name)
        self.regularization_factor = regularization_factor

    def call(self, y_true, y_pred):
        mse = ops.mean(ops.square(y_true - y_pred))
        reg = ops.mean(ops.square(0.5 - y_pred))
        return mse + reg * self.regularization_factor


class Within(keras.metrics.Metric):
    """Without **kwargs, and without a get_config."""

    def __init__(self, limit=0.5, name="within"):
        super().__init__(name=name)
        self.limit = limit
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign_add(ops.sum(ops.cast(ops.abs(y_true - y_pred) < self.limit, "float32")))

    def result(self):
        return self.count + 0


class Boosted(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.01, boost=1.0, **more):
        super().__init__(learning_rate, **more)
        self.boost = boost

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient * self.boost, variable, learning_rate)


class NonNegative(keras.constraints.Constraint):
    """The example of Keras' documentation."""

    def __call__(self, w):
        return w * ops.cast(ops.greater_equal(w, 0.0), w.dtype)


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Without a get_config."""

    def __init__(self, rate, steps):
        self.rate, self.steps = rate, steps

    def __call__(self, step):
        return self.rate * ops.minimum(1.0, (ops.cast(step, "float32") + 1) / self.steps)


class Block(layers.Layer):
    """As the transformer blocks of keras-io: arguments, sublayers, no **kwargs."""

    def __init__(self, units, rate=0.0):
        super().__init__()
        self.dense, self.dropout = layers.Dense(units), layers.Dropout(rate)

    def call(self, x):
        return self.dropout(self.dense(x))


class Configured(layers.Layer):
    """With a get_config that says more than __init__ takes."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Tree(keras.Model):
    """As in Keras' guide: its config has no name."""

    def __init__(self, depth):
        super().__init__()
        self.depth, self.dense = depth, layers.Dense(2)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"depth": self.depth}


class Recommender(keras.Model):
    """Keeps its arguments under their names, one of them a layer."""

    def __init__(self, units, last, **more):
        super().__init__(**more)
        self.units, self.last, self.first = units, last, layers.Dense(units)

    def call(self, x):
        return self.last(self.first(x))


class Sized(keras.Model):
    """Calls a layer by the name of an argument that it was made of."""

    def __init__(self, units=5):
        super().__init__()
        self.units, self.last = layers.Dense(units), layers.Dense(2)

    def call(self, x):
        return self.last(self.units(x))


class Distiller(keras.Model):
    """Keeps in `compile` what its loss needs."""

    def __init__(self):
        super().__init__()
        self.student = layers.Dense(2)

    def compile(self, optimizer, student_loss, alpha):
        super().compile(optimizer=optimizer)
        self.student_loss, self.alpha = student_loss, alpha
        self.tracker = keras.metrics.Mean(name="tracked")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.tracker.update_state(ops.mean(y_pred, axis=-1))
        return self.alpha * self.student_loss(y, y_pred)

    def call(self, x):
        return self.student(x)


class Objective:
    """Of no class of Keras."""

    def __call__(self, y_true, y_pred):
        return ops.mean((y_true - y_pred) ** 2)


def with_inner_model():
    inputs = keras.Input((6,))
    return km.compiled(keras.Model(inputs, Tree(3)(inputs)), "mse", "sgd")


def compiled_before():
    """A model for an encoder that has been trained by itself."""
    encoder = keras.Sequential([keras.Input((6,)), layers.Dense(2, "tanh")])
    return km.compiled(encoder, "mse", Boosted(0.01), metrics=[Within(3.0)])


def with_trained_encoder():
    inputs = keras.Input((6,))
    return km.compiled(keras.Model(inputs, layers.Dense(2)(compiled_before()(inputs))), "mse")


def distance(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def wrapped():
    """Functions of one name, and two that have none."""
    lambdas = [lambda a, b, by=by: distance(a, b) * by for by in (2.0, 3.0)]
    wrappers = [
        keras.metrics.MeanMetricWrapper(function, name=f"m{i}")
        for i, function in enumerate([distance, times(4.0), *lambdas])
    ]
    return built(layers.Dense(4, lambda x: x * 0.5), loss=ByFunction(times(2.0)), metrics=wrappers)


def times(factor):
    def distance(y_true, y_pred):
        return factor * ops.mean(ops.abs(y_true - y_pred), axis=-1)

    return distance


def distiller(student_loss):
    model = Distiller()
    model.compile("sgd", student_loss, alpha=0.5)
    return model


GUIDES = {
    "loss": lambda: built(loss=Regularised(5.0)),
    "metric": lambda: built(metrics=[Within(3.0)]),
    "optimizer": lambda: built(optimizer=Boosted(0.01, boost=3.0)),
    "constraint": lambda: built(layers.Dense(4, kernel_constraint=NonNegative())),
    "schedule": lambda: built(optimizer=keras.optimizers.Adam(WarmUp(0.01, 5))),
    "layer": lambda: built(Block(4)),
    "layer with a config": lambda: built(Configured(2.0)),
    "output names": with_inner_model,
    "model": lambda: km.compiled(Recommender(5, layers.Dense(2)), "mse", "sgd"),
    "layer called like its argument": lambda: km.compiled(Sized(), "mse", "sgd"),
    "compile": lambda: distiller(Regularised(2.0)),
    "model of a compiled one": with_trained_encoder,
    "model made with a compiled one": lambda: km.compiled(
        Recommender(6, compiled_before()), "mse", "sgd"
    ),
    "functions in wrappers": wrapped,
}


@pytest.mark.parametrize("name", GUIDES)
def test_classes_as_guides_write_them(name):
    assert_as_in_keras(GUIDES[name])


def test_a_model_within_one_is_left_compiled():
    model = with_trained_encoder()
    phalanx.predict(model, km.X, workers=1)
    assert model.layers[1].compiled


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (partial(distance), "must be serialisable.*functools.partial.*get_config"),
        (pairwise_distance, "a worker can create them anew.*MeanMetricWrapper"),
    ],
    ids=["partial", "of torch"],
)
def test_functions_that_keras_does_not_find_again(function, message):
    metric = keras.metrics.MeanMetricWrapper(function)
    with pytest.raises(phalanx.InvalidInput, match=f"(?s){message}"):
        fitted(built(metrics=[metric]))


def test_what_compile_keeps_and_cannot_be_sent():
    with pytest.raises(
        phalanx.InvalidInput,
        match=r"compile\(\) of Distiller keeps student_loss of class Objective.*__init__",
    ):
        fitted(distiller(Objective()))
    found = phalanx.predict(distiller(Objective()), km.X, workers=1)  # which needs no loss
    assert found.shape == km.VALUES.shape


def test_weights_that_are_to_be_replaced_are_not_drawn():
    parts = [
        layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed=3)),
        layers.Dense(4, kernel_initializer="ones", bias_initializer="random_normal"),
        layers.LayerNormalization(),
    ]
    model = keras.Sequential([keras.Input((6,)), *parts])
    copy = created(config_of(model), custom={})
    sums = [float(np.abs(ops.convert_to_numpy(weight)).sum()) for weight in copy.weights]
    assert sums == [0, 0, 16, 0, 4, 0]


def test_all_that_draws_is_known():
    kinds = [kind for kind in vars(keras.initializers).values() if isinstance(kind, type)]
    drawing = type(keras.initializers.HeNormal()).__mro__[2]  # which has no public name
    assert {kind.__name__ for kind in kinds if issubclass(kind, drawing)} == DRAWN

"""Bad input for Keras models: the rule, what was received, what to do; nothing was begun."""

from __future__ import annotations

import importlib.util
from functools import cache

import numpy as np
import pytest

import keras_models as km
import phalanx
from keras_models import keras
from phalanx import InvalidInput, UserFunctionError

torch = pytest.importorskip("torch")
pytestmark = km.marks
layers, ops, optimizers = keras.layers, keras.ops, keras.optimizers
NAN = float("nan")


def compiled(*parts, optimizer="adam", loss="mse", kind=keras.Sequential, **more):
    model = kind([keras.Input((6,)), *(parts or [layers.Dense(2)])])
    return km.compiled(model, loss, optimizer, **more)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return {}


class OwnTest(keras.Sequential):
    def test_step(self, data):
        return {}


class VectorLoss(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((y - y_pred) ** 2, axis=-1)


class NoLoss(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return None


class Tracking(keras.Sequential):
    """As autoencoders are wont to."""

    def __init__(self, parts):
        super().__init__(parts)
        self.tracker = keras.metrics.Mean(name="tracked")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean((y - y_pred) ** 2)
        self.tracker.update_state(loss)
        return loss


class Largest(keras.metrics.Metric):
    def __init__(self, name="largest", **more):
        super().__init__(name=name, **more)
        self.value = self.add_variable((), "zeros", name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(ops.maximum(self.value, ops.max(ops.abs(y_pred))))

    def result(self):
        return self.value


def mean_of_all(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred))


def failing(y_true, y_pred):
    raise RuntimeError("a fault of mine")


def frozen():
    model = compiled()
    model.trainable = False
    return model


def refrozen():
    """Compiled, and changed after a training."""
    model = compiled(layers.Dense(3), layers.Dense(2))
    model.layers[0].trainable = False
    model.optimizer.build(model.trainable_variables)
    model.layers[0].trainable = True
    return model


def stateful():
    inputs = keras.Input((5, 3), batch_size=2)
    return km.compiled(keras.Model(inputs, layers.LSTM(2, stateful=True)(inputs)), "mse")


def ema():
    return optimizers.Adam(use_ema=True)


def accumulating():
    return optimizers.Adam(gradient_accumulation_steps=2)


def with_own_step():
    model = compiled()
    model.train_step = lambda data: {}
    return model


def float16():
    return compiled(layers.Dense(2, dtype="mixed_float16"), optimizer=loss_scaled())


def loss_scaled():
    return optimizers.LossScaleOptimizer(optimizers.Adam())


MODELS = [
    (lambda: keras.Sequential([keras.Input((6,)), layers.Dense(2)]), "must be compiled.*compile"),
    (lambda: compiled(loss=None), "No loss to compute"),
    (frozen, "weights to train; all of this one's are frozen.*trainable"),
    (refrozen, "of the model's trainable weights; it has 2, the model 4.*Compile the model again"),
    (lambda: compiled(kind=OwnStep), "OwnStep overrides train_step.*compute_loss instead"),
    (lambda: compiled(kind=OwnTest), "OwnTest overrides test_step"),
    (with_own_step, "Sequential overrides train_step.*compute_loss instead"),
    (lambda: compiled(optimizer=ema()), "has use_ema=True.*Leave use_ema out; a callback may"),
    (lambda: compiled(optimizer=accumulating()), "gradient_accumulation_steps=2.*larger batch"),
    (lambda: compiled(optimizer=optimizers.Adam(loss_scale_factor=2.0)), "loss_scale_factor=2.0"),
    (float16, "got LossScaleOptimizer.*mixed_bfloat16"),
    (lambda: compiled(kind=VectorLoss), r"loss must be one number.*shape \(4,\).*ops.mean"),
    (lambda: compiled(kind=NoLoss), "loss must be one number.*got None.*ops.mean"),
    (
        lambda: compiled(loss=keras.losses.MeanSquaredError(reduction="sum")),
        "mean over the samples.*reduction='sum'.*sum_over_batch_size",
    ),
    (
        lambda: compiled(loss=keras.losses.MeanSquaredError(reduction="none")),
        "reduction='none'.*sum_over_batch_size|loss must be one number",
    ),
    (lambda: compiled(loss=failing), "RuntimeError: a fault of mine"),
    (lambda: compiled(metrics=[failing]), "RuntimeError: a fault of mine"),
    (lambda: compiled(metrics=["mae", Largest()]), "sums over samples.*'largest' is not"),
    (
        lambda: compiled(layers.SpectralNormalization(layers.Dense(3)), layers.Dense(2)),
        "leave the weights that are trained as they are.*it changed '.*kernel'",
    ),
    (lambda: compiled(kind=Tracking), "'tracked' is not.*updated with one value a sample"),
    (lambda: compiled(metrics=[mean_of_all]), "'mean_of_all' is not.*leave out the final mean"),
    (
        lambda: compiled(layers.Dense(3, dtype="float64"), layers.Dense(2)),
        "one dtype.*float32, float64.*policy",
    ),
    (lambda: compiled(layers.Dense(3)), "must take the data.*model.summary"),
    (lambda: "model.keras", "must be an object of torch.nn.Module or of keras.Model; got str"),
    (lambda: keras.Sequential, "got the class Sequential"),
    (lambda: None, "got NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), MODELS)
def test_models(make, message):
    model = make()
    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        phalanx.fit(model, km.X, km.VALUES, **{**km.SETTINGS, "workers": 2})


@pytest.mark.parametrize("door", [phalanx.fit, phalanx.evaluate, phalanx.predict])
def test_stateful_layers(door):
    data = km.SERIES, *([] if door is phalanx.predict else [km.VALUES])
    with pytest.raises(InvalidInput, match=r"recurrent layer .* stateful=True.*stateful=False"):
        door(stateful(), *data, verbose=0)


OPTIONS = [
    ({"workers": 0}, "workers must not be 0"),
    ({"workers": 1.5}, "workers must be an integer"),
    ({"workers": None}, "workers must be.*got None"),
    ({"epochs": 0}, "epochs must be an integer at least 1; got 0"),
    ({"epochs": "two"}, "epochs must be an integer.*got 'two'"),
    ({"epochs": 2, "initial_epoch": 3}, "initial_epoch must be.*below 2; got 3"),
    ({"epochs": 2, "initial_epoch": -1}, "initial_epoch must be.*at least 0.*got -1"),
    ({"batch_size": 0}, "batch_size must be an integer at least 1"),
    ({"batch_size": 2.5}, "batch_size must be an integer"),
    ({"steps_per_epoch": 0}, "steps_per_epoch must be an integer at least 1; got 0"),
    ({"steps_per_epoch": 1, "shuffle": False}, "would never be seen.*or shuffle"),
    ({"steps_per_epoch": 1, "data_distribution": "strided"}, "would never be seen.*or shuffle"),
    ({"validation_split": 0.5, "validation_steps": 0}, "validation_steps must be.*at least 1"),
    ({"validation_split": 1.5}, "validation_split must be a number.*below 1; got 1.5"),
    ({"validation_split": 0.99}, "must leave samples on both sides"),
    ({"validation_split": NAN}, "validation_split must be a number"),
    ({"validation_freq": 0}, "validation_freq must be an integer at least 1; got 0"),
    ({"validation_freq": [1, "2"]}, "epoch of validation_freq must be.*got '2'"),
    ({"verbose": 3}, "verbose must be 'auto', 0, 1 or 2; got 3"),
    ({"verbose": "loud"}, "verbose must be.*got 'loud'"),
    ({"shuffle": "batch"}, "shuffle must be True or False; got 'batch'"),
    ({"shards": 0}, "shards must be an integer at least 1"),
    ({"shards": 17}, "shards must be at most the number of rows in a batch"),
    ({"seed": -1}, "seed must be an integer at least 0"),
    ({"aggregation": "men"}, "Did you mean 'mean'"),
    ({"task_assignment": "round-robin"}, "Did you mean 'round_robin'"),
    ({"data_distribution": "randm"}, "Did you mean 'random'"),
    ({"nonfinite": "ignore"}, "nonfinite must be one of"),
    ({"worker": 2}, "phalanx.fit has no argument 'worker'. Did you mean 'workers'"),
    ({"callback": []}, "no argument 'callback'. Did you mean 'callbacks'"),
    ({"val_split": 0.1}, "no argument 'val_split'. Did you mean 'validation_split'"),
    ({"n_jobs": 2}, "no argument 'n_jobs'. It is called 'workers' here"),
    ({"optimizer": "adam"}, r"no argument 'optimizer'.*help\(keras.Model.fit\)"),
    ({"callbacks": print}, "keras.callbacks.Callback objects; got builtin.*LambdaCallback"),
    ({"callbacks": [None]}, "keras.callbacks.Callback objects; got NoneType"),
    ({"class_weight": [1.0, 2.0]}, "class_weight must be a dict"),
    ({"class_weight": {0: 1.0}, "sample_weight": np.ones(3)}, "class_weight needs.*sample_weight"),
    ({"sample_weight": np.ones(3)}, "one row a sample.*belong together"),
    ({"checkpoint_every": "often"}, "checkpoint"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options(options, message):
    model = trained_never()
    before = km.weights_of(model)
    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        phalanx.fit(model, km.X, km.LABELS, **{**km.SETTINGS, "shards": 2, "workers": 2, **options})
    for a, b in zip(before, km.weights_of(model), strict=True):
        np.testing.assert_array_equal(a, b)


@cache
def trained_never():
    return km.mlp()


def test_checkpoints_of_keras_after_some_steps():
    saving = keras.callbacks.ModelCheckpoint("x.keras", save_freq=10)
    with pytest.raises(InvalidInput, match=r"has save_freq=10. Use save_freq='epoch'"):
        phalanx.fit(trained_never(), km.X, km.LABELS, callbacks=[saving], **km.SETTINGS)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return km.X[:4], km.LABELS[:4]


X, Y = km.X, km.LABELS
DATA = [
    (X[:, :5], Y, "must take the data"),
    (X[0], Y, "one row a sample|must take the data"),
    (X, Y[:-1], r"one row a sample.*\(42, 6\), \(41,\).*belong together"),
    (X[:0], Y[:0], "at least one sample"),
    (X, None, "^y must be given, since the model's loss needs targets; got none"),
    (X, np.stack([Y] * 4, axis=1), "must take the data"),
    (None, Y, "x must be an array.*got NoneType"),
    ("text", Y, "x must be samples as numbers.*got str"),
    (["one", "two"], Y[:2], "encode text first"),
    (np.array(["one"] * 42), Y, "array of numbers.*Encode the values as numbers"),
    (X, np.array(["yes"] * 42), "array of numbers.*Encode the values as numbers"),
    ((row for row in X), Y, "got generator.*stream"),
    (iter([(X, Y)]), None, "got list_iterator.*stream"),
    (Batches(), None, "got Batches, a PyDataset.*np.concatenate its batches"),
    ({"other": X, "more": X}, Y, "must take the data"),
    (X, [Y, Y], "must take the data"),
    (X.astype(object), Y, "array of numbers"),
]


@pytest.mark.parametrize(("x", "y", "message"), DATA)
def test_data(x, y, message):
    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        phalanx.fit(trained_never(), x, y, **{**km.SETTINGS, "workers": 2})


@pytest.mark.parametrize("name", ["y", "sample_weight"])
@pytest.mark.parametrize("door", [phalanx.fit, phalanx.evaluate])
@pytest.mark.parametrize("is_loader", [False, True])
def test_what_is_beside_a_dataset(name, door, is_loader):
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    data = torch.utils.data.DataLoader(data) if is_loader else data
    message = rf"dataset's samples.*{type(data).__name__} and {name}. Put {name} into its samples"
    with pytest.raises(InvalidInput, match=message):
        door(trained_never(), data, verbose=0, **{name: np.ones(len(X))})


VALIDATION = [
    ((X[:, :5], Y), "must take the validation data.*shapes"),
    ((X, Y[:3]), "one row a sample"),
    (X, r"^the y of validation_data=\(x, y\) must be given.*needs targets; got none"),
    ((X,), r"^the y of validation_data=\(x, y\) must be given.*needs targets; got none"),
    ((row for row in X), "got generator"),
]


@pytest.mark.parametrize(("data", "message"), VALIDATION)
def test_validation_data(data, message):
    with pytest.raises(InvalidInput, match=f"(?s){message}"):
        phalanx.fit(trained_never(), X, Y, validation_data=data, **{**km.SETTINGS, "workers": 2})


@pytest.mark.parametrize("y", [Y[:-1], np.concatenate([Y, Y])])
def test_a_split_of_data_that_do_not_belong_together(y):
    with pytest.raises(InvalidInput, match=r"one row a sample.*belong together"):
        phalanx.fit(trained_never(), X, y, validation_split=0.2, **km.SETTINGS)


def test_weights_without_a_target():
    with pytest.raises(InvalidInput, match=r"need a target y.*got y=None"):
        phalanx.fit(trained_never(), X, sample_weight=np.ones(len(X)), **km.SETTINGS)


@pytest.mark.parametrize("door", [phalanx.evaluate, phalanx.predict])
def test_workers_of_evaluate_and_predict(door):
    data = (X, Y) if door is phalanx.evaluate else (X,)
    with pytest.raises(InvalidInput, match="workers must not be 0"):
        door(trained_never(), *data, workers=0)


def test_evaluate_needs_a_compiled_model():
    with pytest.raises(InvalidInput, match="must be compiled"):
        phalanx.evaluate(keras.Sequential([keras.Input((6,)), layers.Dense(2)]), X, km.VALUES)


def test_predict_needs_no_compiled_model():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    found = phalanx.predict(model, X, workers=1)
    np.testing.assert_allclose(found, model.predict(X, verbose=0), rtol=1e-4, atol=1e-6)


def test_predict_of_a_frozen_model():
    model = frozen()
    found = phalanx.predict(model, X, workers=1)
    np.testing.assert_allclose(found, model.predict(X, verbose=0), rtol=1e-4, atol=1e-6)


def test_a_backend_that_is_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )
    with pytest.raises(InvalidInput, match=r"torch is not installed.*Run `pip install torch`"):
        phalanx.fit(trained_never(), X, Y, **km.SETTINGS)


def test_a_loss_that_is_not_finite_stops_the_training():
    model = km.plain(optimizers.SGD(1e20))
    with pytest.raises(phalanx.NonFiniteLoss, match="the loss must be finite"):
        phalanx.fit(model, km.X, km.VALUES, workers=1, **{**km.SETTINGS, "epochs": 9})
    assert all(np.isfinite(weight).all() for weight in km.weights_of(model))


def test_predict_step_of_ones_own():
    class Arg(keras.Model):
        def predict_step(self, data):
            return super().predict_step(data).argmax(-1)

    x = keras.Input((6,))
    with pytest.raises(InvalidInput, match=r"Arg overrides predict_step.*Override call instead"):
        phalanx.predict(Arg(x, layers.Dense(2)(x)), X, workers=1)


@pytest.mark.parametrize("door", [phalanx.evaluate, phalanx.predict])
def test_arguments_of_keras_alone(door):
    with pytest.raises(InvalidInput, match=r"no argument 'steps'. Use model"):
        door(compiled(), X, steps=2)


MISSPELT = [
    ({"worker": 2}, "no argument 'worker'. Did you mean 'workers'"),
    ({"n_jobs": 2}, "no argument 'n_jobs'. It is called 'workers' here"),
    ({"batchsize": 2}, "no argument 'batchsize'. Did you mean 'batch_size'"),
    ({"epochs": 2}, r"no argument 'epochs'. help\(phalanx\.(evaluate|predict)\) names them"),
]


@pytest.mark.parametrize("door", [phalanx.evaluate, phalanx.predict])
@pytest.mark.parametrize(("options", "message"), MISSPELT)
def test_arguments_that_keras_does_not_have_either(door, options, message):
    with pytest.raises(InvalidInput, match=f"phalanx.{door.__name__} has {message}"):
        door(trained_never(), X, **options)


def test_what_was_changed_after_a_model_of_ones_own_was_made():
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.factors = layers.Dense(2), [1.0]

        def call(self, x):
            return self.dense(x) * self.factors[0]

    model = Scaled()
    model.compile("sgd", "mse")
    model.factors = [3.0]
    with pytest.raises(InvalidInput, match=r"factors of Scaled then is \[1.0\] instead of \[3.0\]"):
        phalanx.fit(model, X, km.VALUES, workers=1, verbose=0)


def test_a_refused_fit_leaves_the_model_as_it_was():
    model = compiled(
        layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(2),
        loss=keras.losses.MeanSquaredError(reduction="sum"),
    )  # fmt: skip
    model.build((None, 6))
    before = model.get_weights()
    with pytest.raises(InvalidInput, match="reduction='sum'"):
        phalanx.fit(model, X, km.VALUES, workers=1, verbose=0)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loss_that_keeps_something():
    class Mean(keras.losses.Loss):
        def __init__(self):
            super().__init__()
            self.mean = keras.Variable(0.0)

        def call(self, target, output):
            return keras.ops.mean((target - output) ** 2, axis=-1)

    with pytest.raises(InvalidInput, match=r"Mean has Variable 'mean'.*layer or the model"):
        phalanx.fit(compiled(layers.Dense(2), loss=Mean()), X, km.VALUES, workers=1, verbose=0)


def test_a_weight_that_only_later_samples_change():
    class Counter(layers.Layer):
        def build(self, shape):
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

        def call(self, x):
            if not isinstance(x, keras.KerasTensor) and float(keras.ops.max(x)) > 50:
                self.seen.assign_add(1.0)
            return x

    x = X.copy()
    x[20:] += 100
    model = compiled(Counter(), layers.Dense(2), loss="mse")
    with pytest.raises(UserFunctionError, match=r"'counter.*seen' was not changed by the first"):
        phalanx.fit(model, x, km.VALUES, workers=1, verbose=0)


def noted(values, x=X, **more):
    """What is said of targets beside the error of a loss that is no number."""
    with pytest.raises(phalanx.NonFiniteLoss) as caught:
        phalanx.fit(km.plain(), x, values, **{**km.SETTINGS, **more})
    notes = getattr(caught.value, "__notes__", [])
    return [note for note in notes if note.startswith("The targets")]


@pytest.mark.parametrize("workers", [1, 2])
def test_nan_among_the_targets_is_told_with_the_loss_that_comes_of_it(workers):
    values = km.VALUES.copy()
    values[[20, 31]] = np.nan
    [note] = noted(values, workers=workers)
    assert f"y hold NaN in 2 of {len(X)} rows, the first of which is y[20]" in note


def test_of_targets_that_are_all_numbers_nothing_is_said():
    x = X.copy()
    x[20] = np.nan
    assert noted(km.VALUES, x, workers=1) == []

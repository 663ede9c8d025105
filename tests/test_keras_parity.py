"""Against `model.fit` of Keras itself: same data in the same order, one shard, the same figures."""

from __future__ import annotations

import numpy as np
import pytest

import keras_models as km
import phalanx
from keras_models import keras

pytestmark = km.marks
layers, metrics, optimizers, regularizers = (
    keras.layers,
    keras.metrics,
    keras.optimizers,
    keras.regularizers,
)
STEPS_AN_EPOCH, EPOCHS = 10, 10
N = 40
X, VALUES, LABELS = km.X[:N], km.VALUES[:N], km.LABELS[:N]
BINARY = km.BINARY[:N]
WEIGHTS = np.random.default_rng(1).random(N).astype(np.float32)
SETTINGS = dict(batch_size=4, epochs=EPOCHS, shuffle=False, verbose=0)
ALONE = dict(shards=1, workers=1)


def both(make, x=X, y=VALUES, **more):
    """Two models trained alike, by Keras and by Phalanx, and their histories."""
    settings = {**SETTINGS, **more}
    theirs, ours = make(), make()
    for a, b in zip(km.weights_of(theirs), km.weights_of(ours), strict=True):
        np.testing.assert_array_equal(a, b)
    expected = theirs.fit(x, y, **settings)
    return theirs, expected, ours, phalanx.fit(ours, x, y, **settings, **ALONE)


def assert_same(make, x=X, y=VALUES, loss=1e-6, weights=1e-5, figures=1e-5, **more):
    theirs, expected, ours, history = both(make, x, y, **more)
    assert set(history.history) == set(expected.history)
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=loss)
    assert expected.history["loss"][0] != expected.history["loss"][-1]
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, figures, 1e-6, err_msg=name)
    for a, b in zip(km.weights_of(ours), km.weights_of(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=weights, atol=1e-7)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations)
    return theirs, ours


OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.02),
    "SGD momentum": lambda: optimizers.SGD(0.01, momentum=0.8),
    "SGD nesterov": lambda: optimizers.SGD(0.01, momentum=0.8, nesterov=True, weight_decay=0.01),
    "Adam": lambda: optimizers.Adam(0.01),
    "Adam amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "RMSprop": lambda: optimizers.RMSprop(0.003),
    "RMSprop centered": lambda: optimizers.RMSprop(0.003, centered=True, momentum=0.5),
    "Adagrad": lambda: optimizers.Adagrad(0.02),
    "Adadelta": lambda: optimizers.Adadelta(0.5),
    "Adamax": lambda: optimizers.Adamax(0.01),
    "Nadam": lambda: optimizers.Nadam(0.01),
    "Ftrl": lambda: optimizers.Ftrl(0.05, l1_regularization_strength=0.001),
    "Lion": lambda: optimizers.Lion(0.003),
    "Adafactor": lambda: optimizers.Adafactor(0.01),
    "Lamb": lambda: optimizers.Lamb(0.01),
    "Muon": lambda: optimizers.Muon(0.01, weight_decay=0.1, adam_weight_decay=0.2),
    "clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.5),
    "global_clipnorm": lambda: optimizers.SGD(0.02, global_clipnorm=0.5),
    "clipvalue": lambda: optimizers.SGD(0.02, clipvalue=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer(name):
    assert_same(lambda: km.plain(OPTIMIZERS[name]()))


@pytest.mark.parametrize("kind", ["AdamW", "Adam", "Muon", "Lamb"])
def test_weights_without_decay(kind):
    def make(excluded=("bias", "dense_last")):
        model = km.keras.Sequential(
            [km.keras.Input((6,)), layers.Dense(7, "tanh"), layers.Dense(2, name="dense_last")]
        )
        model.set_weights(km.weights_of(km.plain()))
        optimizer = getattr(optimizers, kind)(0.01, weight_decay=0.5)
        if excluded:
            optimizer.exclude_from_weight_decay(var_names=excluded)
        return km.compiled(model, "mse", optimizer)

    _, ours = assert_same(make)
    decayed = make(excluded=None)
    phalanx.fit(decayed, X, VALUES, **SETTINGS, **ALONE)
    assert not np.allclose(km.weights_of(decayed)[2], km.weights_of(ours)[2])


def test_muon_leaves_layers_out_by_name():
    def make(excluded=("dense_last",)):
        model = km.keras.Sequential(
            [km.keras.Input((6,)), layers.Dense(7, "tanh"), layers.Dense(2, name="dense_last")]
        )
        model.set_weights(km.weights_of(km.plain()))
        return km.compiled(model, "mse", optimizers.Muon(0.01, exclude_layers=list(excluded)))

    _, ours = assert_same(make)
    whole = make(excluded=())
    phalanx.fit(whole, X, VALUES, **SETTINGS, **ALONE)
    assert not np.allclose(km.weights_of(whole)[2], km.weights_of(ours)[2])


SCHEDULES = {
    "exponential": lambda: optimizers.schedules.ExponentialDecay(0.05, 20, 0.5),
    "cosine": lambda: optimizers.schedules.CosineDecay(0.001, 60, warmup_target=0.05,
                                                       warmup_steps=15),
    "piecewise": lambda: optimizers.schedules.PiecewiseConstantDecay([15, 55], [0.05, 0.02, 0.005]),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rate_schedules(name):
    assert_same(lambda: km.plain(optimizers.SGD(SCHEDULES[name](), momentum=0.5)))


def test_sample_weights():
    assert_same(km.plain, sample_weight=WEIGHTS)


def test_class_weights():
    def make():
        return km.plain("adam", "sparse_categorical_crossentropy", 3, metrics=["accuracy"])

    weights = {0: 3.0, 1: 0.5, 2: 1.0}
    assert_same(softmax(make), y=LABELS, class_weight=weights, validation_split=0.3)
    _, ours = assert_same(softmax(make), y=LABELS, class_weight=weights)
    without = softmax(make)()
    phalanx.fit(without, X, LABELS, **SETTINGS, **ALONE)
    assert not np.allclose(km.weights_of(without)[0], km.weights_of(ours)[0])


def softmax(make):
    """A maker of the same model with probabilities for outputs."""

    def made():
        model = make()
        model.layers[-1].activation = km.keras.activations.softmax
        return model

    return made


def test_regularizers_and_constraints():
    def make():
        km.keras.utils.set_random_seed(2)
        model = km.keras.Sequential(
            [
                km.keras.Input((6,)),
                layers.Dense(
                    7,
                    "tanh",
                    kernel_regularizer=regularizers.L1L2(0.01, 0.02),
                    activity_regularizer=regularizers.L2(0.01),
                ),
                layers.Dense(5, "relu", kernel_constraint="max_norm", bias_constraint="non_neg"),
                layers.Dense(2, kernel_constraint=km.keras.constraints.UnitNorm()),
            ]
        )
        return km.compiled(model, "mse", "adam")

    _, ours = assert_same(make)
    assert (km.weights_of(ours)[3] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(km.weights_of(ours)[4], axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["BatchNormalization", "Dense"])
def test_regularizers_beside_what_is_not_trained(kind):
    def make():
        km.keras.utils.set_random_seed(2)
        between = getattr(layers, kind)(*[5] * (kind == "Dense"), trainable=kind != "Dense")
        sizes = layers.Dense(5, kernel_regularizer="l2"), between, layers.Dense(2)
        return km.compiled(km.keras.Sequential([km.keras.Input((6,)), *sizes]), "mse", "sgd")

    assert_same(make, weights=1e-4)


class Unused(layers.Dense):
    """With a weight that nothing depends on."""

    def build(self, shape):
        super().build(shape)
        self.unused = self.add_weight(shape=(3,), initializer="ones", name="unused")


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_a_weight_that_the_loss_does_not_depend_on_has_a_gradient_of_zero():
    def make():
        km.keras.utils.set_random_seed(2)
        model = km.keras.Sequential([km.keras.Input((6,)), Unused(2)])
        return km.compiled(model, "mse", optimizers.SGD(0.1, weight_decay=0.1))

    theirs, _, ours, _ = both(make)
    assert (np.array(theirs.layers[0].unused) == 1).all()
    np.testing.assert_allclose(ours.layers[0].unused, 0.99 ** (STEPS_AN_EPOCH * EPOCHS), rtol=1e-4)


def two_headed(loss_weights=None):
    km.keras.utils.set_random_seed(7)
    inputs = km.keras.Input((6,))
    hidden = layers.Dense(6, "tanh")(inputs)
    outputs = {
        "value": layers.Dense(2, name="value")(hidden),
        "label": layers.Dense(3, "softmax", name="label")(hidden),
    }
    return km.compiled(
        km.keras.Model(inputs, outputs),
        {"value": "mse", "label": "sparse_categorical_crossentropy"},
        "adam",
        loss_weights=loss_weights,
        metrics={"value": ["mae"], "label": ["accuracy"]},
    )


@pytest.mark.parametrize("weights", [None, {"value": 0.3, "label": 2.0}])
def test_several_outputs(weights):
    theirs, ours = assert_same(
        lambda: two_headed(weights), y={"value": VALUES, "label": LABELS}, validation_split=0.2
    )
    predicted = phalanx.predict(ours, X, workers=1)
    assert set(predicted) == {"value", "label"}
    for name, values in theirs.predict(X, verbose=0).items():
        np.testing.assert_allclose(predicted[name], values, rtol=1e-4, atol=1e-6)


def with_features(losses, **more):
    """Two outputs, of which the second has no loss."""
    km.keras.utils.set_random_seed(7)
    inputs = km.keras.Input((6,))
    hidden = layers.Dense(3, name="hidden")(inputs)
    outputs = [layers.Dense(2, name="value")(hidden), hidden]
    return km.compiled(km.keras.Model(inputs, outputs), losses, "adam", **more)


def test_one_target_of_several_outputs():
    """Keras takes a target of as many rows as there are outputs for a list of targets."""
    assert_same(lambda: with_features(["mse", None], metrics=[["mae"], None]), validation_split=0.2)
    settings = {**SETTINGS, "workers": 1, "epochs": 2}
    one, several = (
        phalanx.fit(with_features(["mse", None]), X, VALUES, shards=shards, **settings).history
        for shards in (1, 2)  # of four rows, and of two
    )
    np.testing.assert_allclose(one["loss"], several["loss"], rtol=1e-5)


def test_a_loss_of_ones_own_gets_the_target_as_it_was_given():
    class First(km.keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return km.keras.losses.mean_squared_error(y, y_pred[0]).mean()

    def make():
        plain = with_features(["mse", None])
        return km.compiled(First(plain.inputs, plain.outputs), None, "adam")

    assert_same(make)


@pytest.mark.parametrize("split", [0.25, None])
def test_metrics_of_training_and_validation(split):
    more = dict(validation_split=split) if split else dict(validation_data=(X[:13], VALUES[:13]))

    def make():
        measured = [
            metrics.MeanSquaredError(), metrics.R2Score(), metrics.RootMeanSquaredError(), "mae",
            metrics.CosineSimilarity(),
        ]  # fmt: skip
        return km.plain(metrics=measured)

    assert_same(make, batch_size=8, **more)


def test_metrics_of_classes():
    def make():
        measured = [
            "accuracy",
            metrics.AUC(name="auc"),
            metrics.Precision(name="precision"),
            metrics.Recall(0.4, name="recall"),
        ]
        return km.plain("adam", "binary_crossentropy", 1, metrics=measured,
                        weighted_metrics=[metrics.BinaryAccuracy(name="weighted")])  # fmt: skip

    def sigmoid():
        model = make()
        model.layers[-1].activation = km.keras.activations.sigmoid
        return model

    assert_same(sigmoid, y=BINARY[:, None], sample_weight=WEIGHTS, validation_split=0.2)


def test_a_metric_that_was_used_before_begins_anew():
    def measured(before):
        error = metrics.MeanAbsoluteError()
        error.update_state([[before]], [[0.0]])
        return phalanx.fit(km.plain(metrics=[error]), X, VALUES, **SETTINGS, **ALONE).history

    assert measured(9.0) == measured(0.0)


def test_targets_of_one_dimension():
    assert_same(lambda: km.plain(outputs=1, metrics=["mae"]), y=VALUES[:, 0])


# a bias before it has a gradient of rounding errors alone, which Adam makes whole steps of
@pytest.mark.parametrize(("use_bias", "optimizer"), [(False, "adam"), (True, "sgd")])
def test_batch_normalisation(use_bias, optimizer):
    def make():
        km.keras.utils.set_random_seed(3)
        return km.compiled(
            km.keras.Sequential(
                [
                    km.keras.Input((6,)),
                    layers.Dense(5, use_bias=use_bias),
                    layers.BatchNormalization(momentum=0.8),
                    layers.Dense(2),
                ]
            ),
            "mse",
            optimizer,
        )

    assert_same(make, weights=1e-4, validation_split=0.2)


def test_images():
    assert_same(km.images, km.IMAGES[:N], LABELS)


@pytest.mark.parametrize("workers", [1, 2])
def test_evaluate_and_predict(workers):
    model = km.plain(metrics=["mae", metrics.R2Score()])
    expected = model.evaluate(X, VALUES, verbose=0, return_dict=True)
    found = phalanx.evaluate(model, X, VALUES, return_dict=True, workers=workers)
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
    listed = phalanx.evaluate(model, X, VALUES, workers=workers)
    np.testing.assert_array_equal(listed, list(found.values()))
    predicted = phalanx.predict(model, X, workers=workers)
    np.testing.assert_allclose(predicted, model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [optimizers.Adam(use_ema=True), "sgd"])
def test_evaluate_needs_no_optimizer_that_can_be_shared_and_no_trainable_weights(optimizer):
    model = km.plain(optimizer)
    model.trainable = optimizer != "sgd"
    km.compiled(model, "mse", optimizer)
    expected = model.evaluate(X, VALUES, verbose=0)
    assert phalanx.evaluate(model, X, VALUES) == pytest.approx(expected, rel=1e-6)


def test_evaluate_without_metrics_gives_one_number():
    model = km.plain()
    expected = model.evaluate(X, VALUES, verbose=0, sample_weight=WEIGHTS)
    found = phalanx.evaluate(model, X, VALUES, sample_weight=WEIGHTS, workers=1)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["Adam", "SGD momentum", "Nadam", "Adafactor", "Muon"])
def test_a_second_fit_goes_on(name):
    theirs, _, ours, _ = both(lambda: km.plain(OPTIMIZERS[name]()), epochs=2)
    expected = theirs.fit(X, VALUES, **{**SETTINGS, "epochs": 2})
    history = phalanx.fit(ours, X, VALUES, **{**SETTINGS, "epochs": 2}, **ALONE)
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-6)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) == 40


def test_keras_goes_on_where_phalanx_left_off():
    theirs, _, ours, _ = both(lambda: km.plain(OPTIMIZERS["Nadam"]()), epochs=2)
    expected = theirs.fit(X, VALUES, **{**SETTINGS, "epochs": 2})
    history = ours.fit(X, VALUES, **{**SETTINGS, "epochs": 2})
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-6)


def test_a_schedule_goes_on_in_a_second_fit():
    def make():
        return km.plain(optimizers.SGD(SCHEDULES["exponential"]()))

    theirs, _, ours, _ = both(make, epochs=2)
    expected = theirs.fit(X, VALUES, **{**SETTINGS, "epochs": 2})
    history = phalanx.fit(ours, X, VALUES, **{**SETTINGS, "epochs": 2}, **ALONE)
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-6)

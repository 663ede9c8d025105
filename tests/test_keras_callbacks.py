"""Callbacks see and steer the user's own model; what else `model.fit` of Keras says and returns."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from textwrap import dedent

import numpy as np
import pytest

import keras_models as km
import phalanx
from keras_models import keras
from phalanx import InvalidInput

pytestmark = km.marks
callbacks, optimizers = keras.callbacks, keras.optimizers
HELD = dict(validation_data=(km.X[:13], km.LABELS[:13]))


def trained(model, workers=2, **more):
    return phalanx.fit(model, km.X, km.LABELS, workers=workers, **{**km.SETTINGS, **more})


@cache
def plain_digest(epochs=2):
    return trained(km.mlp(), epochs=epochs).run.digest


def test_callbacks_that_only_look_change_nothing():
    seen = []
    told = callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append("begin"),
        on_epoch_begin=lambda epoch, logs: seen.append(epoch),
        on_epoch_end=lambda epoch, logs: seen.append(set(logs)),
        on_train_end=lambda logs: seen.append("end"),
    )
    history = trained(km.mlp(), callbacks=[told], verbose=0)
    logs = {"loss", "accuracy"}
    assert seen == ["begin", 0, logs, 1, logs, "end"]
    assert history.run.digest == plain_digest()


def test_a_callback_sees_the_weights_of_its_epoch():
    class Reader(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((km.weights_of(self.model), int(self.model.optimizer.iterations)))

    seen = []
    trained(km.mlp(), epochs=3, callbacks=[Reader()])
    assert [steps for _, steps in seen] == [3, 6, 9]
    for epoch, (weights, _) in enumerate(seen, 1):
        alone = km.mlp()
        trained(alone, epochs=epoch)
        for a, b in zip(weights, km.weights_of(alone), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_callback_may_change_the_weights():
    class Halver(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights([weight / 2 for weight in self.model.get_weights()])

    runs = [trained(km.mlp(), workers=n, callbacks=[Halver()]).run for n in (1, 2)]
    assert runs[0].digest == runs[1].digest != plain_digest()
    assert "parameters changed by a callback" in {event.what for event in runs[0].events}


def test_a_callback_may_not_change_what_is_trained():
    class Freezer(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[0].trainable = epoch != 0

    with pytest.raises(InvalidInput, match=r"changed `trainable` of a layer.*fit again"):
        trained(km.mlp(), epochs=2, callbacks=[Freezer()])
    assert len(trained(km.mlp(), epochs=1, callbacks=[Freezer()]).epoch) == 1


def test_a_callback_stops_the_training():
    class Stopper(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    history = trained(km.mlp(), epochs=5, callbacks=[Stopper()])
    assert history.epoch == [0, 1]
    assert history.run.digest == plain_digest()
    again = trained(km.mlp(), epochs=2)
    assert again.epoch == [0, 1]


def test_who_stops_at_the_beginning_stops_after_an_epoch(tmp_path):
    class Stopper(callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.stop_training = True

    assert trained(km.mlp(), epochs=3, callbacks=[Stopper()]).epoch == [0]
    trained(km.mlp(), checkpoint=tmp_path)
    again = trained(km.mlp(), epochs=4, callbacks=[Stopper()], resume=tmp_path)
    assert again.epoch == [0, 1, 2]


def test_a_loss_that_is_not_finite_ends_a_training_that_asks_for_it():
    model = km.plain(optimizers.SGD(1e20))
    settings = {**km.SETTINGS, "epochs": 9, "nonfinite": "keep"}
    told = callbacks.TerminateOnNaN()
    history = phalanx.fit(model, km.X, km.VALUES, callbacks=[told], workers=1, **settings)
    assert not np.isfinite(history.history["loss"][-1])
    assert np.isfinite(history.history["loss"][:-1]).all()
    assert len(history.epoch) < 9


@pytest.mark.parametrize("workers", [1, 2])
def test_early_stopping_restores_the_best_weights(workers):
    def make():
        return km.mlp(optimizers.SGD(30.0))  # which soon does more harm than good

    def stopping():
        return callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)

    model = make()
    history = trained(model, workers, epochs=20, callbacks=[stopping()], **HELD)
    losses = history.history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 20
    alone = make()
    trained(alone, epochs=best + 1)
    for a, b in zip(km.weights_of(model), km.weights_of(alone), strict=True):
        np.testing.assert_array_equal(a, b)


def test_reduce_on_plateau_as_in_keras():
    def plateau():
        return callbacks.ReduceLROnPlateau("val_loss", 0.1, patience=1, min_delta=1.0)

    settings = dict(batch_size=14, epochs=5, shuffle=False, verbose=0,
                    validation_data=(km.X, km.VALUES))  # fmt: skip
    theirs, ours = km.plain("adam"), km.plain("adam")
    expected = theirs.fit(km.X, km.VALUES, callbacks=[plateau()], **settings)
    found = phalanx.fit(ours, km.X, km.VALUES, callbacks=[plateau()], shards=1, **settings)
    rates = found.history["learning_rate"]
    np.testing.assert_allclose(rates, expected.history["learning_rate"], rtol=1e-6)
    assert rates[-1] < rates[0]
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=1e-6)
    assert float(ours.optimizer.learning_rate) == float(theirs.optimizer.learning_rate)


def test_learning_rate_scheduler_as_in_keras():
    def halving():
        return callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)

    settings = dict(batch_size=14, epochs=4, shuffle=False, verbose=0)
    theirs, ours = km.plain("adam"), km.plain("adam")
    expected = theirs.fit(km.X, km.VALUES, callbacks=[halving()], **settings)
    found = phalanx.fit(ours, km.X, km.VALUES, callbacks=[halving()], shards=1, **settings)
    assert found.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(found.history[name], values, rtol=1e-6)


def test_model_checkpoints_hold_the_model_of_their_epoch(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    model = km.mlp()
    trained(model, callbacks=[callbacks.ModelCheckpoint(path)])
    assert sorted(os.listdir(tmp_path)) == ["1.keras", "2.keras"]
    first, last = (keras.saving.load_model(tmp_path / f"{i}.keras") for i in (1, 2))
    for a, b in zip(km.weights_of(last), km.weights_of(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(first.optimizer.iterations) == 3
    alone = km.mlp()
    trained(alone, epochs=1)
    for a, b in zip(km.weights_of(first), km.weights_of(alone), strict=True):
        np.testing.assert_array_equal(a, b)


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    history = trained(km.mlp(), callbacks=[callbacks.CSVLogger(path)], **HELD)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    for name, values in history.history.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-6)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed"
)
def test_tensorboard(tmp_path):
    trained(km.mlp(), callbacks=[callbacks.TensorBoard(tmp_path)])
    assert any(tmp_path.rglob("events*"))


def test_callbacks_for_batches_are_not_called_and_that_is_said():
    called = []
    told = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: called.append(batch))
    with pytest.warns(UserWarning, match="called after each epoch"):
        trained(km.mlp(), callbacks=[told])
    assert called == []


class Validations(callbacks.Callback):
    """What is told of validations, and of the epochs around them."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_test_begin(self, logs=None):
        self.told.append("begins")

    def on_test_end(self, logs=None):
        self.told.append(set(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.told.append(epoch)


def test_validations_are_told_as_in_keras():
    ours, theirs = Validations(), Validations()
    trained(km.mlp(), callbacks=[ours], validation_freq=2, **HELD)
    km.mlp().fit(
        km.X, km.LABELS, epochs=2, verbose=0, callbacks=[theirs], validation_freq=2, **HELD
    )
    assert ours.told == theirs.told == [0, "begins", {"loss", "accuracy"}, 1]


def test_callbacks_for_batches_of_a_validation_are_not_called_and_that_is_said():
    class PerBatch(callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            raise AssertionError

    with pytest.warns(UserWarning, match="called after each epoch") as told:
        trained(km.mlp(), callbacks=[PerBatch()], **HELD)
    assert {w.filename for w in told if w.category is UserWarning} == {__file__}


def test_epochs_are_counted_from_initial_epoch():
    seen = []
    told = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    history = trained(km.mlp(), initial_epoch=3, epochs=5, callbacks=told)
    assert history.epoch == seen == [3, 4]
    assert history.run.steps == 6


def test_a_training_in_two_parts_is_the_training_in_one():
    whole, parts = km.tied(), km.tied()
    trained(whole, epochs=4)
    trained(parts, epochs=2)
    trained(parts, epochs=4, initial_epoch=2)
    for a, b in zip(km.weights_of(whole), km.weights_of(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_per_epoch():
    history = trained(km.mlp(), steps_per_epoch=2)
    assert history.run.steps == 4
    assert history.params["steps"] == 2


@pytest.mark.parametrize(("freq", "count"), [(2, 2), ([1, 4, 5], 3), (9, 0)])
def test_validation_freq_as_in_keras(freq, count):
    more = dict(epochs=5, validation_freq=freq, **HELD)
    history = trained(km.mlp(), **more)
    assert len(history.history["loss"]) == 5
    assert len(history.history.get("val_loss", [])) == count
    expected = km.mlp().fit(km.X, km.LABELS, verbose=0, **more)
    assert history.history.keys() == expected.history.keys()


def test_the_history_is_what_keras_returns():
    model = km.mlp()
    history = trained(model, **HELD)
    assert isinstance(history, callbacks.History)
    assert history is model.history
    assert history.model is model
    expected = km.mlp().fit(km.X, km.LABELS, epochs=2, verbose=0, **HELD)
    assert list(history.history) == list(expected.history)
    assert history.epoch == expected.epoch
    assert all(type(value) is float for values in history.history.values() for value in values)
    assert history.run.losses == history.history["loss"]
    assert history.run.scores == history.history["val_loss"]


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 2), (2, 2), ("auto", 2)])
def test_what_is_shown(verbose, lines, capsys):
    trained(km.mlp(), verbose=verbose)
    shown = capsys.readouterr().out
    assert shown.count("Epoch ") == lines
    assert shown.count("accuracy: ") >= lines
    assert bool(shown) == bool(verbose)


# on other workers, in other processes


def test_a_checkpoint_goes_on_with_another_number_of_workers(tmp_path):
    undisturbed = trained(km.cnn_of_x(), epochs=4)
    trained(km.cnn_of_x(), epochs=2, checkpoint=tmp_path, checkpoint_every="1 epoch")
    for workers in (1, 3):
        model = km.cnn_of_x()
        resumed = trained(model, workers, epochs=4, resume=tmp_path)
        assert resumed.run.digest == undisturbed.run.digest
        assert resumed.history == undisturbed.history
        assert resumed.epoch == [0, 1, 2, 3]
        assert int(model.optimizer.iterations) == 12


def test_a_checkpoint_of_later_epochs_goes_on(tmp_path):
    more = dict(initial_epoch=3, epochs=7)
    undisturbed = trained(km.cnn_of_x(), **more)
    trained(km.cnn_of_x(), initial_epoch=3, epochs=5, checkpoint=tmp_path)
    for told in (None, callbacks.LambdaCallback()):
        resumed = trained(km.cnn_of_x(), 1, resume=tmp_path, callbacks=told, **more)
        assert resumed.run.digest == undisturbed.run.digest
        assert resumed.history == undisturbed.history
        assert resumed.epoch == undisturbed.epoch == [3, 4, 5, 6]


def test_a_checkpoint_within_an_epoch_goes_on(tmp_path):
    class Stop(Exception):
        pass

    class Stopper(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise Stop

    with pytest.raises(Stop):
        trained(km.mlp(), epochs=2, checkpoint=tmp_path, checkpoint_every="2 steps",
                callbacks=[Stopper()])  # fmt: skip
    resumed = trained(km.mlp(), 1, epochs=2, resume=tmp_path)
    assert resumed.run.digest == plain_digest()


def test_a_schedule_goes_on_from_a_checkpoint(tmp_path):
    def make():
        return km.mlp(optimizers.Adam(optimizers.schedules.ExponentialDecay(0.05, 3, 0.5)))

    undisturbed = trained(make(), epochs=4)
    trained(make(), epochs=2, checkpoint=tmp_path)
    assert trained(make(), 1, epochs=4, resume=tmp_path).run.digest == undisturbed.run.digest


def test_callbacks_go_on_from_a_checkpoint_as_if_nothing_had_been(tmp_path):
    def halving():
        return callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)

    undisturbed = trained(km.mlp(), epochs=4, callbacks=halving())
    trained(km.mlp(), epochs=2, checkpoint=tmp_path, callbacks=halving())
    resumed = trained(km.mlp(), 1, epochs=4, resume=tmp_path, callbacks=halving())
    assert resumed.run.digest == undisturbed.run.digest
    assert resumed.history == undisturbed.history


def test_models_saved_before_a_checkpoint_are_left_as_they_are(tmp_path):
    def saving():
        path = tmp_path / "best.weights.h5"
        return callbacks.ModelCheckpoint(path, "loss", save_best_only=True, save_weights_only=True)

    def make():
        return km.plain(optimizers.SGD(5.0), clipped())  # from the first epoch on, it gets worse

    def clipped():
        return lambda a, b: km.keras.ops.mean(km.keras.ops.minimum((a - b) ** 2, 1e6), axis=-1)

    def fit(model, **more):
        settings = {**km.SETTINGS, "workers": 1, "callbacks": saving(), **more}
        return phalanx.fit(model, km.X, km.VALUES, **settings)

    first = fit(make(), epochs=2, checkpoint=tmp_path / "kept")
    assert first.history["loss"][1] > first.history["loss"][0]
    saved = (tmp_path / "best.weights.h5").read_bytes()
    model = make()
    fit(model, epochs=3, resume=tmp_path / "kept")
    assert (tmp_path / "best.weights.h5").read_bytes() == saved
    model.save_weights(tmp_path / "own.weights.h5")
    assert (tmp_path / "own.weights.h5").exists()


def test_the_best_weights_of_epochs_before_a_checkpoint_are_not_made_up(tmp_path):
    trained(km.mlp(), checkpoint=tmp_path)
    stopping = callbacks.EarlyStopping("loss", restore_best_weights=True)
    with pytest.raises(phalanx.InvalidInput, match="EarlyStopping with restore_best_weights=True"):
        trained(km.mlp(), epochs=4, resume=tmp_path, callbacks=stopping)


SCRIPT = """
import json
import sys

import keras
import numpy as np
import phalanx


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(5, activation=bent, kernel_initializer="ones")
        self.norm = keras.layers.BatchNormalization()
        self.dropout = keras.layers.Dropout(0.2)
        self.last = keras.layers.Dense(2, kernel_initializer="ones")

    def call(self, x, training=False):
        x = self.norm(self.hidden(x), training=training)
        return self.last(self.dropout(x, training=training))


def bent(x):
    return keras.ops.tanh(x * 1.5)


def own_loss(a, b):
    return keras.ops.mean(keras.ops.square(a - b), axis=-1)


rng = np.random.default_rng(0)
x = rng.normal(size=(40, 3)).astype("float32")
y = x[:, :2] * 2
found = {}
for workers in (1, 2):
    model = Own()
    model.compile(keras.optimizers.Adam(0.01), own_loss, metrics=["mae"])
    history = phalanx.fit(model, x, y, batch_size=8, epochs=3, shards=2, workers=workers,
                          validation_split=0.2, verbose=0, seed=1)
    evaluated = phalanx.evaluate(model, x, y, workers=workers)
    predicted = phalanx.predict(model, x, workers=workers)
    found[workers] = [
        history.run.digest, history.history["loss"], history.history["val_mae"], evaluated,
        float(predicted.sum()), [float(np.sum(w)) for w in model.get_weights()],
    ]
found["backend"] = keras.backend.backend()
print(json.dumps(found))
"""


@cache
def script_on(backend):
    """What the script finds in a process of that backend."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(SCRIPT)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_script_without_a_main_guard_trains_classes_of_its_own():
    found = script_on("torch")
    assert found["backend"] == "torch"
    assert found["1"] == found["2"]
    assert found["1"][1][-1] < found["1"][1][0]


@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="Keras' numpy backend needs jax, too"
)
@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_a_process_of_another_backend_trains_to_the_same_bits(backend):
    here, there = script_on("torch"), script_on(backend)
    assert there["backend"] == backend
    assert there["1"] == there["2"]
    assert there["1"][0] == here["1"][0]
    for a, b in zip(there["1"][1:], here["1"][1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


class AtTheBeginning(callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.model.set_weights([0 * weight + 0.3 for weight in self.model.get_weights()])


def test_weights_that_a_callback_sets_at_the_beginning_are_trained():
    model, expected = km.plain(), km.plain()
    settings = dict(batch_size=16, epochs=2, shuffle=False, verbose=0)
    theirs = expected.fit(km.X, km.VALUES, callbacks=[AtTheBeginning()], **settings)
    history = phalanx.fit(
        model, km.X, km.VALUES, callbacks=[AtTheBeginning()], shards=1, workers=1, **settings
    )
    np.testing.assert_allclose(history.history["loss"], theirs.history["loss"], rtol=1e-5)


def test_settings_of_the_optimizer_that_a_callback_changes_are_refused():
    def change(epoch, logs):
        model.optimizer.momentum = 0.5

    model = km.mlp(optimizers.SGD(0.1, momentum=0.9))
    told = callbacks.LambdaCallback(on_epoch_end=change)
    with pytest.raises(InvalidInput, match=r"changed 'momentum' from 0.9 to 0.5.*initial_epoch"):
        trained(model, callbacks=[told])


def test_backup_and_restore_is_refused(tmp_path):
    backup = callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(InvalidInput, match=r"BackupAndRestore.*resume=True"):
        trained(km.mlp(), callbacks=[backup])


def test_validation_steps():
    more = dict(validation_split=0.5, validation_steps=2, validation_batch_size=4)
    settings = dict(batch_size=7, epochs=1, shuffle=False, verbose=0, **more)
    expected = km.plain().fit(km.X, km.VALUES, **settings)
    history = phalanx.fit(km.plain(), km.X, km.VALUES, shards=1, workers=1, **settings)
    np.testing.assert_allclose(history.history["val_loss"], expected.history["val_loss"], rtol=1e-5)
    whole = {**settings, "validation_steps": None}
    other = phalanx.fit(km.plain(), km.X, km.VALUES, shards=1, workers=1, **whole)
    assert other.history["val_loss"] != history.history["val_loss"]


def test_figures_come_in_the_order_of_keras():
    x = keras.Input((6,))
    h = km.layers.Dense(4, "tanh")(x)
    outputs = [km.layers.Dense(2, name="v")(h), km.layers.Dense(3, "softmax", name="c")(h)]
    model = keras.Model(x, outputs)
    losses, metrics = ["mse", "sparse_categorical_crossentropy"], [["mae"], ["accuracy"]]
    model.compile("sgd", loss=losses, metrics=metrics)
    expected = model.evaluate(km.X, [km.VALUES, km.LABELS], verbose=0)
    found = phalanx.evaluate(model, km.X, [km.VALUES, km.LABELS], workers=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_predictions_of_several_outputs_are_not_rounded():
    """float64, in which float32 and 64 bits of an integer would meet, does not hold the latter."""
    x = keras.Input((1,), dtype="int64")
    half = km.layers.Lambda(lambda x: km.keras.ops.cast(x, "float32") / 2)(x)
    model = keras.Model(x, [km.layers.Lambda(lambda x: x + 1)(x), half])
    numbers = np.array([[2**53], [2**62 + 1], [-(2**63) + 1]])
    one, two = phalanx.predict(model, numbers, workers=1)
    assert (one.dtype, two.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(one, numbers + 1)
    np.testing.assert_array_equal(two, numbers.astype(np.float32) / 2)


def test_predictions_have_the_dtype_of_the_model():
    x = keras.Input((1,), dtype="int64")
    model = keras.Model(x, km.layers.Lambda(lambda x: x + 1)(x))
    numbers = np.array([[2**24 + 1], [2**40 + 1]])
    predicted = phalanx.predict(model, numbers, workers=1)
    assert predicted.dtype == np.int64
    np.testing.assert_array_equal(predicted, numbers + 1)


def annealed():
    """The layer's factor is no weight that training changes."""
    keras.utils.set_random_seed(1)
    parts = [keras.Input((6,)), km.layers.Dense(3, "softmax"), Weighted(name="weighted")]
    return km.compiled(keras.Sequential(parts))


class Weighted(km.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", trainable=False, name="factor")

    def call(self, x):
        return x**self.factor


@pytest.mark.parametrize("moment", ["on_train_begin", "on_epoch_end"])
def test_a_constant_weight_that_a_callback_writes_into_is_refused(moment):
    model = annealed()
    told = callbacks.LambdaCallback(**{moment: lambda *given: model.layers[1].factor.assign(2.0)})
    with pytest.raises(InvalidInput, match=r"written into '.*weighted/factor'.*initial_epoch"):
        trained(model, callbacks=[told])


class Rewinding(callbacks.Callback):
    """Steps are counted anew from each epoch on."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True
        self.model.optimizer.iterations.assign(0)


class Forgetting(callbacks.Callback):
    def on_test_end(self, logs=None):
        momentum = self.model.optimizer._momentums[0]
        momentum.assign(momentum * 0)


@pytest.mark.parametrize(("kind", "name"), [(Rewinding, "iteration"), (Forgetting, "momentum")])
def test_what_a_callback_writes_into_the_optimizers_state_is_refused(kind, name):
    with pytest.raises(InvalidInput, match=rf"written into 'adam.*{name}'.*initial_epoch"):
        trained(km.mlp(), callbacks=[kind()], **HELD)


def test_another_optimizer_that_a_callback_sets_is_refused():
    def change(epoch, logs):
        model.optimizer = optimizers.SGD(0.1)

    model = km.mlp()
    with pytest.raises(InvalidInput, match=r"callback has set another.*initial_epoch"):
        trained(model, callbacks=[callbacks.LambdaCallback(on_epoch_end=change)])


def test_a_schedule_that_a_callback_sets_is_followed():
    class Slower(callbacks.Callback):
        def on_train_begin(self, logs=None):
            schedule = optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)
            self.model.optimizer.learning_rate = schedule

    settings = dict(batch_size=16, epochs=3, shuffle=False, verbose=0)
    theirs = km.plain().fit(km.X, km.VALUES, callbacks=[Slower()], **settings)
    history = phalanx.fit(
        km.plain(), km.X, km.VALUES, callbacks=[Slower()], shards=1, workers=1, **settings
    )
    np.testing.assert_allclose(history.history["loss"], theirs.history["loss"], rtol=1e-5)

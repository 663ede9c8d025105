"""A program for the tests of several hosts: small trainings of every kind, one after another.

Its arguments are the folder for what it writes, the number of workers of each host, and the cases.
For each case it prints "CASE JSON".
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np

import keras_models
import phalanx
import torch_models
from phalanx import MLPClassifier
from phalanx.fitting.pytorch import factoring
from phalanx.pure.aggregation import mean
from phalanx.testing import Fault, scripted

SETTINGS = dict(
    hidden_layer_sizes=(40, 300), batch_size=16, shards=4, max_iter=3, random_state=0, tol=0,
    n_iter_no_change=100, early_stopping=True, dropout=0.1,
)  # fmt: skip
X, CLASSES = torch_models.X.numpy(), torch_models.CLASSES.numpy()
TORCH = dict(loss="cross_entropy", epochs=2, batch_size=18, shards=4, seed=3)
PHASES = ("compute", "publish", "reduce", "commit", "leave", "open")


def host():
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def told(run, **more):
    """What is the same on all hosts."""
    figures = [run.losses, run.scores, run.reason, run.steps, run.hosts, run.strategies]
    return {"digest": run.digest, "figures": figures, **more}


def perceptron(folder, workers, **changes):
    return MLPClassifier(**{**SETTINGS, **changes}, n_jobs=workers).fit(X, CLASSES)


def network(folder, workers, **changes):
    settings = {**TORCH, "workers": workers, "validation": (torch_models.IMAGES, CLASSES)}
    return phalanx.fit(torch_models.cnn(), (torch_models.IMAGES, CLASSES), **settings | changes)


def keras_fit(workers, model=None, **changes):
    model = model or keras_models.cnn_of_x()
    settings = {**keras_models.SETTINGS, "workers": workers, **changes}
    return phalanx.fit(model, keras_models.X, keras_models.LABELS, **settings).run


def mlp(folder, workers):
    return told(perceptron(folder, workers).run_)


def torch(folder, workers):
    return told(network(folder, workers))


def keras(folder, workers):
    return told(keras_fit(workers))


def linear(folder, workers):
    """A module that leaves factors of its gradients."""
    module, data = torch_models.wide(), (torch_models.X, torch_models.CLASSES)
    with patch.object(factoring, "FEWEST", 0):
        return told(phalanx.fit(module, data, **TORCH, workers=workers))


def plateau(folder, workers):
    """Callbacks that change the rate, stop, and put weights back."""
    callbacks = keras_models.keras.callbacks
    model = keras_models.cnn_of_x()
    run = keras_fit(
        workers, model, epochs=9,
        callbacks=[
            callbacks.ReduceLROnPlateau(monitor="loss", min_delta=9, patience=1, factor=0.1),
            callbacks.EarlyStopping("loss", min_delta=9, patience=3, restore_best_weights=True),
        ],
    )  # fmt: skip
    weights = phalanx.run.digest(
        np.concatenate([np.ravel(w) for w in model.get_weights()]), np.empty(0)
    )
    return told(run, weights=weights, rates=run.history["learning_rate"])


def lbfgs(folder, workers):
    return told(perceptron(folder, workers, solver="lbfgs", early_stopping=False).run_)


def unlike(folder, workers):
    """L-BFGS with an aggregation that is another one on each host, under the same name."""
    rule = lambda grads_Sn, weights_S: mean(grads_Sn, weights_S) * (1 + host())  # noqa: E731
    more = {"solver": "lbfgs", "early_stopping": False, "aggregation": rule}
    try:
        perceptron(folder, workers, **more)
    except phalanx.HostsDiffer as error:
        return str(error)


def killed(folder, workers):
    """A worker dies at one phase after another; on every second host."""
    digests = set()
    for number, phase in enumerate(PHASES):
        faults = [Fault(number % workers, 2, phase)] if number % 2 == host() % 2 else []
        with scripted(*faults):
            digests.add(perceptron(folder, workers).run_.digest)
    return {"digest": sorted(digests)}


def wire(folder, workers):
    return told(network(folder, workers, wire="bf16"))


def rounded(folder, workers):
    return told(perceptron(folder, workers, wire="fp16").run_)


def summed(folder, workers):
    return told(perceptron(folder, workers, exact=False).run_)


def means(folder, workers):
    """Of blocks so large that BLAS would use several threads."""
    torch_models.torch.manual_seed(0)
    layers = torch_models.nn.Linear(36, 601), torch_models.nn.Linear(601, 3)
    module = torch_models.nn.Sequential(torch_models.nn.Flatten(), *layers)
    settings = {**TORCH, "workers": workers, "exact": False}
    return told(phalanx.fit(module, (torch_models.IMAGES, CLASSES), **settings))


def rounds(folder, workers):
    return told(network(folder, workers, sync_every=2))


def saved(folder, workers):
    """Only the first host writes, and so only the first has something to go on from."""
    mine = folder / f"host {host()}"
    network(folder, workers, epochs=1, checkpoint=mine, checkpoint_every="1 epochs")
    n_files = len(list(mine.glob("step-*"))) if mine.exists() else 0
    assert bool(n_files) == (host() == 0), n_files
    return told(network(folder, workers, checkpoint=mine, resume=True))


def ended(folder, workers):
    """Going on from the end of a training with the best parameters, which the first host has."""
    mine, make = folder / f"ended {host()}", MLPClassifier(**SETTINGS, n_jobs=workers)
    before = make.fit(X, CLASSES, checkpoint=mine).run_
    after = make.fit(X, CLASSES, checkpoint=mine, resume=True).run_
    assert after.digest == before.digest
    return told(after)


def verbose(folder, workers):
    perceptron(folder, workers, verbose=True)
    perceptron(folder, workers, verbose=True, solver="lbfgs", early_stopping=False)
    network(folder, workers, verbose=True)
    keras_fit(workers, verbose=2)
    return {}


def stopped(folder, workers):
    """What the first host's callback says holds for all."""
    stop_at = 2 if host() == 0 else 1
    return told(network(folder, workers, epochs=9, callbacks=lambda epoch, _: epoch >= stop_at))


def resized(folder, workers):
    """Another number of workers on one host: all begin a new session together."""
    clf = MLPClassifier(**SETTINGS, n_jobs=workers)

    def resize(epoch, record):
        if host() == 1 and epoch == 1:
            clf.resize(2)

    run = clf.fit(X, CLASSES, callback=resize).run_
    assert run.workers == 1 + (host() == 1)
    return told(run)


def interrupted(folder, workers):
    """Ctrl-C on the last host, while it trains."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    calls = []

    def interrupt(epoch, record):
        calls.append(epoch)
        if len(calls) == 2 and host() == int(os.environ.get("WORLD_SIZE", "1")) - 1:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    clf = MLPClassifier(**{**SETTINGS, "max_iter": 10**5}, n_jobs=workers)
    run = clf.fit(X, CLASSES, callback=interrupt).run_
    assert run.reason == "interrupted"
    return told(run)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "Stochastic Optimizer|lbfgs failed|Training interrupted")
    where, n_workers, *cases = sys.argv[1:]
    for case in cases:
        found = globals()[case](Path(where), int(n_workers))
        line = f"{case} {json.dumps(found)}\n"  # as one piece: torchrun's processes share the pipe
        print(line, end="", flush=True)

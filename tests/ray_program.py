"""A program that trains on a Ray cluster of several raylets on this machine, for test_ray.py.

It is one of its own, since a cluster takes seconds to start, and a test's process is to be left as
it was. Each case prints one line of JSON: its name, and what came of it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster

import keras_models  # which chooses Keras' backend
import own_scale
import phalanx
import torch_models

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 12)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
LAYOUTS = ((1, 4), (2, 1), (2, 2), (3, 2), (4, 1))
EPOCHS, WHEN = 120, 20  # of a training that is disturbed, and when it is


def mlp(cluster=None, epochs=3, callback=None, strategies=None, **options):
    clf = phalanx.MLPClassifier(
        (40, 30), max_iter=epochs, batch_size=64, shards=4, random_state=0, n_jobs=1, tol=0,
        n_iter_no_change=1000, early_stopping=callback is None, **(strategies or {}),
    )  # fmt: skip
    clf.fit(X, Y, cluster=cluster, callback=callback, **options)
    return clf.run_


def cnn(cluster=None, **options):
    module = torch_models.cnn()
    data = torch_models.IMAGES, torch_models.CLASSES
    return phalanx.fit(
        module, data, loss="cross_entropy", epochs=2, batch_size=16, shards=4, workers=1,
        validation=data, cluster=cluster, **options,
    )  # fmt: skip


def keras_cnn(cluster=None, **options):
    import keras

    model = keras_models.cnn()
    slower = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=0, min_delta=10.0)
    settings = keras_models.SETTINGS | {"workers": 1, "cluster": cluster, "epochs": 3}
    data = keras_models.IMAGES, keras_models.LABELS
    return phalanx.fit(model, *data, callbacks=[slower], **settings, **options).run


def say(name, **what):
    print(json.dumps({"case": name, **what}), flush=True)


def told(run):
    events = [str(event) for event in run.events]
    return {"digest": run.digest, "hosts": run.hosts, "workers": run.workers, "events": events}


def hosts(n_hosts, workers=None, **options):
    return phalanx.RayCluster(hosts=n_hosts, workers_per_host=workers, **options)


def layouts(every):
    kinds = (mlp, cnn, keras_cnn)
    for kind in kinds:
        say(f"{kind.__name__} alone", **told(kind()))
        chosen = LAYOUTS if every or kind is mlp else LAYOUTS[2:4]
        for n_hosts, workers in chosen:
            say(f"{kind.__name__} {n_hosts}x{workers}", **told(kind(hosts(n_hosts, workers))))


def disturbed(name, disturb, cluster, **options):
    """A training in whose 20th epoch something happens; the epochs that its caller was told."""
    happened, epochs = threading.Event(), []

    def callback(epoch, record):
        epochs.append(epoch)
        if epoch == WHEN:
            threading.Thread(target=lambda: (disturb(), happened.set())).start()
        time.sleep(0.02)  # so that there is something left to disturb

    run = mlp(cluster, EPOCHS, callback, **options)
    assert happened.wait(30)
    say(name, **told(run), is_told_each_once=epochs == list(range(1, EPOCHS + 1)))


def host_processes():
    found = psutil.process_iter(["cmdline"])
    return [p for p in found if "ray::Host" in "".join(p.info["cmdline"] or ())]


def kill_a_host():
    host_processes()[0].kill()


def kill_a_worker():
    names = psutil.process_iter(["cmdline"])
    servers = [
        p for p in names if "phalanx.clusters.forkserver" in " ".join(p.info["cmdline"] or ())
    ]
    theirs = {p.pid for host in host_processes() for p in host.children()}
    server = next(p for p in servers if p.pid in theirs)
    server.children()[0].kill()


def losses(cluster, nodes, folder):
    say("undisturbed", **told(mlp(None, EPOCHS, lambda epoch, record: None)))
    disturbed("a worker killed", kill_a_worker, hosts(2, 2))
    disturbed("a host killed", kill_a_host, hosts(2))
    spare = nodes.pop()
    disturbed("a raylet killed", lambda: cluster.remove_node(spare, False), hosts(4, 1))
    while len([node for node in ray.nodes() if node["Alive"]]) > 3:
        time.sleep(0.1)
    try:
        disturbed(
            "too few hosts", lambda: cluster.remove_node(nodes.pop(), False),
            hosts(3, min_hosts=3, patience=4.0), checkpoint=folder, checkpoint_every="5 epochs",
        )  # fmt: skip
    except phalanx.HostLost as error:
        say("too few hosts", error=str(error), checkpoints=len(os.listdir(folder)))
    while len([node for node in ray.nodes() if node["Alive"]]) > 2:
        time.sleep(0.1)
    run = mlp(hosts(2), EPOCHS, lambda epoch, record: None, checkpoint=folder, resume=True)
    say("gone on", **told(run))


def refusals():
    def refused(name, call):
        begun = time.monotonic()
        try:
            call()
        except Exception as error:
            took = time.monotonic() - begun
            say(name, kind=type(error).__name__, error=str(error), seconds=took)
        else:
            say(name, error="")

    refused("too few nodes", lambda: mlp(hosts(9, min_hosts=9, patience=2.0)))
    refused("too many CPUs", lambda: mlp(hosts(1, 99, patience=2.0)))

    def stop(epoch, record):
        raise KeyError("of the caller's own")

    refused("a callback raises", lambda: mlp(hosts(2), 5, stop))
    stopping = mlp(hosts(2), 50, lambda epoch, record: epoch == 4)
    say("a callback stops", epochs=stopping.epochs, reason=stopping.reason)
    bad = torch_models.mlp()
    options = {
        "loss": "cross_entropy",
        "epochs": 1,
        "batch_size": 16,
        "shards": 4,
    }
    nan = torch_models.X * float("nan")
    refused(
        "a loss that is NaN",
        lambda: phalanx.fit(bad, (nan, torch_models.CLASSES), cluster=hosts(2), **options),
    )
    for name in ("aggregation", "data_distribution", "task_assignment"):
        own = {name: getattr(own_scale, name)}
        say(f"own {name} alone", digest=mlp(strategies=own).digest)
        say(f"own {name} on a host", digest=mlp(hosts(1), strategies=own).digest)
        own_scale.SCALE = 3.0  # in this process alone
        refused(f"own {name} set", lambda own=own: mlp(hosts(2), strategies=own))
        own_scale.SCALE = 1.0


def main():
    os.environ["RAY_DEDUP_LOGS"] = "0"
    warnings.simplefilter("ignore")
    what, folder = sys.argv[1:3]
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False}
    )
    nodes = [cluster.add_node(num_cpus=4) for _ in range(3)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        if what in ("layouts", "all"):
            layouts(what == "all")
        if what in ("refusals", "layouts", "all"):
            refusals()
        if what in ("losses", "all"):
            losses(cluster, nodes, folder)
    finally:
        phalanx.shutdown()
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()

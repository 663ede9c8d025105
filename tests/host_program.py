"""A program for the tests of hosts: one training, and what becomes of it on this host.

Its arguments are NAME=JSON. It prints "at N" after each epoch, and at the end "digest ..." or
"error NAME MESSAGE" with the seconds since the last epoch, and the digest of the parameters that
its model has then.
"""

import atexit
import gc
import json
import os
import signal
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import psutil
import torch
from torch import nn

import phalanx
from phalanx.clusters import pool
from phalanx.clusters.hosts import machine
from phalanx.run import digest

HOST = int(os.environ.get("RANK", "0"))
told = dict(argument.split("=", 1) for argument in sys.argv[1:])
wishes = {name: json.loads(value) for name, value in told.items()}

mine = wishes.get("only", {}).get(str(HOST), {})  # what is different on this host
wishes |= mine
rng = np.random.default_rng(wishes.get("data_seed", 0))
X = rng.normal(size=(120, 6)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int64)
torch.manual_seed(wishes.get("model_seed", 0))
width = wishes.get("width", 8)
activation = getattr(nn, wishes.get("activation", "Tanh"))
module = nn.Sequential(nn.Linear(6, width), activation(), nn.Linear(width, 2))
if "version" in wishes:
    machine.LIBRARIES += ("laboratory",)
    known = machine._version
    machine._version = lambda name: wishes["version"] if name == "laboratory" else known(name)

calls = 0
last = monotonic()


def loss(outputs, target):
    """The user's own, which may do something in its N-th call on this host."""
    global calls
    calls += 1
    if calls == wishes.get("call"):
        match wishes["action"]:
            case "raise":
                raise ArithmeticError("the loss is broken")
            case "stop":
                if "pid" in wishes:
                    Path(wishes["pid"]).write_text(str(os.getpid()))
                print("stopping", flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
            case "interrupt":
                os.kill(int(os.environ["DRIVER"]), signal.SIGINT)
            case "nan":
                return nn.functional.cross_entropy(outputs * float("nan"), target)
    return nn.functional.cross_entropy(outputs, target)


def ended(epoch, logs):
    global last, shown
    last, shown = monotonic(), parameters()
    print(f"at {epoch}", flush=True)


def parameters():
    values = [parameter.detach().numpy().ravel() for parameter in module.parameters()]
    return digest(np.concatenate(values), np.empty(0))


def end_with(pid):
    """Kill a host at the end of this program, whose threads get no turn any more."""
    sys.setswitchinterval(1000)
    os.kill(pid, signal.SIGKILL)
    until = monotonic() + 1
    while monotonic() < until:
        pass


def check_nothing_is_left():
    pool.shutdown()
    gc.collect()
    assert not psutil.Process().children(recursive=True)
    assert "memfd:phalanx" not in Path("/proc/self/maps").read_text()


os.environ["DRIVER"] = str(os.getpid())
shown = None
options = dict(
    loss=loss, epochs=wishes.get("epochs", 4), batch_size=30, seed=1,
    shards=wishes.get("shards", 4), workers=wishes.get("workers", 1),
    callbacks=[] if wishes.get("silent") else [ended],
)  # fmt: skip
names = (
    "checkpoint",
    "checkpoint_every",
    "resume",
    "mixed",
    "wire",
    "exact",
    "sync_every",
    "clip_norm",
)
options |= {name: wishes[name] for name in names if name in wishes}
if "lr" in wishes:
    options["optimizer"] = torch.optim.Adam(module.parameters(), lr=wishes["lr"])
status = 0
try:
    run = phalanx.fit(module, (X, y), **options)
except Exception as error:
    seconds = monotonic() - last
    print(f"module {parameters()} {parameters() == shown}")
    message = str(error).replace("\n", " | ")
    print(f"error {type(error).__name__} {seconds:.2f} {message}", flush=True)
    status = 3
else:
    print(f"events {json.dumps([[e.what, e.detail] for e in run.events])}")
    print(f"reason {run.reason} {run.epochs} {run.steps}")
    print(f"parameters {parameters()}")
    print(f"digest {run.digest}", flush=True)
check_nothing_is_left()
if "kills" in wishes:
    atexit.register(end_with, int(Path(wishes["kills"]).read_text()))
sys.exit(status)

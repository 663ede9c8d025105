"""Trainings on a Ray cluster: the same digest for any hosts, whichever of them is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import psutil
import pytest

import phalanx
from launched import TOKEN
from phalanx.training.following import Following

ray = pytest.importorskip("ray")

from ray.exceptions import RayActorError  # noqa: E402 - ray is an extra

from phalanx.clusters import wire  # noqa: E402
from phalanx.clusters.ray import driver  # noqa: E402
from phalanx.clusters.ray.driver import Member  # noqa: E402
from phalanx.clusters.ray.host import Host, Order  # noqa: E402

PROGRAM = Path(__file__).with_name("ray_program.py")


def outcomes(part, folder):
    """Of each case of a part of the program, which leaves no process of its own."""
    token = uuid4().hex
    environ = {**os.environ, TOKEN: token}
    done = subprocess.run(
        [sys.executable, PROGRAM, part, folder],
        check=False, capture_output=True, text=True, timeout=600, env=environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = {case.pop("case"): case for case in map(json.loads, lines)}
    assert not list(left_of(token))
    return found


def left_of(token):
    for process in psutil.process_iter(["cmdline", "environ"]):
        command = " ".join(process.info["cmdline"] or ())
        is_one = "ray::Host" in command or "raylet" in command or "forkserver" in command
        if is_one and (process.info["environ"] or {}).get(TOKEN) == token:
            yield command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return outcomes("layouts", tmp_path_factory.mktemp("layouts") / "checkpoints")


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    return outcomes("losses", tmp_path_factory.mktemp("losses") / "checkpoints")


@pytest.mark.parametrize("kind", ["mlp", "cnn", "keras_cnn"])
def test_digests_are_equal_for_any_hosts_and_workers(trained, kind):
    alone = trained[f"{kind} alone"]["digest"]
    others = {name: case for name, case in trained.items() if name.startswith(f"{kind} ")}
    assert len(others) >= 3
    for name, case in others.items():
        assert case["digest"] == alone, name
        if "x" in name.split()[1]:
            assert f"{case['hosts']}x{case['workers']}" == name.split()[1]


@pytest.mark.parametrize("name", ["aggregation", "data_distribution", "task_assignment"])
def test_functions_that_are_others_on_the_nodes_are_refused(trained, name):
    """They read a value that was set in the caller's process alone."""
    assert trained[f"own {name} on a host"] == trained[f"own {name} alone"]
    case = trained[f"own {name} set"]
    assert "own_scale.SCALE is 3.0 for the caller and 1.0 for a worker" in case["error"]
    assert case["kind"] == wire.Unreadable.__name__
    assert case["seconds"] < 60


@pytest.mark.parametrize("loss", ["a worker killed", "a host killed", "a raylet killed"])
def test_who_is_lost_changes_nothing(disturbed, loss):
    assert disturbed[loss]["digest"] == disturbed["undisturbed"]["digest"]
    assert disturbed[loss]["is_told_each_once"]


def test_a_lost_host_is_replaced(disturbed):
    assert disturbed["a host killed"]["hosts"] == 2
    assert "hosts changed" in disturbed["a host killed"]["events"][0]
    assert disturbed["a raylet killed"]["hosts"] == 3


def test_too_few_hosts_end_in_an_error_and_the_checkpoint_is_there(disturbed):
    case = disturbed["too few hosts"]
    assert case["error"].startswith("min_hosts=3 nodes with 1 CPUs must be there")
    assert case["checkpoints"]
    assert disturbed["gone on"]["digest"] == disturbed["undisturbed"]["digest"]


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ("too few nodes", "TooFewHosts", "min_hosts=9 nodes"),
        ("too many CPUs", "TooFewHosts", "99 CPUs"),
        ("a callback raises", "KeyError", "of the caller's own"),
        ("a loss that is NaN", "NonFiniteLoss", "the loss must be finite"),
    ],
)
def test_what_cannot_be_done_is_said_in_time(trained, case, kind, words):
    assert trained[case]["kind"] == kind
    assert words in trained[case]["error"]
    assert trained[case]["seconds"] < 60


def test_a_callback_of_the_caller_may_stop(trained):
    assert trained["a callback stops"] == {"epochs": 4, "reason": "callback"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "auto"])
def test_no_ray_at_the_address(address):
    clf = phalanx.MLPClassifier((4,), max_iter=1)
    with pytest.raises(phalanx.InvalidInput, match="there must be a Ray cluster at the address"):
        clf.fit([[0.0], [1.0]] * 20, [0, 1] * 20, cluster=phalanx.RayCluster(address))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": 6379}, "address must be a text"),
        ({"hosts": 0}, "hosts must be an integer at least 1"),
        ({"hosts": 2, "min_hosts": 3}, "min_hosts must be an integer at least 1 and at most 2"),
        ({"workers_per_host": 0}, "workers_per_host must be"),
        ({"gpus_per_host": -1}, "gpus_per_host must be"),
        ({"mixed": "accept"}, "mixed must be one of"),
        ({"patience": 0}, "patience must be a number above 0"),
        ({"host_seconds": "20"}, "host_seconds must be a number"),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(phalanx.InvalidInput, match=words):
        phalanx.RayCluster(**options)


def test_numbers_of_numpy_are_pythons():  # Ray takes no others
    asked = phalanx.RayCluster(
        hosts=np.int64(2), workers_per_host=np.int8(2), patience=np.float32(5)
    )
    assert asked == phalanx.RayCluster(hosts=2, workers_per_host=2, patience=5.0)
    assert [type(n) for n in (asked.hosts, asked.workers_per_host, asked.patience)] == [
        int, int, float,
    ]  # fmt: skip


def test_what_is_no_cluster():
    with pytest.raises(phalanx.InvalidInput, match=r"cluster must be a phalanx\.RayCluster"):
        phalanx.MLPClassifier((4,)).fit([[0.0], [1.0]], [0, 1], cluster="ray://head:10001")


def test_lbfgs_has_no_cluster():
    clf = phalanx.MLPClassifier((4,), solver="lbfgs")
    with pytest.raises(phalanx.InvalidInput, match="cluster can be used where"):
        clf.fit([[0.0], [1.0]] * 20, [0, 1] * 20, cluster=phalanx.RayCluster())


class Actor:
    """A host as its driver sees it: it takes what it is told, until it is dead."""

    def __init__(self, has_begun=True):
        self.told, self.is_dead = [], False
        self.says = {"listen": 4321, "has_begun": has_begun}

    def __getattr__(self, name):
        def remote(*told):
            self.told.append((name, *told))
            return self

        return SimpleNamespace(remote=remote)


class Calls:
    """Of Ray's, those that a driver makes to order hosts into a group."""

    def put(self, work):
        return work

    def remote(self, **options):
        return lambda host: host

    def get(self, refs, timeout=None):
        actors = refs if isinstance(refs, list) else [refs]
        if any(actor.is_dead for actor in actors):
            raise RayActorError
        said = [actor.says.get(actor.told[-1][0]) for actor in actors]
        return said if isinstance(refs, list) else said[0]

    def wait(self, refs, num_returns, timeout):
        return refs[:num_returns], refs[num_returns:]

    def kill(self, actor):
        pass


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first", "second"])
def test_who_trains_alone_is_paused_for_who_is_left_of_two_newcomers(order, monkeypatch):
    """In whichever order they came: one of the two has died before it was told of the group."""
    monkeypatch.setattr(driver, "ray", Calls())
    forming = driver.Driver(phalanx.RayCluster(hosts=3), None, (None, Following()))
    alone, dead, left = (Member(Actor(), name, "127.0.0.1") for name in ("a", "b", "c"))
    forming.members = [alone, dead, left]
    forming._form([alone])
    dead.actor.is_dead = True
    forming._form([alone, dead, left])
    forming._lose(dead)
    forming._form([(alone, left)[which] for which in order])
    assert ("pause", 3) in alone.actor.told


@pytest.mark.parametrize("left", ["began", "met nobody", "died as well"])
def test_who_has_met_nobody_does_not_begin_anew_what_callers_have_seen(left, monkeypatch):
    """Of a lone host and a newcomer, the first one dies after it has told of three epochs."""
    monkeypatch.setattr(driver, "ray", Calls())
    forming = driver.Driver(phalanx.RayCluster(), None, (None, Following()))
    alone = Member(Actor(), "a", "127.0.0.1")
    newcomer = Member(Actor(has_begun=left != "met nobody"), "b", "127.0.0.1")
    forming.members = [alone, newcomer]
    forming._form([alone])
    forming._epoch = 3, (False, None)
    forming._form([alone, newcomer])
    forming._lose(alone)
    newcomer.actor.is_dead = left == "died as well"
    if left == "began":
        forming._form([newcomer])
        assert generations_of(newcomer) == [2, 3]
        return
    with pytest.raises(phalanx.HostLost, match="all were lost at once"):
        forming._form([newcomer])


def generations_of(member):
    """Of the groups that a member was ordered into."""
    return [told[1].generation for told in member.actor.told if told[0] == "order"]


def test_an_order_does_not_break_off_the_group_that_it_makes():
    class Group:
        broken = None

        def interrupt(self, why):
            self.broken = why

    class Orders:
        def put(self, order):
            host._group = after  # in the thread that trains

    host, before, after = Host(1.0), Group(), Group()
    host._group, host._orders = before, Orders()
    host.order(Order(None, 2), interrupts=True)
    assert before.broken == "no longer belongs to the group"
    assert after.broken is None

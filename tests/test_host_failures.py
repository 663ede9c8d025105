"""Hosts that fail: whoever is left says so in bounded time, stands at the last step that was
committed, and leaves nothing."""

import json
import re
import signal
import socket
from datetime import timedelta
from functools import cache
from time import monotonic

import pytest
from torch.distributed import TCPStore

import warm_start
from launched import Launched, error_of, program

EPOCHS = 150
SOON = 8  # seconds in which a host that has failed is noticed; half as many on an idle machine


pytestmark = pytest.mark.usefixtures("warm")


def launched(count=2, environ=None, **wishes):
    return Launched(count, program(**wishes), popen=warm_start.current.popen, **(environ or {}))


@cache
def undisturbed(**wishes):
    with launched(1, **wishes) as alone:
        alone[0].until("digest ")
        return alone[0].read[-1]


@pytest.mark.parametrize(("victim", "workers"), [(0, 1), (1, 2)])
def test_a_host_is_killed_and_the_program_started_again(tmp_path, victim, workers):
    folder = str(tmp_path / "checkpoints")
    wishes = dict(epochs=EPOCHS, checkpoint=folder, checkpoint_every="1000 epochs", workers=workers)
    with launched(2, **wishes, resume=True) as hosts:
        hosts[1 - victim].until("at 3")
        began = monotonic()
        hosts[victim].signal(signal.SIGKILL)
        hosts[1 - victim].until("error ")
        took = monotonic() - began
        print(f"host {victim} of 2x{workers} killed: told after {took:.1f} s")
        name, _, message = error_of(hosts[1 - victim])
        assert name == "HostLost"
        assert took < SOON
        assert f"host {victim}" in message or "another host" in message
        module = next(line for line in hosts[1 - victim].read if line.startswith("module"))
        epochs = sum(line.startswith("at ") for line in hosts[1 - victim].read)
    if victim == 1:
        (path,) = (tmp_path / "checkpoints").glob("step-*")
        step = int(re.search(r"\d+", path.name)[0])
        assert 4 * epochs <= step <= 4 * epochs + 4
        assert module.endswith(str(step == 4 * epochs))
    assert 3 <= epochs < EPOCHS, "it was killed in between"
    with launched(2, **wishes, resume=True) as hosts:
        for host in hosts.hosts:
            host.until("digest ")
            assert host.read[-1] == undisturbed(epochs=EPOCHS)
        hosts.ends()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_host_that_stands_still_is_lost(victim):
    only = {str(victim): {"call": 41, "action": "stop"}}
    with launched(2, {"PHALANX_HOST_SECONDS": "3"}, epochs=400, only=only) as hosts:
        hosts[victim].until("stopping")
        began = monotonic()
        hosts[1 - victim].until("error ")
        took = monotonic() - began
        print(f"host {victim} stopped: told after {took:.1f} s")
        name, _, message = error_of(hosts[1 - victim])
        assert name == "HostLost"
        assert f"host {victim} has given no sign of life for 3 s" in message
        assert 2 < took < 3 + SOON
        hosts[victim].signal(signal.SIGCONT)
        name, _, message = error_of(hosts[victim])
        assert name == "HostLost"


def test_an_exchange_that_ends_while_the_program_does(tmp_path):
    """It holds arrays, which only a whole interpreter can free."""
    path = str(tmp_path / "pid")
    only = {"0": {"kills": path}, "1": {"call": 41, "action": "stop", "pid": path}}
    with launched(2, {"PHALANX_HOST_SECONDS": "1"}, epochs=400, only=only) as hosts:
        assert error_of(hosts[0])[0] == "HostLost"
        hosts[1].ends(-signal.SIGKILL)


@pytest.mark.parametrize(
    ("action", "name", "told"),
    [
        ("raise", "ArithmeticError", "the loss is broken"),
        ("nan", "NonFiniteLoss", "the loss must be finite"),
    ],
)
def test_an_exception_on_one_host_is_named_on_the_others(action, name, told):
    with launched(2, epochs=EPOCHS, only={"1": {"call": 41, "action": action}}) as hosts:
        found, seconds, message = error_of(hosts[1])
        assert found == name
        assert told in message
        found, seconds, message = error_of(hosts[0])
        assert found == "HostLost"
        assert f"host 1 has failed: {name}" in message
        assert told in message
        assert seconds < SOON
        lines = [line for line in hosts[0].read if line.startswith("module")]
        assert len(lines) == 1


@pytest.mark.parametrize(
    ("only", "fact"),
    [
        ({"data_seed": 5}, "data"),
        ({"width": 9}, "model"),
        ({"model_seed": 5}, "initial parameters"),
        ({"clip_norm": 0.5}, "clip"),
        ({"epochs": 5}, "max_epochs"),
        ({"wire": "bf16"}, "wire"),
        ({"exact": False}, "exact"),
        ({"sync_every": 2}, "model"),
        ({"activation": "ReLU"}, "module: 1"),
        ({"lr": 0.5}, "settings: lr of group 0"),
        ({"version": "1.1"}, "laboratory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hosts_that_disagree_do_not_begin(only, fact):
    with launched(2, version="1.0", only={"1": only}) as hosts:
        for host in hosts.hosts:
            name, _, message = error_of(host)
            assert name == "HostsDiffer"
            assert f"{fact} (" in message
            assert "at 1" not in host.read


def test_versions_that_differ_can_be_flagged():
    with launched(2, version="1.0", only={"1": {"version": "1.1"}}, mixed="flag") as hosts:
        for host in hosts.hosts:
            (events,) = [json.loads(host.until("events "))]
            assert events == [["hosts differ", "laboratory ('1.0' on host 0, '1.1' on host 1)"]]
            host.until("digest ")
            assert host.read[-1] == undisturbed()
        hosts.ends()


class TestJoining:
    def fails(self, environ, status=3, count=1, **more):
        """The first host's error, where it is launched with an environment that is not right."""
        began = monotonic()
        environ = {"PHALANX_JOIN_SECONDS": "2", **environ}
        with launched(count, environ, **more) as hosts:
            found = error_of(hosts[0], status)
        print(f"{found[0]} after {monotonic() - began:.1f} s")
        return found

    def test_a_rank_that_never_comes(self):
        name, _, message = self.fails({"WORLD_SIZE": "3"})
        assert name == "HostLost"
        assert "host 1 did not come within 2 s, and 1 more" in message

    def test_nobody_listens_at_the_address(self):
        name, _, message = self.fails({"WORLD_SIZE": "2", "RANK": "1"})
        assert name == "HostLost"
        assert "host 0 did not answer at 127.0.0.1:" in message

    def test_an_address_that_does_not_exist(self):
        for rank in "01":
            environ = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "no.such.host.invalid"}
            name, _, message = self.fails(environ)
            assert name in ("HostLost", "InvalidInput")
            assert "no.such.host.invalid" in message

    def test_an_address_of_another_host(self):
        name, _, message = self.fails({"WORLD_SIZE": "2", "MASTER_ADDR": "203.0.113.7"})
        assert name == "InvalidInput"
        assert "an address of this host" in message

    def test_a_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            name, _, message = self.fails({"WORLD_SIZE": "2", "MASTER_PORT": str(port)})
        assert name == "InvalidInput"
        assert f"127.0.0.1:{port}" in message
        assert "Choose a port that is free" in message

    def test_something_else_listens_at_the_port(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            environ = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": str(port)}
            name, _, message = self.fails(environ)
        assert name == "HostLost"
        assert f"did not answer at 127.0.0.1:{port}" in message

    @pytest.mark.parametrize(
        "environ",
        [{"RANK": "2"}, {"WORLD_SIZE": "x"}, {"MASTER_PORT": "no"}, {"GLOO_SOCKET_IFNAME": "no7"}],
        ids=lambda environ: next(iter(environ)),
    )
    def test_a_bad_environment(self, environ):
        name, _, message = self.fails({"WORLD_SIZE": "2", **environ}, count=1)
        assert name == "InvalidInput"
        assert next(iter(environ)) in message

    def test_a_host_that_dies_when_all_have_come(self):
        with launched(1, {"WORLD_SIZE": "2", "PHALANX_HOST_SECONDS": "2"}) as hosts:
            store = TCPStore("127.0.0.1", hosts.port, 2, False, timedelta(seconds=30))
            store.set("phalanx/here/0/1", "here")
            name, _, message = error_of(hosts[0])
            del store
        assert name == "HostLost"
        assert "another host did not connect within 2 s" in message

    def test_two_hosts_of_the_same_number(self):
        each = {"each": {1: {"RANK": "0"}}}
        with launched(2, {"PHALANX_JOIN_SECONDS": "3", **each}) as hosts:
            names = sorted(error_of(host)[0] for host in hosts.hosts)
        assert names == ["HostLost", "InvalidInput"]

"""Two hosts and a network between them: what crosses it, and what becomes of them if it is cut."""

import sys
from functools import cache
from pathlib import Path
from time import monotonic

import pytest

from launched import Launched, error_of, program

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from netlab import Lab, why_not

pytestmark = pytest.mark.skipif(bool(reason := why_not()), reason=f"no laboratory here: {reason}")

WIDTH = 110_000
N = 9 * WIDTH + 2  # parameters: 6 + 1 + 2 for each hidden neuron, and two biases
STEPS = 4 * 4
SETTINGS = dict(width=WIDTH, shards=2, silent=True)
BOUND = 4  # PHALANX_HOST_SECONDS


def launched(lab, environ=None, **wishes):
    return Launched(
        2, program(**wishes), lambda host, count, port: lab.environment(host), lab.popen,
        **(environ or {}),
    )  # fmt: skip


def result(host):
    host.until("digest ")
    return host.read[-1]


@cache
def alone(**more):
    with Launched(1, program(**SETTINGS, **more)) as hosts:
        return result(hosts[0])


@pytest.mark.parametrize(("wire", "itemsize"), [("exact", 4), ("bf16", 2)])
def test_a_gradient_crosses_once_each_way(wire, itemsize):
    with Lab() as lab:
        with launched(lab, **SETTINGS, wire=wire) as hosts:
            assert [result(host) for host in hosts.hosts] == [alone(wire=wire)] * 2
            hosts.ends()
        needed = 2 * N * (2 - 1) / 2 * itemsize * STEPS
        for host in range(2):
            sent = lab.bytes_sent(host) - lab.bytes_sent_again(host)
            ratio = sent / needed  # with all headers: 66 bytes on every 1448
            print(f"{wire}, host {host}: {ratio:.4f} times what must cross")
            assert 1.0 < ratio < 1.1


def test_a_cut_in_mid_step_ends_both_hosts():
    endless = SETTINGS | {"silent": False, "epochs": 10**6}
    with (
        Lab(rate="100mbit") as lab,  # a step's bytes take a third of a second
        launched(lab, {"PHALANX_HOST_SECONDS": str(BOUND)}, **endless) as hosts,
    ):
        hosts[0].until("at 2")
        lab.cut(1)
        began = monotonic()
        for host in hosts.hosts:
            host.until("error ")
            print(f"told {monotonic() - began:.1f} s after the cut")
            assert monotonic() - began < BOUND + 5
        for host in hosts.hosts:  # which end although operations are stuck
            name, _, message = error_of(host)
            assert name == "HostLost"
            assert "no sign of life" in message or "gone" in message

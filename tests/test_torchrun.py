"""Real programs on several hosts, by torchrun, by SLURM's environment and by hand: what they train
does not depend on how many hosts and workers there are."""

import json
import sys

import pytest

import warm_start
from launched import Launched, by_hand, by_slurm, script

KINDS = ("mlp", "torch", "keras", "linear")
ALL = (
    *KINDS, "lbfgs", "wire", "rounded", "rounds", "saved", "ended", "stopped", "plateau", "resized",
    "verbose", "interrupted",
)  # fmt: skip
LAYOUTS = {
    (1, 4): KINDS,
    (2, 1): ALL,
    (2, 2): (*KINDS, "killed", "interrupted", "saved"),
    (3, 2): KINDS,
    (4, 1): KINDS,
}  # of hosts and workers: what they train


pytestmark = pytest.mark.usefixtures("warm")


def found(host, cases):
    return {case: json.loads(host.until(f"{case} ")) for case in cases}


def on_hosts(count, workers, cases, folder, environment=by_hand, **more):
    argv = script("host_cases.py", folder, workers, *cases)
    with Launched(count, argv, environment, warm_start.current.popen, **more) as hosts:
        results = [found(host, cases) for host in hosts.hosts]
        hosts.ends()
        return results, [others(host.read, cases) for host in hosts.hosts]


def others(lines, cases):
    return [line for line in lines if line.split(" ")[0] not in cases]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, warm):
    """What one worker on one host makes of each case, as the workers of the others should."""
    cases = [case for case in ALL if case not in ("interrupted",)]
    (results,), (printed,) = on_hosts(1, 1, cases, tmp_path_factory.mktemp("alone"))
    return {**results, "printed": printed}


def comparable(case, result):
    """Less what is rightly different: how many hosts there were."""
    if "figures" in result:
        losses, scores, reason, steps, _, strategies = result["figures"]
        return result | {"figures": [losses, scores, reason, steps, strategies]}
    return result


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "x".join(map(str, layout)))
def test_the_answer_is_that_of_one_worker(layout, tmp_path, alone):
    (count, workers), cases = layout, LAYOUTS[layout]
    environment = by_slurm if layout == (4, 1) else by_hand
    results, printed = on_hosts(count, workers, cases, tmp_path, environment)
    for host, result in enumerate(results):
        assert result == results[0], "all hosts record the same"
        for case in set(cases) - {"killed", "interrupted", "verbose"}:
            assert comparable(case, result[case]) == comparable(case, alone[case]), (host, case)
            assert result[case]["figures"][4] == count
        if "killed" in cases:
            assert result["killed"]["digest"] == [alone["mlp"]["digest"]]
        if "interrupted" in cases:
            assert result["interrupted"]["figures"][2] == "interrupted"
        if "wire" in cases:
            assert result["wire"]["figures"][5]["wire"] == "bf16"
            assert result["rounded"]["figures"][5]["wire"] == "fp16"
            assert result["rounds"]["figures"][5]["sync_every"] == "2"
        if "stopped" in cases:
            assert result["stopped"]["figures"][2] == "callback"
            assert len(result["plateau"]["figures"][0]) < 9
        if "verbose" in cases:
            assert bool(printed[host]) == (host == 0)
    if "verbose" in cases:
        assert sum("loss" in line for line in printed[0]) == sum(
            "loss" in line for line in alone["printed"]
        )


def test_the_mean_of_a_hosts_shards_does_not_depend_on_its_workers(tmp_path):
    cases = ["means", "summed"]
    (alone,), _ = on_hosts(1, 1, cases, tmp_path)
    found = []
    for workers in (1, 2):
        results, _ = on_hosts(2, workers, cases, tmp_path / str(workers))
        assert results[0] == results[1]
        found.append(results[0])
    assert found[0] == found[1]
    for case in cases:
        losses, *_, strategies = found[0][case]["figures"]
        assert strategies["exact"] == "False"
        assert losses == pytest.approx(alone[case]["figures"][0], rel=1e-4)


def test_hosts_of_lbfgs_that_come_to_different_weights_say_so(tmp_path):
    """SciPy runs on each by itself: they would wait for each other in other evaluations."""
    results, _ = on_hosts(2, 1, ["unlike"], tmp_path)
    for found in results:
        assert "after as many as 1 evaluations of L-BFGS they are at others" in found["unlike"]


def test_by_torchrun(tmp_path, alone):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    program = script("host_cases.py", tmp_path, 1, "mlp")
    argv = [*torchrun, "--no-python", "--standalone", *program]
    with Launched(1, argv, lambda *_: {"OMP_NUM_THREADS": "1"}) as hosts:
        digests = {json.loads(hosts[0].until("mlp "))["digest"] for _ in range(2)}
        hosts.ends()
    assert digests == {alone["mlp"]["digest"]}

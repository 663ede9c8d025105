"""The pure parts of training on several hosts: who does what, who differs, what is rounded, and how
a process was launched."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from threadpoolctl import threadpool_info

from phalanx.clusters.hosts.launch import JOINED, N_PORTS, Launch, cores, first_node, launch, speaks
from phalanx.clusters.hosts.machine import fingerprint
from phalanx.errors import InvalidInput
from phalanx.exchange.processors import processors
from phalanx.pure.agreement import differences, listed
from phalanx.pure.hosts import (
    ALONE,
    MESSAGE_BYTES,
    Place,
    block_parts,
    dividing_pays,
    elements,
    parts,
)
from phalanx.pure.layout import Kind, Region, blocks_of
from phalanx.pure.rounding import _STRETCH, EXACT, ROUNDINGS

counts = st.integers(1, 12)
regions = st.lists(
    st.tuples(st.integers(1, 40_000), st.sampled_from(Kind), st.booleans()), min_size=1, max_size=5
)


def flat(ranges):
    return [task for part in ranges for task in part]


def laid(sizes):
    """Regions end to end."""
    ends = np.cumsum([0, *(size for size, *_ in sizes)]).tolist()
    return [
        Region(start, stop, kind, 0, is_whole)
        for start, stop, (_, kind, is_whole) in zip(ends, ends[1:], sizes, strict=False)
    ]


class TestParts:
    @given(st.integers(0, 50), counts)
    def test_every_task_once_in_order_and_evenly(self, n_tasks, n_hosts):
        found = parts(n_tasks, n_hosts)
        assert len(found) == n_hosts
        assert flat(found) == list(range(n_tasks))
        assert max(map(len, found)) - min(map(len, found)) <= 1

    @given(regions, counts)
    def test_every_block_once_in_order_and_every_element(self, sizes, n_hosts):
        blocks = blocks_of(laid(sizes))
        found = block_parts(blocks, n_hosts)
        assert len(found) == n_hosts
        assert flat(found) == list(range(len(blocks)))
        bounds = [elements(blocks, part) for part in found]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == blocks[-1].stop
        assert all(a[1] == b[0] for a, b in zip(bounds, bounds[1:], strict=False))
        for part, (start, stop) in zip(found, bounds, strict=True):
            assert stop - start == sum(blocks[k].stop - blocks[k].start for k in part)

    @given(regions, counts)
    def test_no_host_reduces_much_more_than_its_part(self, sizes, n_hosts):
        blocks = blocks_of(laid(sizes))
        largest = max(block.stop - block.start for block in blocks)
        fair = blocks[-1].stop / n_hosts
        for part in block_parts(blocks, n_hosts):
            start, stop = elements(blocks, part)
            assert stop - start <= fair + largest

    @given(st.integers(1, 64), counts, st.integers(0, 10**7))
    def test_blocks_are_divided_where_that_saves_a_message_worth_of_bytes(self, s, h, n_bytes):
        shards = max(map(len, parts(s, h)))
        whole = shards * n_bytes * (h - 1)
        divided = (shards + 1) * n_bytes * (h - 1) / h
        assert dividing_pays(s, h, n_bytes) == (whole > divided + MESSAGE_BYTES)

    def test_places(self):
        assert ALONE.is_alone
        assert ALONE.is_first
        assert not Place(1, 2).is_first
        assert not Place(0, 2).is_alone


NO_BLAS = {"Build Dependencies": {"blas": None}}


class TestAgreement:
    @given(st.dictionaries(st.text(), st.integers(), max_size=4), counts)
    def test_those_who_are_alike_do_not_differ(self, facts, n_hosts):
        assert differences([dict(facts) for _ in range(n_hosts)]) == []

    def test_the_first_host_that_differs_is_named(self):
        facts_H = [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 4}]
        assert differences(facts_H) == ["b (2 on host 0, 3 on host 1)"]

    def test_a_fact_that_only_one_host_knows_is_a_difference(self):
        assert differences([{}, {"keras": "3"}]) == ["keras (None on host 0, '3' on host 1)"]
        assert differences([{"keras": "3"}, {}]) == ["keras ('3' on host 0, None on host 1)"]

    def test_a_long_fact_is_cut(self):
        (found,) = differences([{"model": "x" * 999}, {"model": "y"}])
        assert found.startswith("model ('xxx")
        assert "x... on host 0" in found
        assert len(found) < 120

    def test_of_many_differences_the_first_are_named(self):
        assert listed(["a", "b"]) == "a; b"
        assert listed([str(i) for i in range(12)]).endswith("; 8; and 3 more")

    @pytest.mark.parametrize("library", ["numpy", "scipy"])
    def test_the_same_release_with_another_blas_is_another_machine(self, library, monkeypatch):
        here = fingerprint()
        blas = {"name": "mkl", "version": "2026.1"}
        dependencies = {"Build Dependencies": {"blas": blas}}
        monkeypatch.setattr(f"{library}.show_config", lambda mode: dependencies)
        (found,) = differences([here, fingerprint()])
        assert found.startswith(f"BLAS of {library} (")
        assert found.endswith("'mkl 2026.1' on host 1)")

    @pytest.mark.parametrize("said", [{}, {"Build Dependencies": {}}, NO_BLAS])
    def test_a_library_need_not_say_its_blas(self, said, monkeypatch):
        monkeypatch.setattr("numpy.show_config", lambda mode: said)
        assert fingerprint()["BLAS of numpy"] == "unknown"

    @pytest.mark.parametrize("change", [{"architecture": "Nehalem"}, {"internal_api": "mkl"}])
    def test_other_kernels_make_another_machine(self, change, monkeypatch):
        here, loaded = fingerprint(), threadpool_info()
        changed = [facts | change for facts in loaded]
        monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: changed)
        (found,) = differences([here, fingerprint()])
        assert found.startswith("loaded BLAS (")
        assert next(iter(change.values())) in found

    def test_blas_that_another_library_brings_is_left_out(self, monkeypatch):
        here, loaded = fingerprint(), threadpool_info()
        theirs = {"user_api": "blas", "filepath": "/elsewhere/libblas.so", "internal_api": "blis"}
        monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: [*loaded, theirs])
        assert differences([here, fingerprint()]) == []
        monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: [theirs])
        assert fingerprint()["loaded BLAS"] == "blis ? ?"


SPECIAL = np.array(
    [0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-40, -1e-45, 3.4028235e38, 65_504, 65_520, 1e-8],
    np.float32,
)


def rounded(name, values_n):
    with np.errstate(all="ignore"):  # as workers have it: too much for 16 bits is infinite
        return ROUNDINGS[name].apply(values_n.copy())


def bits(values_n):
    return values_n.view(f"u{values_n.dtype.itemsize}")


def assert_same_bits(one, other):
    np.testing.assert_array_equal(bits(one), bits(other))


def patterns(seed, n, dtype=np.float32):
    """Float32 of every kind: all bits are drawn."""
    values_n = np.random.default_rng(seed).integers(0, 2**32, n, np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):  # a NaN that signals
        return np.concatenate([SPECIAL, values_n])[:n].astype(dtype)


class TestRounding:
    @given(arrays.arrays(np.uint32, st.integers(0, 40)))
    def test_bf16_is_torchs(self, drawn_n):
        values_n = drawn_n.view(np.float32)
        expected = torch.from_numpy(values_n.copy()).to(torch.bfloat16).float().numpy()
        found = rounded("bf16", values_n)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        assert_same_bits(found[~np.isnan(found)], expected[~np.isnan(found)])

    @pytest.mark.parametrize("low", [0x0000, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    @pytest.mark.parametrize("sign", [0, 0x8000])
    def test_bf16_is_torchs_between_any_two_neighbours(self, low, sign):
        upper_n = np.arange(0x7F80, dtype=np.uint32) | sign  # ties among them, and subnormals
        values_n = ((upper_n << 16) | low).view(np.float32)
        expected = torch.from_numpy(values_n.copy()).to(torch.bfloat16).float().numpy()
        assert_same_bits(rounded("bf16", values_n), expected)

    def test_fp16_is_numpys(self):
        values_n = patterns(0, 5000)
        with np.errstate(all="ignore"):
            expected = values_n.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(rounded("fp16", values_n), expected)
        assert np.isinf(rounded("fp16", np.array([65_520], np.float32)))

    @pytest.mark.parametrize("name", ["bf16", "fp16"])
    def test_float64(self, name):
        values_n = patterns(1, 5000, np.float64)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
        expected = torch.from_numpy(values_n.copy()).to(dtype).double().numpy()
        np.testing.assert_array_equal(rounded(name, values_n), expected)
        assert rounded(name, values_n).dtype == np.float64

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("name", sorted(ROUNDINGS))
    @pytest.mark.parametrize("n", [0, 1, _STRETCH - 1, _STRETCH, 2 * _STRETCH + 7])
    def test_what_is_rounded_travels_unchanged(self, name, dtype, n):
        rounding, values_n = ROUNDINGS[name], patterns(2, n, dtype)
        values_n = rounded(name, values_n)
        assert_same_bits(rounded(name, values_n), values_n)
        packed_n = np.empty(n, rounding.dtype or dtype)
        rounding.pack(values_n, packed_n)
        arrived_n = np.empty_like(values_n)
        rounding.unpack(packed_n, arrived_n)
        assert_same_bits(arrived_n, values_n)

    def test_half_as_many_bytes(self):
        assert ROUNDINGS[EXACT].dtype is None
        assert all(ROUNDINGS[name].dtype.itemsize == 2 for name in ("bf16", "fp16"))


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "gpu[07-09,12],x",
    "SLURM_JOB_ID": "123456",
}  # fmt: skip


class TestLaunch:
    @pytest.mark.parametrize(
        "environ",
        [
            {},
            {"RANK": "1"},
            {"WORLD_SIZE": "4"},
            {"SLURM_PROCID": "0"},
            {"RANK": "0", "WORLD_SIZE": "1"},
            {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
            {**TORCHRUN, JOINED: "1"},
            {**SLURM, JOINED: "1"},
        ],
    )
    def test_alone(self, environ):
        assert launch(environ) is None
        assert speaks(environ)
        assert cores(environ) == processors()

    def test_by_torchrun(self):
        assert launch(TORCHRUN) == Launch(Place(1, 3), "10.0.0.1", 29500)
        how = launch({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True"})
        assert how.has_store
        assert not speaks(TORCHRUN)
        assert speaks({**TORCHRUN, "RANK": "0"})

    def test_by_slurm(self):
        assert launch(SLURM) == Launch(Place(2, 4), "gpu07", 20_000 + 123_456 % N_PORTS)
        named = {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "1234"}
        assert launch(SLURM | named) == Launch(Place(2, 4), "10.0.0.7", 1234)
        without = {k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}
        assert launch({**without, "SLURM_JOB_NODELIST": "a1,a2"}).address == "a1"
        with pytest.raises(InvalidInput, match="SLURM_STEP_NODELIST"):
            launch(without)

    def test_torchrun_within_slurm(self):
        assert launch(SLURM | TORCHRUN) == launch(TORCHRUN)

    def test_the_process_that_took_the_place_keeps_it(self):
        assert launch({**TORCHRUN, JOINED: str(os.getpid())}) == launch(TORCHRUN)

    def test_interface_and_bounds(self):
        more = {
            "GLOO_SOCKET_IFNAME": "eth1,eth2", "PHALANX_JOIN_SECONDS": "5",
            "PHALANX_HOST_SECONDS": "2.5",
        }  # fmt: skip
        how = launch(TORCHRUN | more)
        assert (how.interface, how.join_seconds, how.host_seconds) == ("eth1", 5, 2.5)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("RANK", "3"), ("RANK", "-1"), ("RANK", "one"), ("RANK", ""), ("RANK", "1.0"),
            ("RANK", "²"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", "many"), ("MASTER_ADDR", ""),
            ("MASTER_PORT", ""), ("MASTER_PORT", "0"), ("MASTER_PORT", "65536"),
            ("PHALANX_JOIN_SECONDS", "0"), ("PHALANX_JOIN_SECONDS", "-1"),
            ("PHALANX_JOIN_SECONDS", "inf"), ("PHALANX_JOIN_SECONDS", "1e30"),
            ("PHALANX_HOST_SECONDS", "nan"), ("PHALANX_HOST_SECONDS", "soon"),
            ("PHALANX_HOST_SECONDS", ""),
        ],
    )  # fmt: skip
    def test_a_bad_value_is_named(self, name, value):
        with pytest.raises(InvalidInput, match=name):
            launch(TORCHRUN | {name: value})

    @pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID"])
    def test_a_bad_value_of_slurm_is_named(self, name):
        with pytest.raises(InvalidInput, match=name):
            launch(SLURM | {name: "x"})

    @pytest.mark.parametrize("missing", ["MASTER_ADDR", "MASTER_PORT"])
    def test_a_meeting_point_is_needed(self, missing):
        environ = {name: value for name, value in TORCHRUN.items() if name != missing}
        with pytest.raises(InvalidInput, match=f"got no {missing}"):
            launch(environ)

    @pytest.mark.parametrize(
        ("nodes", "first"),
        [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("gpu[07-09,12],login1", "gpu07"),
            ("gpu[12,07]", "gpu12"),
            ("gpu[003]", "gpu003"),
            ("n[1-3]-ib", "n1-ib"),
            ("n[1-3]-ib,m[4-5]", "n1-ib"),
            ("a-b.example.org,c", "a-b.example.org"),
            ("cn-0017,cn-[0020-0031]", "cn-0017"),
            ("rack[0-3]node[02-07]", "rack0node02"),
            ("r[1,3]c[4]n[5-6]-x,y", "r1c4n5-x"),
        ],
    )
    def test_the_first_node_of_a_list(self, nodes, first):
        assert first_node(nodes) == first

    @pytest.mark.parametrize("nodes", ["", ",", "[1-2]", "(null)"])
    def test_no_list_of_nodes(self, nodes):
        with pytest.raises(InvalidInput, match="SLURM"):
            first_node(nodes)

    @given(st.text("abcxyz019-.", min_size=1), st.integers(0, 99), st.integers(0, 99))
    def test_the_first_of_a_range(self, name, low, more):
        assert first_node(f"{name}[{low:03}-{low + more:03}],{name}") == f"{name}{low:03}"

    def test_cores_are_shared_by_the_hosts_of_a_machine(self):
        assert cores({**TORCHRUN, "LOCAL_WORLD_SIZE": "1"}) == processors()
        assert cores({**TORCHRUN, "LOCAL_WORLD_SIZE": "2"}) == max(1, processors() // 2)
        assert cores({**TORCHRUN, "LOCAL_WORLD_SIZE": "999"}) == 1
        assert cores({"LOCAL_WORLD_SIZE": "999"}) == processors(), "nobody launched it"

    @pytest.mark.parametrize("beside", ["0", "x", "", "-2"])
    def test_cores_where_their_number_makes_no_sense(self, beside):
        assert cores({**TORCHRUN, "LOCAL_WORLD_SIZE": beside}) == processors()

    def test_a_child_is_alone_though_its_parent_has_not_fitted_yet(self):
        """As those of a grid search, which are the first to fit."""
        told = "from phalanx.clusters.hosts.launch import launch; print(launch() is None)"
        program = (
            "import subprocess, sys; from phalanx import MLPClassifier; "
            f"exec({told!r}, {{}}); sys.stdout.flush(); "
            f"subprocess.run([sys.executable, '-c', {told!r}], check=True)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | TORCHRUN, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.split() == ["False", "True"]

    def test_a_child_of_a_joined_process_is_alone(self):
        program = "from phalanx.clusters.hosts.launch import launch; print(launch())"
        environ = os.environ | TORCHRUN | {JOINED: str(os.getpid())}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
        )
        assert done.stdout == "None\n"

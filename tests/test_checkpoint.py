"""A checkpoint: what is saved comes back, damage is named, and a kill leaves nothing behind."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import tempfile
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from phalanx.errors import CheckpointError, InvalidInput
from phalanx.training import checkpoint
from phalanx.training.checkpoint import check_folder, load, newest, save

ARRAYS = {
    "parameters": np.linspace(-1, 1, 7, dtype=np.float32),
    "moments": np.arange(6.0).reshape(2, 3),
    "order": np.array([3, 1, 2]),
    "nothing": np.empty((0, 4), np.float32),
}
FACTS = {"epoch": 3, "losses": [0.1, math.inf, -math.inf], "name": "müller", "best": None}


@pytest.fixture(params=["nameless", "hidden name"])
def way(request, monkeypatch):
    """Both ways to write: into a file without a name, and without such files."""
    if request.param == "hidden name":
        _no_nameless_files(monkeypatch)
    return request.param


def _no_nameless_files(monkeypatch):
    real = os.open

    def refusing(path, flags, *rest, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)


def _failing(monkeypatch, name, number):
    def failing(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, failing)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _same(given, read):
    assert set(given) == set(read)
    for name, array in given.items():
        assert (array.dtype, array.shape) == (read[name].dtype, read[name].shape)
        assert array.tobytes() == read[name].tobytes()


def test_what_is_saved_comes_back(tmp_path, way):
    path = save(tmp_path, 12, ARRAYS, FACTS)
    assert _names(tmp_path) == [path.name] == ["step-000000012.safetensors"]
    saved = load(path)
    assert (saved.path, saved.step, saved.facts) == (path, 12, FACTS)
    _same(ARRAYS, saved.arrays)


floats = st.floats(allow_nan=True, allow_infinity=True, width=64)
facts = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | floats | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
    max_size=4,
)
array = st.sampled_from([np.float32, np.float64, np.int64]).flatmap(
    lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, min_side=0))
)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.text().filter(lambda n: n != "__metadata__"), array, max_size=4), facts)
def test_any_arrays_and_facts_come_back(given_arrays, given_facts):
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder), 0, given_arrays, given_facts)
        saved = load(path)
        _same(given_arrays, saved.arrays)
        _same(given_arrays, load_file(path))
        assert repr(sorted(saved.facts.items())) == repr(sorted(_json(given_facts).items()))
        assert all(array.flags.writeable and array.flags.aligned for array in saved.arrays.values())


def _json(value):
    """The value with every dict in the order of its keys."""
    if isinstance(value, dict):
        return {key: _json(value[key]) for key in sorted(value)}
    return [_json(item) for item in value] if isinstance(value, list) else value


def test_anybody_can_read_it(tmp_path):
    path = save(tmp_path, 5, ARRAYS, FACTS)
    _same(ARRAYS, load_file(path))
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["version"]) == ("phalanx checkpoint", "1")
    assert metadata["step"] == "5"
    assert json.loads(metadata["facts"]) == FACTS
    assert set(json.loads(metadata["checksums"])) == set(ARRAYS)


def test_the_same_checkpoint_is_the_same_bytes(tmp_path):
    backwards = dict(reversed(ARRAYS.items())), dict(reversed(FACTS.items()))
    first = save(tmp_path, 5, ARRAYS, FACTS).read_bytes()
    assert save(tmp_path, 5, *backwards).read_bytes() == first


def test_arrays_of_any_layout_are_saved_and_left_alone(tmp_path):
    across = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    strided = np.arange(10)[::-3]
    scalar = np.array(2.5)
    fixed = np.arange(3.0)
    fixed.flags.writeable = False
    given = {"across": across, "strided": strided, "scalar": scalar, "fixed": fixed}
    before = {name: array.copy() for name, array in given.items()}
    _same(before, load(save(tmp_path, 1, given, {})).arrays)
    _same(before, given)


@pytest.mark.parametrize(
    ("name", "dtype"), [("mask", "bool"), ("names", "U3"), ("far", ">f8"), ("__metadata__", "f8")]
)
def test_what_has_no_place_in_a_checkpoint(tmp_path, name, dtype):
    with pytest.raises(InvalidInput, match="float32, float64 or int64"):
        save(tmp_path, 1, {name: np.zeros(2, dtype)}, {})
    assert not _names(tmp_path)


@pytest.mark.parametrize("wrong", [{"step": -1}, {"keep": 0}])
def test_numbers_out_of_bounds(tmp_path, wrong):
    with pytest.raises(InvalidInput, match="at least"):
        save(**{"folder": tmp_path, "step": 1, "arrays": {}, "facts": {}} | wrong)


def test_the_newest_are_kept(tmp_path, way):
    for step in (1, 2, 3):
        save(tmp_path, step, ARRAYS, {"step": step})
    save(tmp_path, 10**9, ARRAYS, {}, keep=3)
    assert [checkpoint._step(path) for path in checkpoint._newest_first(tmp_path)] == [10**9, 3, 2]
    assert newest(tmp_path) == tmp_path / "step-1000000000.safetensors"
    assert load(tmp_path).step == 10**9


def test_only_older_checkpoints_are_deleted(tmp_path):
    mine = ["notes.txt", "step-1.safetensors", "step-000000001.safetensors.bak", "best.safetensors"]
    for name in mine:
        (tmp_path / name).touch()
    save(tmp_path, 9, ARRAYS, {})
    for step in (1, 2, 3):
        save(tmp_path, step, ARRAYS, {}, keep=1)
    left = {"step-000000003.safetensors", "step-000000009.safetensors"}
    assert set(_names(tmp_path)) == {*mine, *left}


def test_the_same_step_again(tmp_path, way):
    save(tmp_path, 1, ARRAYS, {})
    save(tmp_path, 2, ARRAYS, {"try": 1})
    assert load(save(tmp_path, 2, {}, {"try": 2})).facts == {"try": 2}
    assert len(_names(tmp_path)) == 2


def test_a_name_taken_meanwhile(tmp_path, monkeypatch):
    save(tmp_path, 2, ARRAYS, {"try": 1})
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert load(save(tmp_path, 2, ARRAYS, {"try": 2})).facts == {"try": 2}
    assert len(_names(tmp_path)) == 1


def test_check_folder_makes_it_and_leaves_nothing_in_it(tmp_path, way):
    folder = tmp_path / "a" / "b"
    check_folder(folder)
    check_folder(folder)
    assert not _names(folder)
    assert newest(folder) is None


@pytest.mark.parametrize("path", ["/proc/phalanx", "{file}/below", "{file}"])
def test_a_folder_that_cannot_be_made(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"can be written; got .*Choose another folder"):
        check_folder(Path(path.format(file=tmp_path / "file")))


def test_leftovers_of_the_killed_are_removed_and_no_others(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    kept = [".step-000000001.safetensors", f".notes.{gone.pid}", "step-000000001.safetensors.1"]
    kept += [f".step-000000001.safetensors.{os.getppid()}"]
    for name in [*kept, *(f".step-000000001.safetensors.{pid}" for pid in (gone.pid, os.getpid()))]:
        (tmp_path / name).touch()
    check_folder(tmp_path)
    assert _names(tmp_path) == sorted(kept)


@pytest.fixture
def small(tmp_path):
    """The bytes of a small checkpoint, and where to put damaged ones."""
    path = save(tmp_path, 1, {"w": np.arange(3.0), "n": np.arange(2)}, {"epoch": 1})
    content = path.read_bytes()
    path.unlink()
    return content, tmp_path / "step-000000002.safetensors"


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
def test_a_flip_of_any_byte_is_found(small, mask):
    content, path = small
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= mask
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"step-000000002.safetensors: it is"):
            load(path)


def test_any_truncation_is_found(small):
    content, path = small
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="it is damaged"):
            load(path)


def test_bytes_too_many_are_found(small):
    content, path = small
    path.write_bytes(content + b" ")
    with pytest.raises(CheckpointError, match="take 40 bytes, but 41 are left"):
        load(path)


def test_a_damaged_array_is_named(small):
    content, path = small
    path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="the array 'w' does not match its checksum"):
        load(path)


def _save_newer(path):
    metadata = {"format": "phalanx checkpoint", "version": "2", "news": "x"}
    header = checkpoint._sealed({"__metadata__": metadata})
    path.write_bytes(len(header).to_bytes(8, "little") + header)


FOREIGN = {
    "text": (lambda path: path.write_text("a,b\n1,2\n"), "no safetensors file"),
    "nested": (lambda path: path.write_bytes(b"\xff" * 8 + b"[" * 10**5), "no safetensors file"),
    "a list": (lambda path: path.write_bytes(bytes([2, *[0] * 7]) + b"[]"), "no checkpoint"),
    "weights": (lambda path: save_file(ARRAYS, path), "no checkpoint of Phalanx"),
    "others": (lambda path: save_file(ARRAYS, path, {"format": "pt"}), "no checkpoint of Phalanx"),
    "newer": (_save_newer, "newer Phalanx wrote it.*: upgrade Phalanx"),
    "missing": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("beside", [True, False])
def test_what_is_no_checkpoint_is_named_and_a_whole_one_offered(tmp_path, case, beside):
    make, said = FOREIGN[case]
    path = tmp_path / "step-000000009.safetensors"
    make(path)
    if beside:
        save(tmp_path, 3, ARRAYS, FACTS)
        save(tmp_path, 4, ARRAYS, FACTS).write_bytes(b"damaged too")
    advice = r"Pass \S+/step-000000003.safetensors instead" if beside else "Restore it from a copy"
    with pytest.raises(CheckpointError, match=rf"{path}: .*{said}.*{advice}"):
        load(path)


def test_a_folder_whose_newest_is_damaged(tmp_path):
    good = save(tmp_path, 3, ARRAYS, FACTS)
    save(tmp_path, 4, ARRAYS, FACTS).write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"step-000000004.*Pass {good} instead"):
        load(tmp_path)


def test_an_empty_folder_and_a_missing_one(tmp_path):
    with pytest.raises(CheckpointError, match="holds none"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        load(tmp_path / "nowhere")
    assert newest(tmp_path / "nowhere") is None


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    _failing(monkeypatch, "listdir", errno.EACCES)
    with pytest.raises(CheckpointError, match="must be readable"):
        load(tmp_path)


def test_the_seal_is_plain_sha256(small):
    content, _ = small
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    claimed = header["__metadata__"].pop("checksum")
    plain = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    assert sha256(plain).hexdigest() == claimed


CALLS = ("open", "write", "fsync", "link", "replace", "close")


def _save_until(call, folder):
    """Save step 2 in a child that kills itself before its n-th call to the system.

    True where the child was killed, False where it came to its end.
    """
    pid = os.fork()
    if pid == 0:
        calls = iter(range(call))
        for name in CALLS:
            _count_down(name, calls)
        save(folder, 2, ARRAYS, FACTS)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def _count_down(name, calls):
    real = getattr(os, name)

    def counting(*args, **more):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "write":  # half of it, so that the kill meets a file cut in two
            args = args[0], args[1][: max(1, len(args[1]) // 2)]
        return real(*args, **more)

    setattr(os, name, counting)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_at_any_call_leaves_whole_checkpoints(tmp_path, way):
    first = save(tmp_path, 1, ARRAYS, {"first": True})
    seen = []
    call = 0
    while _save_until(call, tmp_path):
        call += 1
        left_behind = [name for name in _names(tmp_path) if name.startswith(".")]
        assert not left_behind or way == "hidden name"
        check_folder(tmp_path)
        steps = {checkpoint._step(tmp_path / name) for name in _names(tmp_path)}
        seen.append(max(steps))
        assert steps == set(range(1, seen[-1] + 1))
        assert load(first).facts == {"first": True}
        assert load(tmp_path).step == seen[-1]
        (tmp_path / "step-000000002.safetensors").unlink(missing_ok=True)
    assert set(seen) == {1, 2}
    assert all(before <= after for before, after in pairwise(seen))
    assert len(seen) > 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_failed_write_leaves_the_earlier_ones(tmp_path, monkeypatch, way, call, number):
    good = save(tmp_path, 1, ARRAYS, FACTS)
    _failing(monkeypatch, call, number)
    reason = os.strerror(number)
    with pytest.raises(CheckpointError, match=rf"000002.*{reason}.*last good one is {good}"):
        save(tmp_path, 2, ARRAYS, FACTS, keep=1)
    with pytest.raises(CheckpointError, match=reason):
        check_folder(tmp_path)
    assert _names(tmp_path) == [good.name]
    _same(ARRAYS, load(tmp_path).arrays)


def test_a_failed_write_of_the_same_step_leaves_it(tmp_path, monkeypatch):
    good = save(tmp_path, 1, ARRAYS, FACTS)
    _failing(monkeypatch, "replace", errno.EIO)
    with pytest.raises(CheckpointError, match=f"last good one is {good}"):
        save(tmp_path, 1, {}, {})
    assert _names(tmp_path) == [good.name]
    assert load(good).facts == FACTS


def test_a_failed_first_write(tmp_path, monkeypatch):
    _failing(monkeypatch, "write", errno.ENOSPC)
    with pytest.raises(CheckpointError, match=r"No earlier one can be read there\. Check"):
        save(tmp_path, 1, ARRAYS, FACTS)
    assert not _names(tmp_path)


def test_what_cannot_be_deleted_does_no_harm(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, step, ARRAYS, FACTS)
    _failing(monkeypatch, "unlink", errno.EPERM)
    assert save(tmp_path, 3, ARRAYS, FACTS).exists()
    assert len(_names(tmp_path)) == 3


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, and a function that mounts it again with other options."""

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a file system")

    mount("size=64k")
    yield tmp_path, mount
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk(small_disk, way):
    folder, _ = small_disk
    check_folder(folder)
    good = save(folder, 1, ARRAYS, FACTS)
    with pytest.raises(CheckpointError, match=rf"No space left.*last good one is {good}"):
        save(folder, 2, {"large": np.zeros(2**14)}, {}, keep=1)
    assert _names(folder) == [good.name]
    _same(ARRAYS, load(folder).arrays)
    assert load(save(folder, 2, ARRAYS, {})).step == 2


def test_a_read_only_disk(small_disk, way):
    folder, mount = small_disk
    good = save(folder, 1, ARRAYS, FACTS)
    mount("remount,ro")
    with pytest.raises(CheckpointError, match=f"Read-only file system.*last good one is {good}"):
        save(folder, 2, ARRAYS, FACTS)
    with pytest.raises(CheckpointError, match="Read-only file system"):
        check_folder(folder)
    assert load(folder).step == 1

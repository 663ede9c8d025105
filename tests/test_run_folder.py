"""A run's folder: what is written comes back, and damage is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from phalanx import RunFolderError
from phalanx.errors import InvalidInput
from phalanx.runs.folder import free_folder, new_run_folder, read_run, write_run
from small_runs import flowers, outcome, recorded


@pytest.fixture(scope="module", params=["kind", "length"])
def made(request):
    return outcome(request.param)


@pytest.fixture
def folder(tmp_path, made):
    write_run(tmp_path, made.predictor, recorded(made))
    return tmp_path


def test_what_is_written_comes_back(folder, made):
    predictor = read_run(folder)
    table = flowers(n_rows=30)
    assert predictor.predict(table).tolist() == made.predictor.predict(table).tolist()
    assert np.array_equal(predictor.parameters, made.predictor.parameters)
    assert predictor.preprocessing == made.predictor.preprocessing


def test_the_parts(folder, made):
    assert sorted(path.name for path in folder.iterdir()) == [
        "preprocessing.json", "report.html", "run.json", "weights.safetensors"
    ]  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    assert record["run"]["digest"] == made.run.digest
    assert record["run"]["epochs"] == 3
    assert record["settings"]["model"] == "mlp:4"
    assert set(record["versions"]) == {"python", "phalanx", "numpy", "scipy", "scikit-learn"}
    coef = load_file(folder / "weights.safetensors")["layer_0.coef"]
    assert coef.shape == made.predictor.spec.sizes[:2]


def test_two_classes_come_back():
    made = outcome(table=flowers(n_classes=2))
    proba_BC = made.predictor.probabilities(flowers(2))
    assert proba_BC.shape == (60, 2)
    np.testing.assert_allclose(proba_BC.sum(axis=1), 1, rtol=1e-6)


def test_probabilities_need_classes():
    with pytest.raises(InvalidInput, match="Leave --proba out"):
        outcome("length").predictor.probabilities(flowers())


def test_an_infinite_loss_is_null_in_the_record(tmp_path, made):
    losses = [float("inf"), float("nan"), 1.0]
    broken = replace(made, run=replace(made.run, losses=losses))
    write_run(tmp_path, broken.predictor, recorded(broken))
    assert json.loads((tmp_path / "run.json").read_text())["run"]["losses"] == [None, None, 1.0]


def _edit(path: Path, change) -> None:
    entry = json.loads(path.read_text())
    change(entry)
    path.write_text(json.dumps(entry))


def _reshape(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    tensors["layer_0.coef"] = tensors["layer_0.coef"][:, :2].copy()
    save_file(tensors, folder / "weights.safetensors")


def _lose_a_layer(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    del tensors["layer_1.intercept"]
    save_file(tensors, folder / "weights.safetensors")


DAMAGE = {
    "no record": (lambda f: (f / "run.json").unlink(), "has no run.json"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "readable weights.safetensors"),
    "no preprocessing": (lambda f: (f / "preprocessing.json").unlink(), "readable preprocessing"),
    "weights cut off": (
        lambda f: (f / "weights.safetensors").write_bytes(b"\x08\x00"), "weights.*cannot be read"
    ),
    "weights of another shape": (_reshape, "'layer_0.coef' must be float32 of shape"),
    "a layer lost": (_lose_a_layer, "'layer_1.intercept'.*got nothing"),
    "record is no JSON": (lambda f: (f / "run.json").write_text("{"), "run.json cannot be read"),
    "record is no text": (lambda f: (f / "run.json").write_bytes(b"\xff\xfe\xfa"), "run.json"),
    "record is a list": (lambda f: (f / "run.json").write_text("[]"), "'format' is missing"),
    "record nested": (lambda f: (f / "run.json").write_text("[" * 10**5), "cannot be read"),
    "newer record": (
        lambda f: _edit(f / "run.json", lambda j: j.update(format=9)), "newer Phalanx wrote it"
    ),
    "newer preprocessing": (
        lambda f: _edit(f / "preprocessing.json", lambda j: j.update(format=9)), "Upgrade"
    ),
    "no model": (lambda f: _edit(f / "run.json", lambda j: j.pop("model")), "'model' is missing"),
    "negative size": (
        lambda f: _edit(f / "run.json", lambda j: j["model"].update(sizes=[-1, 2])), "'sizes'"
    ),
    "unknown activation": (
        lambda f: _edit(f / "run.json", lambda j: j["model"].update(activation="rely")), "'relu'"
    ),
    "inputs lost": (
        lambda f: _edit(f / "preprocessing.json", lambda j: j["inputs"].pop()), "must take"
    ),
    "record is a folder": (
        lambda f: ((f / "run.json").unlink(), (f / "run.json").mkdir()), "readable run.json"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(folder, case):
    damage, said = DAMAGE[case]
    damage(folder)
    with pytest.raises(RunFolderError, match=said):
        read_run(folder)


def test_what_is_no_run(tmp_path):
    (tmp_path / "file").touch()
    for path, said in (("file", "is a file"), ("nowhere", "not there"), (".", "has no run.json")):
        with pytest.raises(RunFolderError, match=said):
            read_run(tmp_path / path)


@pytest.mark.parametrize("path", ["/proc/phalanx", "{file}/below"])
def test_a_folder_that_cannot_be_written(tmp_path, path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunFolderError, match=r"must be writable.*Choose another --out"),
        new_run_folder(Path(path.format(file=tmp_path / "file"))),
    ):
        pytest.fail("the work must not start")


def test_a_folder_that_holds_a_run_is_kept(folder):
    with (
        pytest.raises(RunFolderError, match="already holds one"),
        new_run_folder(folder),
    ):
        pytest.fail("the work must not start")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "text.csv").touch()
    with (
        pytest.raises(RunFolderError, match=r"text\.csv is a file.*as --out"),
        new_run_folder(tmp_path / "text.csv"),
    ):
        pytest.fail("the work must not start")


def test_a_folder_with_something_of_the_users_is_kept(tmp_path):
    mine = tmp_path / "report.html"
    mine.write_text("mine")
    with (
        pytest.raises(RunFolderError, match=r"already holds 'report\.html'\. Choose another --out"),
        new_run_folder(tmp_path),
    ):
        pytest.fail("the work must not start")
    (tmp_path / "a").touch()
    with pytest.raises(RunFolderError, match="'a' and 1 more"), new_run_folder(tmp_path):
        pytest.fail("the work must not start")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("place", [".", "kept", "far/below"])
def test_checkpoints_of_the_same_training_may_lie_in_its_folder(tmp_path, place):
    checkpoints = tmp_path / place
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / "step-000000123.safetensors").touch()
    with new_run_folder(tmp_path, checkpoints) as folder:
        assert folder == tmp_path
    with pytest.raises(RunFolderError, match="already holds"), new_run_folder(tmp_path):
        pytest.fail("the work must not start")
    (tmp_path / "mine").touch()
    with (
        pytest.raises(RunFolderError, match="already holds 'mine'"),
        new_run_folder(tmp_path, checkpoints),
    ):
        pytest.fail("the work must not start")


def test_an_unused_folder_is_gone_again(tmp_path):
    with pytest.raises(ZeroDivisionError), new_run_folder(tmp_path / "new"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    with pytest.raises(ZeroDivisionError), new_run_folder(tmp_path):
        raise ZeroDivisionError
    assert tmp_path.exists()  # it was the user's


def test_the_first_free_folder(tmp_path):
    (tmp_path / "iris-1").mkdir()
    assert free_folder("iris", tmp_path) == tmp_path / "iris-2"

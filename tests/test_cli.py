"""The command line, as a person uses it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from phalanx.cli import app, fitting
from phalanx.cli.fitting import split
from phalanx.data.files import READERS, read_table
from phalanx.estimators.parameters import SOLVERS
from phalanx.exchange.processors import processors
from phalanx.models.mlp.activations import ACTIVATIONS
from phalanx.pure.aggregation import AGGREGATIONS
from phalanx.pure.assignment import ASSIGNMENTS
from phalanx.pure.plan import DISTRIBUTIONS
from phalanx.runs.folder import read_run
from small_runs import flowers

QUICK = ["--model", "mlp:4", "--epochs", "3", "--workers", "1"]


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def help_of(command):
    return re.sub(r"[\s│]+", " ", call(command, "--help").output)


def as_csv(table, *, without=()):
    names = [name for name in table.names if name not in without]
    rows = zip(*(table[name] for name in names), strict=True)
    return "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "flowers.csv"
    path.write_text(as_csv(flowers()))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("runs") / "flowers"
    result = call("train", data, "--target", "kind", *QUICK, "--out", path)
    assert result.exit_code == 0, result.output
    return path


def refused(result, *said):
    """The command ended with one clear message: code 2, nothing on standard output."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.stdout == ""
    for text in said:
        assert re.search(text, result.stderr, re.DOTALL), result.stderr
    return True


def refused_text(result):
    assert refused(result)
    return result.stderr


def test_train_says_what_it_did(tmp_path, data):
    result = call("train", data, "--target", "kind", *QUICK, "--out", tmp_path / "run")
    assert result.exit_code == 0
    for said in ("Accuracy", "Recall", "digest", "report.html", "stopped because", "12 held-out"):
        assert said in result.stdout
    assert "epoch 3/3" in result.stderr
    assert "shares 100%" in result.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["run"]["digest"] in result.stdout
    assert len(record["run"]["scores"]) == 3


def test_a_name_that_is_no_utf8_costs_nothing(tmp_path, data):
    odd = tmp_path / os.fsdecode(b"b\xe9d.csv")
    shutil.copy(data, odd)
    out = tmp_path / os.fsdecode(b"r\xe9n")
    program = [sys.executable, "-m", "phalanx", "train", odd, "--target", "kind", *QUICK]
    done = subprocess.run([*program, "--out", out], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"b?d.csv" in (out / "report.html").read_bytes()
    assert json.loads((out / "run.json").read_text())["run"]["losses"]


def test_two_workers_make_the_same_bits(tmp_path, data):
    digests = set()
    for workers in ("1", "2"):
        arguments = ["--model", "mlp:4", "--epochs", "2", "--shards", "2", "--workers", workers]
        out = tmp_path / workers
        result = call("train", data, "--target", "kind", *arguments, "--out", out)
        assert result.exit_code == 0, result.output
        run = json.loads((out / "run.json").read_text())["run"]
        assert run["workers"] == int(workers)
        digests.add(run["digest"])
    assert len(digests) == 1


def test_the_shares_are_those_of_the_workers_there_are(tmp_path, data):
    arguments = ["--model", "mlp:4", "--epochs", "2", "--shards", "8", "--workers", "2"]
    result = call("train", data, "--target", "kind", *arguments, "--out", tmp_path / "run")
    assert re.search(r"shares \d+% \d+%\n", result.stderr), result.stderr


def test_minus_one_is_a_worker_a_core(tmp_path, data):
    options = ["--target", "kind", "--model", "mlp:4", "--epochs", "1", "--shards", "8"]
    result = call("train", data, *options, "--workers", "-1", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    run = json.loads((tmp_path / "run" / "run.json").read_text())["run"]
    assert run["workers"] == min(processors(), 8)
    assert call("evaluate", tmp_path / "run", data, "--workers", "-1").exit_code == 0


def test_a_minimiser_that_was_stopped_names_an_option(tmp_path, data):
    arguments = [*QUICK, "--solver", "lbfgs", "--out", tmp_path / "run"]
    result = call("train", data, "--target", "kind", *arguments)
    assert result.exit_code == 0
    assert "lbfgs says nothing before its end" in result.stderr
    assert "lbfgs failed to converge" in result.stderr
    assert "Raise --epochs or --tol." in result.stderr
    assert "max_" not in result.stderr


def test_the_speed_of_what_was_resumed_is_that_of_its_own_steps(tmp_path, data):
    command = ["train", data, "--target", "kind", *QUICK, "--checkpoint", tmp_path / "kept"]
    assert call(*command, "--out", tmp_path / "first").exit_code == 0
    for epochs, part in (("3", 0), ("4", 1 / 4)):
        out = tmp_path / epochs
        result = call(*command, "--epochs", epochs, "--resume", "--out", out)
        assert result.exit_code == 0, result.output
        run = json.loads((out / "run.json").read_text())["run"]
        assert run["samples"] == int(epochs) * 48
        trained = run["samples_a_second"] * run["seconds"]
        assert trained == pytest.approx(part * run["samples"])
    assert ", 0 samples a second" in call(*command, "--resume", "--out", tmp_path / "no").stdout


def test_a_training_that_gets_no_better_ends(tmp_path, data):
    def run(*options):
        out = tmp_path / str(len(options))
        arguments = ["--model", "mlp:4", "--epochs", "30", "--workers", "1", *options]
        result = call("train", data, "--target", "kind", *arguments, "--out", out)
        assert result.exit_code == 0, result.output
        return json.loads((out / "run.json").read_text())

    by_loss = run("--tol", "100", "--patience", "2")
    assert len(by_loss["run"]["losses"]) == 4  # the first is the best; then three that are none
    by_score = run("--tol", "100", "--patience", "4", "--early-stopping")
    assert len(by_score["run"]["losses"]) == 6
    assert by_score["settings"]["early_stopping"] == "True"
    assert by_score["judged"] == "held-out samples, by which the epoch was chosen"


def test_the_options_of_slow_links_are_part_of_the_answer(tmp_path, data):
    digests = set()
    for n, options in enumerate(([], ["--wire", "bf16"], ["--sync-every", "2"])):
        arguments = [*QUICK, *options, "--out", tmp_path / str(n)]
        assert call("train", data, "--target", "kind", *arguments).exit_code == 0
        digests.add(json.loads((tmp_path / str(n) / "run.json").read_text())["run"]["digest"])
    assert len(digests) == 3


def test_the_default_folder_is_the_first_free(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in (1, 2):
        assert call("train", data, "--target", "kind", *QUICK).exit_code == 0
        assert (tmp_path / "runs" / f"flowers-{n}" / "report.html").exists()


def test_regression_of_an_npz_with_lbfgs_and_nothing_held_out(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    np.savez(tmp_path / "d.npz", X=X, y=X @ [1.0, 2.0, 3.0])
    arguments = ["--solver", "lbfgs", "--validation-fraction", "0", "--drop", "X_0"]
    out = tmp_path / "run"
    result = call("train", tmp_path / "d.npz", "--target", "y", *QUICK, *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    assert "50 training samples" in result.stdout
    assert "R²" in result.stdout
    refused(call("predict", out, tmp_path / "d.npz", "--proba"), "Leave --proba out")
    assert call("predict", out, tmp_path / "d.npz").stdout.count("\n") == 51


LONG = ["--target", "kind", "--model", "mlp:8", "--shards", "2", "--workers", "2"]
LONG += ["--epochs", "400", "--batch-size", "8", "--solver", "sgd", "--learning-rate", "0.0001"]


def digest_of(folder):
    return json.loads((folder / "run.json").read_text())["run"]["digest"]


def killed_once_there_is(pattern, folder, arguments):
    """Run `phalanx` in a process of its own, and kill it when such a file is in the folder."""
    command = [sys.executable, "-m", "phalanx", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + 60
        while not any(folder.glob(pattern)):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.stdout.read()
    return process.returncode


def test_a_killed_training_is_gone_on_with(tmp_path, data):
    calm, killed, resumed, kept = (
        tmp_path / name for name in ("calm", "killed", "resumed", "kept")
    )
    assert call("train", data, *LONG, "--workers", "1", "--out", calm).exit_code == 0
    again = ["train", data, *LONG, "--checkpoint", kept, "--checkpoint-every", "100 steps"]
    assert killed_once_there_is("step-*", kept, [*again, "--out", killed]) == -signal.SIGKILL
    assert not (killed / "run.json").exists()
    refused(call(*again, "--out", resumed), "already holds.*Add --resume")
    result = call(*again, "--resume", "--out", resumed)
    assert result.exit_code == 0, result.output
    assert digest_of(resumed) == digest_of(calm)
    assert ": resumed: from" in result.stderr


BAD_KEEPING = {
    "resume alone": (["--resume"], "--resume can be used with a folder.*Add --checkpoint"),
    "cadence alone": (["--checkpoint-every", "5 steps"], "--checkpoint-every.*Add --checkpoint"),
    "cadence of nonsense": (["--checkpoint", "kept", "--checkpoint-every", "often"], "got 'often'"),
    "cadence of none": (["--checkpoint", "kept", "--checkpoint-every", "0"], "--checkpoint-every"),
    "lbfgs": (["--checkpoint", "kept", "--solver", "lbfgs"], "lbfgs"),
    "folder below a file": (["--checkpoint", __file__ + "/kept"], "/kept"),
}


@pytest.mark.parametrize("case", BAD_KEEPING)
def test_bad_wishes_for_checkpoints(tmp_path, data, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    options, said = BAD_KEEPING[case]
    refused(call("train", data, "--target", "kind", *QUICK, *options), said)
    assert not (tmp_path / "runs" / "flowers-1").exists()


def test_evaluate(run, data):
    result = call("evaluate", run, data)
    assert result.exit_code == 0
    assert "On the 60 samples of flowers.csv" in result.stdout
    assert "<0>" in result.stdout


def test_predict(run, data, tmp_path):
    lines = call("predict", run, data, "--proba").stdout.splitlines()
    assert lines[0] == "prediction,probability_<0>,probability_<1>,probability_<2>"
    assert len(lines) == 61
    for line in lines[1:]:
        label, *proba = line.split(",")
        assert label == f"<{np.argmax([float(p) for p in proba])}>"
        assert abs(sum(map(float, proba)) - 1) < 1e-4
    result = call("predict", run, data, "--out", tmp_path / "p.csv")
    assert result.exit_code == 0
    assert (tmp_path / "p.csv").read_text().splitlines() == [line.split(",")[0] for line in lines]


def test_predictions_replace_nothing_unasked(run, tmp_path):
    new, out = tmp_path / "new.csv", tmp_path / "p.csv"
    text = as_csv(flowers(n_rows=9), without=("kind",))
    new.write_text(text)
    out.write_text("mine")
    (tmp_path / "link.csv").symlink_to(new)
    for name in ("new.csv", "link.csv", "../" + tmp_path.name + "/new.csv"):
        for more in ([], ["--overwrite"]):
            refused(call("predict", run, new, "--out", tmp_path / name, *more), "data file itself")
    refused(call("predict", run, new, "--out", out), "already there.*--overwrite")
    refused(call("predict", run, new, "--out", tmp_path, "--overwrite"), "is a folder")
    refused(call("predict", run, new, "--out", "/dev/null", "--overwrite"), "no ordinary file")
    assert new.read_text() == text
    assert out.read_text() == "mine"
    assert call("predict", run, new, "--out", out, "--overwrite").exit_code == 0
    assert out.read_text().startswith("prediction\n<")
    (tmp_path / "mine.csv").symlink_to(out)
    assert call("predict", run, new, "--out", tmp_path / "mine.csv", "--overwrite", "--proba")
    assert (tmp_path / "mine.csv").is_symlink()
    assert out.read_text().startswith("prediction,")


def test_predict_needs_no_target(run, tmp_path):
    (tmp_path / "new.csv").write_text(as_csv(flowers(n_rows=9), without=("kind",)))
    assert call("predict", run, tmp_path / "new.csv").stdout.count("\n") == 10
    refused(call("evaluate", run, tmp_path / "new.csv"), "must have a column 'kind'")


def test_codes_with_leading_zeros_stay_apart(tmp_path):
    """Classes 01 and 1, told by a ZIP code that is 01234 or 1234."""
    rows = ["zip,code", *["01234,01", "1234,1"] * 20]
    data, run = tmp_path / "d.csv", tmp_path / "run"
    data.write_text("\n".join(rows))
    options = ["--epochs", "40", "--learning-rate", "0.1", "--workers", "1", "--out", run]
    result = call("train", data, "--target", "code", *options)
    assert result.exit_code == 0, result.output
    assert "1 column as 2 features" in result.stderr
    new = tmp_path / "new.csv"
    new.write_text("zip,code\n1234,1\n1234,1\n")  # without any zero in front
    assert call("predict", run, new).stdout.split() == ["prediction", "1", "1"]
    assert "On the 2 samples" in call("evaluate", run, new).stdout


def as_parquet(path, **columns):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)


BIG = 2**53  # float64 rounds the whole number after it to it


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_labels_that_float64_would_round_stay_apart(tmp_path, suffix):
    columns = {"a": [0.0, 1.0, 2.0] * 20, "y": [BIG, BIG + 1, 7] * 20}
    rows = zip(columns["a"], columns["y"], strict=True)
    (tmp_path / "d.csv").write_text("a,y\n" + "".join(f"{a},{y}\n" for a, y in rows))
    np.savez(tmp_path / "d.npz", **columns)
    if suffix == ".parquet":
        as_parquet(tmp_path / "d.parquet", **columns)
    run = tmp_path / "run"
    options = ["--epochs", "60", "--learning-rate", "0.1", "--workers", "1", "--out", run]
    result = call("train", tmp_path / f"d{suffix}", "--target", "y", *options)
    assert result.exit_code == 0, result.output
    for kind in {".csv", suffix}:
        _, *lines = call("predict", run, tmp_path / f"d{kind}").stdout.split()
        assert lines == list(map(str, columns["y"]))
        assert re.search(r"Accuracy +100", call("evaluate", run, tmp_path / f"d{kind}").stdout)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_class_that_float64_would_round_to_one_learnt_is_unknown(tmp_path, suffix):
    data, run = tmp_path / "d.csv", tmp_path / "run"
    data.write_text("a,y\n" + f"1,{BIG}\n2,7\n" * 10)
    assert call("train", data, "--target", "y", *QUICK, "--out", run).exit_code == 0
    (tmp_path / "new.csv").write_text(f"a,y\n1,{BIG + 1}\n2,7\n")
    if suffix == ".parquet":
        as_parquet(tmp_path / "new.parquet", a=[1, 2], y=[BIG + 1, 7])
    refused(call("evaluate", run, tmp_path / f"new{suffix}"), f"got '{BIG + 1}'")


def test_long_codes_are_categories(tmp_path):
    """Classes told by codes that float64 would round to one, and a remark on how they are taken."""
    data, run = tmp_path / "d.csv", tmp_path / "run"
    data.write_text("id,y\n" + f"{BIG},u\n{BIG + 1},v\n" * 20)
    options = ["--epochs", "40", "--learning-rate", "0.1", "--workers", "1", "--out", run]
    result = call("train", data, "--target", "y", *options)
    assert result.exit_code == 0, result.output
    assert "1 column as 2 features" in result.stderr
    assert "'id' is taken for text. It counts as text since float64 would round" in result.stderr
    (tmp_path / "new.csv").write_text(f"id\n{BIG}\n{BIG}\n")  # none that would be rounded
    assert call("predict", run, tmp_path / "new.csv").stdout.split() == ["prediction", "u", "u"]
    as_parquet(tmp_path / "new.parquet", id=[BIG + 1, BIG])
    lines = call("predict", run, tmp_path / "new.parquet").stdout.split()
    assert lines == ["prediction", "v", "u"]


def test_numbers_learnt_stay_numbers(run, data, tmp_path):
    old, new = data.read_text(), tmp_path / "new.csv"
    new.write_text("length,width,colour\n1,2,c1\n")
    padded = tmp_path / "padded.csv"
    padded.write_text("length,width,colour\n01,002,c1\n")
    assert call("predict", run, new).stdout == call("predict", run, padded).stdout
    new.write_text(re.sub(r"^[^,]+,", "x,", old, flags=re.M).replace("x,", "length,", 1))
    result = call("predict", run, new)
    assert refused(result, "'length' must hold numbers.*correct the column")
    assert "--drop" not in result.stderr


def test_samples_stay_in_line_with_the_predictions_of_a_single_column(tmp_path):
    data, new, run = (tmp_path / name for name in ("d.csv", "new.csv", "run"))
    data.write_text("x,y\n" + "".join(f"{i},{'ab'[i // 20]}\n" for i in range(40)))
    assert call("train", data, "--target", "y", *QUICK, "--out", run).exit_code == 0
    new.write_text("x\n1\n\n30\n\n")
    assert call("predict", run, new).stdout.count("\n") == 4


@pytest.mark.filterwarnings("error")
def test_a_number_out_of_all_proportion_is_refused(run, data, tmp_path):
    (tmp_path / "new.csv").write_text("length,width,colour\n1,2,c1\n1,1e300,c1\n")
    said = "'width' must hold numbers of the size.*sample 2 has 1e.300"
    refused(call("predict", run, tmp_path / "new.csv"), said)


def test_values_are_written_to_the_last_digit(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=50)
    np.savez(tmp_path / "d.npz", X=X, y=1.7e9 + rng.normal(size=50) / 10)
    arguments = [*QUICK, "--task", "regression", "--out", tmp_path / "run"]
    assert call("train", tmp_path / "d.npz", "--target", "y", *arguments).exit_code == 0
    _, *lines = call("predict", tmp_path / "run", tmp_path / "d.npz").stdout.split()
    table = read_table(tmp_path / "d.npz")
    predicted = read_run(tmp_path / "run").predict(table)
    assert len(set(lines)) == 50
    assert [float(line) for line in lines] == predicted.tolist()
    assert max(map(len, lines)) <= 18


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_unknown_categories_are_said(run, data, tmp_path, command):
    known, new = data.read_text(), tmp_path / "new.csv"
    assert "missing" not in call(command, run, data).stderr
    new.write_text(known + "1,2,mauve,<0>\n1,2,lilac,<1>\n1,2,,<1>\n")
    result = call(command, run, new)
    assert result.exit_code == 0
    assert "'colour' in 2 of 63 samples (e.g. 'mauve')" in result.stderr


BAD_OPTIONS = {
    "target": (["--target", "kimd"], "Did you mean 'kind'"),
    "drop": (["--drop", "widht"], "Did you mean 'width'"),
    "drop the target": (
        ["--drop", "width", "--drop", "kind"],
        "--target must name a column that is not left out; got --target kind and --drop kind",
    ),
    "task": (["--task", "clasification"], "Did you mean 'classification'"),
    "task of text": (["--task", "regression"], "a target of numbers"),
    "solver": (["--solver", "adma"], "--solver.*Did you mean 'adam"),
    "activation": (["--activation", "rellu"], "Did you mean 'relu'"),
    "distribution": (["--data-distribution", "randon"], "Did you mean 'random'"),
    "assignment": (["--task-assignment", "roundrobin"], "Did you mean 'round_robin'"),
    "aggregation": (["--aggregation", "medain"], "Did you mean 'median'"),
    "empty layer": (["--model", "mlp:0"], "Try --model mlp:100"),
    "no layer": (["--model", "mlp:"], "positive integers"),
    "layer of text": (["--model", "mlp:big"], "positive integers"),
    "trailing comma": (["--model", "mlp:8,"], "positive integers"),
    "unknown model": (["--model", "cnn:3"], "must be one of 'mlp'; got 'cnn'"),
    "no workers": (["--workers", "0"], "positive integer, -1 for one a core, or 'auto'; got '0'"),
    "workers of text": (["--workers", "two"], "one a core, or 'auto'; got 'two'"),
    "negative workers": (["--workers", "-2"], "positive integer, -1 for one a core, or 'auto'"),
    "minus one shard": (["--shards", "-1"], "--shards must be a positive integer or 'auto'; got"),
    "hosts of no cluster": (["--hosts", "2"], "got --hosts 2 alone. Add --cluster"),
    "no shards": (["--shards", "0"], "--shards must be a positive integer"),
    "too many shards": (["--shards", "1000"], "shards must be at most"),
    "no epochs": (["--epochs", "0"], "--epochs must be an integer at least 1"),
    "epochs of text": (["--epochs", "ten"], "epochs"),
    "no batch": (["--batch-size", "0"], "--batch-size must be a positive integer"),
    "no rate": (["--learning-rate", "0"], "--learning-rate must be a number above 0"),
    "NaN rate": (["--learning-rate", "nan"], "--learning-rate"),
    "all dropped out": (["--dropout", "1"], "--dropout"),
    "NaN threshold": (["--loss-threshold", "nan"], "--loss-threshold"),
    "negative penalty": (["--alpha", "-1"], "--alpha must be a number at least 0"),
    "negative tolerance": (["--tol", "-1"], "--tol must be a number at least 0"),
    "infinite rate": (["--learning-rate", "inf"], "--learning-rate must be a finite number"),
    "infinite penalty": (["--alpha", "inf"], "--alpha must be a finite number"),
    "infinite tolerance": (["--tol", "inf"], "--tol must be a finite number"),
    "no patience": (["--patience", "0"], "--patience must be an integer at least 1"),
    "nothing to judge by": (
        ["--early-stopping", "--validation-fraction", "0"],
        "Hold some out, e.g. --validation",
    ),
    "no step": (["--sync-every", "0"], "--sync-every must be an integer at least 1"),
    "unknown wire": (["--wire", "bf61"], "Did you mean 'bf16'"),
    "rounded L-BFGS": (["--wire", "bf16", "--solver", "lbfgs"], "--solver lbfgs.*got --wire"),
    "early L-BFGS": (["--early-stopping", "--solver", "lbfgs"], "got --early-stopping"),
    "all held out": (["--validation-fraction", "1"], "0.2 holds a fifth out"),
    "too few held out": (
        ["--validation-fraction", "0.01"],
        "59 to train on and 1 held out cannot both have all 3 classes of 'kind'.*Add samples",
    ),
    "negative seed": (["--seed", "-1"], "--seed"),
    "folder below a file": (["--out", __file__ + "/run"], "must be writable"),
    "folder in /proc": (["--out", "/proc/phalanx-run"], "must be writable"),
    "unknown option": (["--batchsize", "3"], "batch"),
    "a rate that explodes": (["--solver", "sgd", "--learning-rate", "1e30"], "non-finite"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(data, tmp_path, case):
    options, said = BAD_OPTIONS[case]
    arguments = ["--target", "kind", *QUICK, "--out", tmp_path / "run", *options]
    refused(call("train", data, *arguments), said)
    assert not (tmp_path / "run").exists()


BAD_DATA = {
    "empty": ("", "file is empty"),
    "header only": ("a,y\n", "header alone"),
    "ragged": ("a,y\n1,2\n3\n", "line 3 has 1"),
    "duplicate": ("y,y\n1,2\n", "names column 1 and column 2"),
    "text among numbers": ("a,y\n1,u\n2,v\nx,u\n", "line 4 has 'x'"),
    "NaN target": ("a,y\n1,0\n2,nan\n3,1\n", "every sample must have a target"),
    "a class NA": ("a,y\n1,EU\n2,NA\n3,EU\n", "NA, N/A, NaN, null, None and . are missing"),
    "one class": ("a,y\n1,u\n2,u\n", "two classes"),
    "one sample a class": ("a,y\n1,u\n2,v\n", "samples enough"),
    "one sample": ("a,y\n1,0.5\n", "samples enough.*none would be left"),
    "one sample of a class": ("a,y\n" + "1,u\n2,v\n" * 9 + "1,w\n", "got 19: of 'y' = 'w' there"),
    "text of decimal commas": (
        "a;y\n" + "".join(f"1;{i},5\n" for i in range(30)),
        "of 30 of the 30 classes in 'y', e.g. '0,5', there is only one.*decimal comma",
    ),
    "target alone": ("y\n0\n1\n0\n1\n", "samples enough|beside the target"),
    "infinite": ("a,y\ninf,u\n1,v\n2,u\n3,v\n4,u\n5,v\n6,u\n7,v\n8,u\n9,v\n", "finite numbers"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(tmp_path, case):
    text, said = BAD_DATA[case]
    (tmp_path / "d.csv").write_text(text)
    result = call("train", tmp_path / "d.csv", "--target", "y", *QUICK, "--out", tmp_path / "run")
    refused(result, said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sample", [1, 4, 80])
def test_errors_count_the_samples_of_the_file(tmp_path, sample):
    """Whether the sample is among those trained on or those held out."""
    cells = ["inf" if n == sample else f"{n}" for n in range(1, 81)]
    rows = [f"{cell},{'uv'[n % 2]}\n" for n, cell in enumerate(cells)]
    (tmp_path / "d.csv").write_text("a,y\n" + "".join(rows))
    result = call("train", tmp_path / "d.csv", "--target", "y", *QUICK, "--out", tmp_path / "run")
    refused(result, f"sample {sample} has inf")
    assert result.stderr.count("\n") == 1  # before any work starts


def test_a_number_far_from_those_trained_on_has_the_files_number(tmp_path):
    held_out = split(flowers(), "kind", None, 0.2, seed=0).held_out.rows_B
    rows = as_csv(flowers()).splitlines()
    row = int(held_out[3])
    rows[row + 1] = re.sub("^[^,]+", "1e100", rows[row + 1])
    (tmp_path / "d.csv").write_text("\n".join(rows))
    arguments = ["--target", "kind", *QUICK, "--out", tmp_path / "run"]
    refused(call("train", tmp_path / "d.csv", *arguments), f"sample {row + 1} has 1e.100")


def test_distinct_values_are_counted_in_the_whole_file(tmp_path):
    rows = [f"u{n},{n % 2}\n" for n in range(80)]
    (tmp_path / "d.csv").write_text("id,y\n" + "".join(rows))
    result = call("train", tmp_path / "d.csv", "--target", "y", *QUICK, "--out", tmp_path / "run")
    refused(result, "at most 50 distinct values; 'id' has 80")


def test_what_is_learnt_is_learnt_of_the_training_part_alone():
    table = flowers()
    parts = split(table, "kind", None, 0.2, seed=0)
    length = parts.preprocessing.inputs[0]
    assert length.mean == pytest.approx(parts.training["length"].mean())
    assert length.mean != pytest.approx(table["length"].mean())


def test_a_row_index_is_left_out_with_a_note(tmp_path):
    names = {"a": [0.0, 1.0] * 20, "y": ["u", "v"] * 20}
    as_parquet(tmp_path / "d.parquet", **names, __index_level_0__=list(range(40)))
    result = call("train", tmp_path / "d.parquet", "--target", "y", *QUICK, "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert "1 column as 1 feature;" in result.stderr
    assert "left out is __index_level_0__" in result.stderr


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_labels_may_be_names_and_numbers(tmp_path, suffix):
    """And one of them, or a category, may be called as missing values are in CSV files."""
    columns = {"a": ["NA", "x", "z", "w"] * 10, "y": ["A", "NA", "1", "2"] * 10}
    as_parquet(tmp_path / "d.parquet", **columns)
    rows = zip(columns["a"], columns["y"], strict=True)
    (tmp_path / "d.csv").write_text("a,y\n" + "".join(f"{a},{y}\n" for a, y in rows))
    options = ["--epochs", "60", "--learning-rate", "0.1", "--workers", "1"]
    run = tmp_path / "run"
    result = call("train", tmp_path / "d.parquet", "--target", "y", *options, "--out", run)
    assert result.exit_code == 0, result.output
    assert call("predict", run, tmp_path / f"d{suffix}").stdout.split()[1:] == columns["y"]
    assert re.search(r"Accuracy +100", call("evaluate", run, tmp_path / f"d{suffix}").stdout)


SPELLINGS = {
    "lower": ["true", "false"], "title": ["True", "False"], "upper": ["TRUE", "FALSE"],
    "mixed": ["TRUE", "false", "true", "False"],
}  # fmt: skip


@pytest.mark.parametrize("learnt", [*SPELLINGS, "parquet"])
def test_bools_are_the_same_classes_and_categories_however_they_are_spelt(tmp_path, learnt):
    for name, (yes, no, *more) in SPELLINGS.items():
        rows = [f"{word},{word}\n" for word in (yes, no, *(more or (yes, no)))]
        (tmp_path / f"{name}.csv").write_text("a,y\n" + "".join(rows * 10))
    data, run = tmp_path / f"{learnt}.csv", tmp_path / "run"
    if learnt == "parquet":
        data = data.with_suffix(".parquet")
        as_parquet(data, a=["True", "False"] * 20, y=[True, False] * 20)
    options = ["--epochs", "60", "--learning-rate", "0.1", "--workers", "1", "--out", run]
    result = call("train", data, "--target", "y", *options)
    assert result.exit_code == 0, result.output
    assert read_run(run).preprocessing.target.labels == ("False", "True")
    for name in SPELLINGS:
        predicted = call("predict", run, tmp_path / f"{name}.csv")
        assert predicted.stdout.split()[1:] == ["True", "False"] * 20
        assert "the training had not" not in predicted.stderr
        assert re.search(r"Accuracy +100", call("evaluate", run, tmp_path / f"{name}.csv").stdout)


def test_missing_targets_of_a_parquet_file_are_told_without_csv(tmp_path):
    as_parquet(tmp_path / "d.parquet", a=[1, 2, 3], y=["u", None, "v"])
    result = call("train", tmp_path / "d.parquet", "--target", "y")
    refused(result, r"the first is sample 2\. Leave those samples out\.\n$")


def test_a_long_cell_is_learnt_and_not_printed_whole(tmp_path):
    data, run, letter = tmp_path / "d.csv", tmp_path / "run", "x" * 200_000
    data.write_text("a,y\n" + f"{letter},u\n{letter}y,v\n" * 9)
    result = call("train", data, "--target", "y", *QUICK, "--out", run)
    assert result.exit_code == 0, result.output
    data.write_text(f"a,y\n{letter}z,u\n{letter},{letter}\n")
    result = call("predict", run, data)
    assert "'a' in 1 of 2 samples (e.g. 'xxx" in result.stderr
    assert len(result.stderr) < 500
    assert len(refused_text(call("evaluate", run, data))) < 500


def test_numbers_taken_for_classes(tmp_path):
    (tmp_path / "d.csv").write_text("a,y\n" + "".join(f"{i},{i}.5\n" for i in range(30)))
    result = call("train", tmp_path / "d.csv", "--target", "y", "--task", "classification")
    refused(result, "of 30 of the 30 classes.*or --task regression if 'y' is a number")


def test_text_that_is_perhaps_meant_as_numbers_is_said(tmp_path):
    rows = ["a;b;y", *["1,5;u;x", "2;v;z"] * 10]
    (tmp_path / "d.csv").write_text("\n".join(rows))
    result = call("train", tmp_path / "d.csv", "--target", "y", *QUICK, "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert "column 'a' is taken for text." in result.stderr
    assert "'b'" not in result.stderr


def test_data_that_is_no_file(tmp_path):
    refused(call("train", tmp_path / "no.csv", "--target", "y"), "there is no")
    refused(call("train", tmp_path, "--target", "y"), "is a folder")


def test_a_folder_that_holds_a_run_is_not_overwritten(run, data):
    refused(call("train", data, "--target", "kind", *QUICK, "--out", run), "already holds one")


def test_a_folder_with_something_of_the_users_is_not_written_to(data, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    refused(call("train", data, "--target", "kind", *QUICK, "--out", tmp_path), "'report.html'")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    refused(call("train", data, "--target", "kind", *QUICK, "--out", data), "is a file")


def test_checkpoints_may_lie_in_the_runs_folder(data, tmp_path):
    """As where a training was killed, so that its folder holds nothing else yet."""
    out = tmp_path / "run"
    command = ["train", data, "--target", "kind", *QUICK, "--checkpoint", out / "kept"]
    assert call(*command, "--out", tmp_path / "first").exit_code == 0
    result = call(*command, "--epochs", "5", "--resume", "--out", out)
    assert result.exit_code == 0, result.output
    assert ": resumed: from" in result.stderr


def test_what_is_no_run(tmp_path, data):
    for command in ("evaluate", "predict"):
        refused(call(command, tmp_path, data), "has no run.json")
        refused(call(command, data, data), "is a file")
    refused(call("predict", tmp_path, data, "--workers", "none"), "positive integer")


@pytest.mark.parametrize("option", ["--out", "--checkpoint"])
def test_an_empty_name_is_no_folder(data, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    refused(call("train", data, "--target", "kind", *QUICK, option, ""), option, "empty")
    assert not list(tmp_path.iterdir())


def test_an_empty_name_is_no_file(run, data):
    refused(call("predict", run, data, "--out", ""), "--out.*empty")


def test_predictions_need_the_columns_and_a_place(run, data, tmp_path):
    (tmp_path / "d.csv").write_text(as_csv(flowers(), without=("width",)))
    refused(call("predict", run, tmp_path / "d.csv"), "must have a column 'width'")
    refused(call("predict", run, data, "--out", tmp_path / "no" / "p.csv"), "there is no folder")


def test_an_unknown_class_is_named(run, data, tmp_path):
    (tmp_path / "d.csv").write_text(data.read_text() + "1,2,c1,rose\n")
    refused(call("evaluate", run, tmp_path / "d.csv"), "got 'rose'")


def test_doctor():
    result = call("doctor")
    assert result.exit_code == 0
    compiled = ("kernels of Phalanx", "step of a worker")
    for said in ("cores", "BLAS", *compiled, "numpy", "ray", "meet", "µs", "GB/s"):
        assert said in result.stdout
    assert "failed" not in result.stdout
    numpy = next(line for line in result.stdout.splitlines() if "numpy" in line)
    assert re.search(r"[\d.]+ {3,}$", numpy)  # set to the left, as prose is


def test_demo(tmp_path):
    result = call("demo", "--epochs", "2", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    assert "all 3 digests are equal" in result.stdout
    record = json.loads((tmp_path / "demo" / "run.json").read_text())
    assert [repeat["workers"] for repeat in record["repeats"]] == [1, 2, 3]
    assert "same bits" in (tmp_path / "demo" / "report.html").read_text()


def test_demo_under_chaos(tmp_path):
    result = call("demo", "--chaos", "--epochs", "300", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    assert "all 2 digests are equal" in result.stdout
    assert re.search(r"equal +yes", result.stdout)
    run = json.loads((tmp_path / "demo" / "run.json").read_text())["run"]
    assert sum(event["what"] == "worker lost" for event in run["events"]) >= 3
    assert 'class="mark lost"' in (tmp_path / "demo" / "report.html").read_text()
    refused(call("demo", "--chaos", "--workers", "1", "--out", tmp_path / "one"), "two or more")


def test_the_help_of_the_demo_has_both_numbers_of_epochs():
    said = help_of("demo")
    assert "40; 600 with --chaos" in said


def test_a_demo_that_ends_with_the_first_kill_says_no_more_than_happened(tmp_path):
    result = call("demo", "--chaos", "--epochs", "15", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("kill -9") == 1
    assert re.search(r"under chaos +2 +1 ", result.stdout), result.stdout
    assert "before any worker was killed" not in result.stdout
    assert re.search("1 worker (lost|killed too late to be missed)", result.stdout)
    assert ("1 worker lost" in result.stdout) == ("kills on its timeline" in result.stdout)
    short = call("demo", "--chaos", "--epochs", "2", "--out", tmp_path / "short")
    assert "kill -9" not in short.stderr
    assert "it ended before any worker was killed" in short.stdout


@pytest.mark.parametrize("options", [[], ["--chaos"]])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("last", [1, 9])
def test_an_interrupted_demo_compares_nothing(tmp_path, monkeypatch, options, nth, last):
    begun, fit = [], fitting._fit

    def interrupted(estimator, samples, more):
        begun.append(estimator)
        if len(begun) == nth:
            more["callback"] = lambda epoch, _: epoch == last and signal.raise_signal(signal.SIGINT)
        fit(estimator, samples, more)

    monkeypatch.setattr(fitting, "_fit", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    result = call("demo", "--epochs", "9", "--out", tmp_path / "demo", *options)
    signal.signal(signal.SIGINT, handler)
    assert result.exit_code == 130, result.output
    assert len(begun) == nth
    assert result.stdout == ""
    assert ("interrupted by user" if last == 1 else "after the last step") in result.stderr
    assert not (tmp_path / "demo").exists()


def test_a_difference_of_digests_is_a_failure(tmp_path, monkeypatch):
    from phalanx.run import Run

    monkeypatch.setattr(
        Run, "digest", property(lambda run: "d" * run.workers, lambda *_: None), raising=False
    )
    result = call("demo", "--epochs", "1", "--out", tmp_path / "demo")
    assert result.exit_code == 1
    assert "THE DIGESTS DIFFER" in result.stdout


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_the_help_names_every_kind_of_file(command):
    said = help_of(command).lower()
    assert not [suffix for suffix in READERS if not re.search(rf"\b{suffix[1:]}\b", said)]


@pytest.mark.parametrize(
    "names",
    [SOLVERS, ACTIVATIONS, DISTRIBUTIONS, ASSIGNMENTS, AGGREGATIONS],
    ids=["solvers", "activations", "distributions", "assignments", "aggregations"],
)
def test_the_help_names_every_strategy(names):
    said = help_of("train")
    for name in names:
        assert re.search(rf"\b{name}\b", said), name


def test_an_output_without_our_letters_loses_those_alone(run, data, tmp_path):
    text = data.read_text().replace("<0>", "\u03b1")
    (tmp_path / "d.csv").write_text(text)
    program = [sys.executable, "-m", "phalanx"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    options = ["--target", "kind", *QUICK, "--out", tmp_path / "run"]
    done = subprocess.run(
        [*program, "train", tmp_path / "d.csv", *options], env=env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    command = [*program, "predict", tmp_path / "run", tmp_path / "d.csv", "--proba"]
    said = subprocess.check_output(command, env=env)
    assert "probability_\u03b1" in said.decode()


@pytest.mark.parametrize("command", ["evaluate", "predict", "help"])
def test_a_full_disk_is_one_message(run, data, command):
    arguments = ["--help"] if command == "help" else [command, run, data]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "phalanx", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch("error: output and files must be writable; got No space.*\n", done.stderr)


def test_the_command_line_loads_quickly():
    heavy = ("numpy", "scipy", "sklearn", "pandas", "safetensors", "pyarrow")
    code = f"import sys, phalanx.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_python_m_phalanx():
    command = [sys.executable, "-m", "phalanx", "--version"]
    assert subprocess.check_output(command, text=True).startswith("0.")

"""The kernels, compiled and NumPy's: equal bits; and no harm done by what they cannot take."""

import shutil
import subprocess
import sysconfig
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import random_array

from phalanx import MLPClassifier
from phalanx.pure import kernels
from phalanx.pure.kernels import numpy_kernels

compiled = kernels.form if kernels.IS_COMPILED else None
needs_compiled = pytest.mark.skipif(compiled is None, reason="phalanx was installed without")

KERNELS = [name for name in vars(kernels) if callable(getattr(kernels, name))]
SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-30, -1e-30, 1e-42, 3e38]


def test_they_are_compiled_where_there_is_a_compiler():
    assert kernels.IS_COMPILED or not shutil.which("cc"), "are Python's headers missing?"


def test_both_forms_have_the_same_kernels():
    plain = {name for name, value in vars(numpy_kernels).items() if callable(value)}
    assert set(KERNELS) <= plain
    assert not compiled or set(KERNELS) == {name for name in dir(compiled) if name[0] != "_"}


def numbers(dtype, *shape):
    """Mostly of a magnitude at which sums round."""
    usual = st.floats(-4, 4, width=32)
    return arrays(
        dtype, shape, elements=st.one_of(usual, usual, st.sampled_from(SPECIAL)), fill=usual
    )


@st.composite
def calls(draw, name):
    """Arguments of a kernel."""
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64"])))
    height, width = draw(st.integers(1, 12)), draw(st.sampled_from([0, 1, 2, 16, 63, 64, 65, 1030]))
    n = draw(st.sampled_from([0, 1, 5, 16, 64, 100, 1025]))
    factor = draw(st.floats(-2, 2))
    vector, matrix = numbers(dtype, n), numbers(dtype, height, width)
    rates = [0.9, 0.999, 1e-8, -factor, draw(st.sampled_from([1e-19, 0.5]))]
    apart = numbers(dtype, height, n + 3).map(lambda rows_Sm: rows_Sm[:, :n])
    loose = st.one_of(matrix, numbers(dtype, height, width + 3).map(lambda z_HC: z_HC[:, :width]))
    per_row, per_column = numbers(dtype, height), numbers(dtype, width)
    classes = arrays(np.intp, width, elements=st.integers(0, height - 1))
    kinds = {
        "add_scaled": (vector, st.just(factor), vector),
        "pull": (vector, st.just(factor), vector),
        "shrink": (vector, st.just(factor), st.sampled_from([0.0, 1e-19, 0.5])),
        "adam": (vector, vector, vector.map(np.abs), vector, *map(st.just, rates)),
        "weighted_sum": (vector, apart, per_row),
        "add_bias": (loose, per_row),
        "relu": (loose,),
        "relu_backward": (loose, loose),
        "take_classes": (matrix, classes, per_column),
    }
    if name.endswith("entries"):
        return draw(sparse_products(name, dtype))
    return [draw(kind) for kind in kinds.get(name, (matrix,))]


@st.composite
def sparse_products(draw, name, dtype):
    """Of few or many outputs, with rows that have no entry, and columns twice in a row."""
    outputs = draw(st.sampled_from([1, 7, 15, 16, 17, 31, 32, 33, 48, 64, 70]))
    samples = draw(st.integers(0, 20))
    features = draw(st.sampled_from([1, 2, 15, 16, 40]))
    counts = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
    starts, total = np.cumsum([0, *counts], dtype=np.intp), sum(counts)
    columns = draw(arrays(np.intc, total, elements=st.integers(0, features - 1)))
    index_B = draw(arrays(np.intp, samples, elements=st.integers(0, len(counts) - 1)))
    apart = draw(st.sampled_from([0, 3]))
    out, factor = (
        numbers(dtype, outputs, n + apart).map(lambda z_HC, n=n: z_HC[:, :n])
        for n in (samples, features)
    )
    if name == "correlate_entries":
        out, factor = factor, out
    entries = numbers(dtype, total)
    room_n = np.full(kernels.BAND * (features + samples), np.nan, dtype)
    return [*map(draw, (out, factor)), starts, columns, draw(entries), index_B, room_n]


def moved(value, offset):
    """The same array, behind so many elements of another one."""
    if not isinstance(value, np.ndarray):
        return value
    if not value.flags.c_contiguous:
        z_HC = np.empty((len(value), value.shape[1] + offset + 1), value.dtype)
        z_HC[:, offset:-1] = value
        return z_HC[:, offset:-1]
    flat = np.empty(offset + value.size, value.dtype)[offset:]
    flat[...] = value.reshape(-1)
    return flat.reshape(value.shape)


def bits(value):
    """To be compared; there is more than one NaN, and which of them comes out is left open."""
    array = np.asarray(value)
    if array.dtype.kind != "f":
        return array.tobytes()
    return np.where(np.isnan(array), array.dtype.type(np.nan), array).tobytes()


@needs_compiled
@pytest.mark.parametrize("name", KERNELS)
@given(data=st.data())
def test_equal_bits(name, data):
    same_bits(compiled, name, data)


def same_bits(form, name, data):
    theirs = data.draw(calls(name))
    mine = [moved(x, data.draw(st.integers(0, 3))) for x in theirs]
    with np.errstate(all="ignore"):
        returned = getattr(form, name)(*mine), getattr(numpy_kernels, name)(*theirs)
    assert bits(returned[0] or 0.0) == bits(returned[1] or 0.0)
    for i, (ours, plain) in enumerate(zip(mine, theirs, strict=True)):
        overwritten = (name == "adam" and i == 3) or (name.endswith("entries") and i == 6)
        assert overwritten or bits(ours) == bits(plain), i


VARIANTS = {  # of other processors and compilers
    "vectors of 32 bytes": ["-DWIDEST=32"],
    "vectors of 16 bytes": ["-DWIDEST=16"],
    "no shuffles": ["-DCAN_SHUFFLE=0"],
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    """The kernels, built as they are elsewhere."""
    source = Path(kernels.__file__).with_name("compiled.c")
    built = tmp_path_factory.mktemp("kernels") / "compiled.so"
    flags = [
        "-O3",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-shared",
        "-fPIC",
    ]
    headers = "-I" + sysconfig.get_path("include")
    options = [*flags, *VARIANTS[request.param], headers, str(source), "-o", str(built), "-lm"]
    subprocess.run([shutil.which("cc"), *options], check=True)
    spec = spec_from_file_location("compiled", built)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_compiled
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("name", [name for name in KERNELS if name.endswith("entries")])
@given(data=st.data())
def test_equal_bits_whatever_the_width_of_vectors(variant, name, data):
    same_bits(variant, name, data)


def a(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def sparse(**changed):
    """Arguments of a sparse product of 3 outputs, 4 samples and 5 features."""
    right = {
        "out": a(3, 4),
        "factor": a(3, 5),
        "starts": np.array([0, 2, 3]),
        "columns": np.array([0, 4, 1], np.intc),
        "entries": a(3),
        "index": np.array([0, 1, 1, 0]),
        "room": a(kernels.BAND * 9),
    }
    return [changed.get(name, value) for name, value in right.items()]


BAD = {
    "another type": ("relu", [a(2, 2, dtype="float16")], TypeError, "float32 or all of float64"),
    "two types": ("add_scaled", [a(3), 1.0, a(3, dtype="float64")], TypeError, "got format 'd'"),
    "no array": ("relu", [3.0], TypeError, "bytes-like"),
    "no number": ("add_scaled", [a(3), "x", a(3)], TypeError, "real number"),
    "too few": ("add_scaled", [a(3), 1.0], TypeError, "takes 3 arguments; got 2"),
    "gaps": ("relu", [a(4, 4)[:, ::2]], ValueError, "contiguous"),
    "lengths": ("add_scaled", [a(3), 1.0, a(4)], ValueError, "of one length"),
    "lengths of pull": ("pull", [a(3), 1.0, a(4)], ValueError, "of one length"),
    "moments": ("adam", [a(3), a(3), a(2), a(3), *range(5)], ValueError, "of one length"),
    "sizes": ("relu_backward", [a(3, 2), a(2, 2)], ValueError, "of one size"),
    "a vector": ("subtract_max", [a(3)], ValueError, "matrix"),
    "a vector of neurons": ("relu", [a(3)], ValueError, "matrix"),
    "gaps in rows of biases": ("add_bias", [a(3, 4)[:, ::2], a(3)], ValueError, "contiguous"),
    "gaps in deltas": ("relu_backward", [a(3, 2), a(3, 4)[:, ::2]], ValueError, "contiguous"),
    "no row": ("divide_by_sum", [a(0, 3)], ValueError, "matrix"),
    "biases": ("add_bias", [a(3, 2), a(2)], ValueError, "every row has a bias"),
    "no rows": ("weighted_sum", [a(3), a(0, 3), a(0)], ValueError, "at least one row"),
    "a row": ("weighted_sum", [a(3), a(3), a(3)], ValueError, "matrix"),
    "gaps in rows": ("weighted_sum", [a(2), a(2, 4)[:, ::2], a(2)], ValueError, "contiguous"),
    "weights": ("weighted_sum", [a(3), a(2, 3), a(3)], ValueError, "every row has a weight"),
    "a short sum": ("weighted_sum", [a(2), a(2, 3), a(2)], ValueError, "as long as a row"),
    "classes of floats": ("take_classes", [a(2, 2), a(2), a(2)], TypeError, "integers of 8"),
    "too few classes": ("take_classes", [a(2, 2), np.zeros(1, int), a(2)], ValueError, "a class"),
    "likelihoods": ("take_classes", [a(2, 2), np.zeros(2, int), a(3)], ValueError, "a likelihood"),
    "a class": ("take_classes", [a(2, 2), np.array([0, 2]), a(2)], IndexError, "class 2 of 2"),
    "entries of another type": (
        "project_entries",
        sparse(entries=a(3, dtype="float64")),
        TypeError,
        "got format 'd'",
    ),
    "a vector of weights": ("project_entries", sparse(factor=a(5)), ValueError, "matrix"),
    "starts": ("project_entries", sparse(starts=a(3)), TypeError, "starts are integers of 8"),
    "columns": (
        "project_entries",
        sparse(columns=np.array([0, 4, 1])),
        TypeError,
        "columns are integers",
    ),
    "indices": ("project_entries", sparse(index=a(4)), TypeError, "indices are integers"),
    "outputs": ("project_entries", sparse(factor=a(2, 5)), ValueError, "a row for each output"),
    "samples": ("project_entries", sparse(index=np.zeros(3, int)), ValueError, "has a column"),
    "columns of entries": ("project_entries", sparse(entries=a(2)), ValueError, "has a column"),
    "room": (
        "correlate_entries",
        sparse(out=a(3, 5), factor=a(3, 4), room=a(kernels.BAND * 9 - 1)),
        ValueError,
        "room",
    ),
    "a row behind the last": (
        "project_entries",
        sparse(index=np.array([0, 1, 2, 0])),
        IndexError,
        "row 2 of 2",
    ),
    "a row before the first": (
        "project_entries",
        sparse(index=np.array([0, 1, -1, 0])),
        IndexError,
        "row -1 of 2",
    ),
    "starts behind the entries": (
        "project_entries",
        sparse(starts=np.array([0, 2, 4])),
        ValueError,
        "lie in the entries",
    ),
    "starts that fall": (
        "project_entries",
        sparse(starts=np.array([2, 0, 3])),
        ValueError,
        "lie in the entries",
    ),
    "a column": (
        "project_entries",
        sparse(columns=np.array([0, 5, 1], np.intc)),
        IndexError,
        "column 5 of 5",
    ),
    "a negative column": (
        "correlate_entries",
        sparse(out=a(3, 5), factor=a(3, 4), columns=np.array([0, -1, 1], np.intc)),
        IndexError,
        "column",
    ),
    "below": ("take_classes", [a(2, 2), np.array([0, -1]), a(2)], IndexError, "class -1 of 2"),
}


@needs_compiled
@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_taken_changes_nothing(case):
    name, args, error, said = BAD[case]
    before = [np.copy(x) for x in args]
    with pytest.raises(error, match=said):
        getattr(compiled, name)(*args)
    for x, old in zip(args, before, strict=True):
        np.testing.assert_array_equal(x, old)


@pytest.mark.parametrize("form", [kernels.form, numpy_kernels])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse_products_are_those_of_scipy(form, dtype):
    rng = np.random.default_rng(0)
    x = random_array((50, 300), density=0.1, format="csr", dtype=dtype, rng=rng)
    index_B, room_n = rng.integers(50, size=30), np.empty(kernels.BAND * 330, dtype)
    csr = x.indptr.astype(np.intp), x.indices.astype(np.intc), x.data
    weight_HF, delta_HB = (rng.normal(size=(100, n)).astype(dtype) for n in (300, 30))
    out_HB, out_HF = (np.empty((100, n), dtype) for n in (30, 300))
    form.project_entries(out_HB, weight_HF, *csr, index_B, room_n)
    form.correlate_entries(out_HF, delta_HB, *csr, index_B, room_n)
    np.testing.assert_allclose(out_HB, (x[index_B] @ weight_HF.T).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out_HF, (x[index_B].T @ delta_HB.T).T, rtol=1e-5, atol=1e-5)


@needs_compiled
def test_what_is_read_only_stays():
    frozen = a(3)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        compiled.relu(frozen)
    compiled.add_scaled(a(3), 1.0, frozen)


@needs_compiled
def test_a_number_cannot_take_an_array_away():
    class Freeing:
        def __float__(self):
            y_n.resize(1_000, refcheck=False)
            return 1.0

    y_n = a(3)
    with pytest.raises(ValueError, match="of one length"):
        compiled.add_scaled(y_n, Freeing(), a(3))


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("hidden", "shards"), [((30,), 1), ((30,), 2), ((300, 200), 2)])
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_training_comes_to_the_same_bits_without_compiled_kernels(
    solver, dtype, hidden, shards, monkeypatch
):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 12)).astype(dtype), rng.integers(3, size=90)
    x[:, 3] = 0

    def trained():
        network = MLPClassifier(hidden, solver=solver, max_iter=3, random_state=0)
        network.set_params(shards=shards, batch_size=40).fit(x, y)
        return network.run_.digest, network.loss_curve_

    check_without_compiled(trained, monkeypatch)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [(30,), (300, 200)])
def test_of_sparse_samples_too(dtype, hidden, monkeypatch):
    x = random_array((90, 400), density=0.05, format="csr", dtype=dtype, rng=0)
    y = np.arange(90) % 3

    def trained():
        network = MLPClassifier(hidden, max_iter=3, random_state=0, batch_size=40, shards=2)
        network.fit(x, y)
        return network.run_.digest, network.loss_curve_

    assert check_without_compiled(trained, monkeypatch) >= {"project_entries", "correlate_entries"}


def check_without_compiled(trained, monkeypatch):
    """What a training calls comes to the same in NumPy's form; which kernels these are."""
    as_installed, called = trained(), set()

    def noted(name, *args):
        called.add(name)
        return getattr(numpy_kernels, name)(*args)

    for name in KERNELS:
        monkeypatch.setattr(kernels, name, partial(noted, name))
    assert trained() == as_installed
    assert called >= {"add_bias", "pull", "relu", "relu_backward", "subtract_max", "take_classes"}
    return called

"""Reading data files: what is understood, and what is said of what is not."""

from __future__ import annotations

import csv
import re
import sys

import numpy as np
import pytest
from scipy.sparse import csr_matrix, save_npz

from phalanx.data.files import read_table
from phalanx.data.lookalikes import resemblance
from phalanx.errors import InvalidInput

GOOD = "a,b,y\n1,red,0\n2,blue,1\n"


def written(folder, text, name="data.csv"):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_numbers_and_text_of_a_csv(tmp_path):
    table = read_table(written(tmp_path, GOOD))
    assert table.names == ["a", "b", "y"]
    assert table["a"].tolist() == [1.0, 2.0]
    assert table["b"].tolist() == ["red", "blue"]


DELIMITED = {
    "tabs, a comma in a name": ("a,b,c,d\tb\n1\t2\n", ".tsv", ["a,b,c,d", "b"]),
    "tsv that is none": ("a,b\n1,2\n", ".tsv", ["a", "b"]),
    "commas in quotes": ('"a,b,c";d\n1;2\n', ".csv", ["a,b,c", "d"]),
    "quotes in quotes": ('"a "",;,"" b";"c,";d\n1;2;3\n', ".csv", ['a ",;," b', "c,", "d"]),
    "a quoted newline": ('a;"b,\nc,";d\n1;2;3\n', ".csv", ["a", "b,\nc,", "d"]),
    "a blank line first": ("\n\r\na;b\n1;2\n", ".csv", ["a", "b"]),
    "Excel": ("sep=;\r\na,b;c\r\n1;2\r\n", ".csv", ["a,b", "c"]),
    "Excel, quoted": ('\ufeff"sep=,"\na;b,c\n1,2\n', ".csv", ["a;b", "c"]),
    "Excel, a bar": ("sep=|\na|b\n1|2\n", ".txt", ["a", "b"]),
    "Excel, a tab": ("sep=\t\na\tb\n1\t2\n", ".csv", ["a", "b"]),
    "counted by pandas": ("0,1,2\n5,6,7\n", ".csv", ["0", "1", "2"]),
}


@pytest.mark.parametrize("case", DELIMITED)
def test_the_names_in_the_header(tmp_path, case):
    text, suffix, names = DELIMITED[case]
    table = read_table(written(tmp_path, text, f"data{suffix}"))
    assert table.names == names
    assert table.n_rows == 1


def test_a_line_below_excels_keeps_its_number(tmp_path):
    with pytest.raises(InvalidInput, match="line 4 has 1"):
        read_table(written(tmp_path, "sep=;\na;b\n1;2\n3\n"))
    with pytest.raises(InvalidInput, match="file is empty"):
        read_table(written(tmp_path, "sep=;\n"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_seen_from_the_header(tmp_path, delimiter):
    table = read_table(written(tmp_path, GOOD.replace(",", delimiter)))
    assert table.names == ["a", "b", "y"]


def test_byte_order_mark_blank_lines_quotes_and_missing_values(tmp_path):
    text = '\ufeffa,"b, c"\r\n1,"x ""y"""\r\n\r\nNA,\r\n-2e3, z \r\n'
    table = read_table(written(tmp_path, text))
    np.testing.assert_array_equal(table["a"], [1, np.nan, -2000])
    assert table["b, c"].tolist() == ['x "y"', "", "z"]


BAD_CSV = {
    "empty file": ("", "file is empty"),
    "blank lines alone": ("\n\n", "file is empty"),
    "header only": ("a,b,y\n", "header alone"),
    "duplicate columns": ("a,b,a\n1,2,3\n", "'a' names column 1 and column 3"),
    "unnamed column": (",a,y\n0,1,2\n", "column 1 has none"),
    "an index of pandas": (",0,1\n0,5,6\n", "column 1 has none.*index=False"),
    "no header": ("1,2,3\n4,5,6\n", "first line holds only numbers"),
    "short line": ("a,b,y\n1,2,3\n4,5\n", "line 3 has 2"),
    "long line": ("a,b,y\n1,2,3\n4,5,6,7\n", "line 3 has 4"),
    "ragged after a quoted newline": ('a,b\n"x\ny",1\n2\n', "line 4 has 1"),
    "open quote": ('a,b\n"1,2\n', "well-formed CSV"),
    "not UTF-8": (b"a,b\n\xe9\xe8,1\n", "UTF-8; byte 5, 0xe9 in line 2, is not"),
    "not UTF-8 far below": (
        b"a,b\n" + b"1,2\n" * 50_000 + b"x\xe9,1\n",
        "byte 200,006, 0xe9 in line 50,002, is not",
    ),
    "bytes of zero": (b"a\x00,b\n1,1\n", "byte of zero"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv(tmp_path, case):
    content, said = BAD_CSV[case]
    with pytest.raises(InvalidInput, match=said):
        read_table(written(tmp_path, content))


def test_text_among_numbers_is_an_error_where_the_column_is_used(tmp_path):
    path = written(tmp_path, "an a,b\n1,1\n2,2\nthree,3\n")
    table = read_table(path)
    with pytest.raises(InvalidInput, match=r"line 4 has 'three'.*--drop 'an a'\.$"):
        table["an a"]
    assert table.without(["an a"]).names == ["b"]


def test_leading_zeros_make_a_column_text(tmp_path):
    cells = ["a,b,c,d", "01,0.5,0,007", "1,-0.25,10,x", "1A,00.5,0e1,"]
    table = read_table(written(tmp_path, "\n".join(cells)))
    assert table["a"].tolist() == ["01", "1", "1A"]
    assert table["b"].tolist() == [0.5, -0.25, 0.5]
    assert table["c"].tolist() == [0, 10, 0]
    assert table["d"].tolist() == ["007", "x", ""]


BIG = 2**53  # float64 has it, and the next whole number that it has is BIG + 2


def test_whole_numbers_that_float64_would_round_make_a_column_text(tmp_path):
    cells = ["a,b,c,d,e", f"{BIG},{BIG},{BIG + 1}.0,{BIG + 1},\x1c-{BIG + 1}", "7,1e400,2,NA,x"]
    table = read_table(written(tmp_path, "\n".join(cells)))
    assert table["a"].tolist() == [BIG, 7]  # no cell would be rounded
    assert table["b"].tolist() == [BIG, np.inf]
    assert table["c"].tolist() == [BIG, 2]  # a point says that it is measured
    assert table["d"].tolist() == [str(BIG + 1), ""]
    assert table["e"].tolist() == [f"-{BIG + 1}", "x"]
    digits = "9" * 5000  # more than Python's int takes from a text
    assert read_table(written(tmp_path, f"a,b\n{digits},1\n"))["a"].tolist() == [digits]


def test_whole_numbers_learnt_as_numbers_are_kept_apart(tmp_path):
    """They may be labels, of which the training had none that float64 would round."""
    path = written(tmp_path, f"a,b,c\n{BIG},0.5,{2**64}\n{BIG + 1},{BIG + 1},{2**64 + 1}\n")
    table = read_table(path, {"a": None, "b": None, "c": None})
    assert table["a"].tolist() == [BIG, BIG + 1]
    assert table["b"].tolist() == [0.5, BIG]
    assert table["c"].tolist() == [2.0**64, 2.0**64]


def test_a_cell_may_be_long(tmp_path):
    limit = csv.field_size_limit()
    letter = "x" * (limit + 1)
    table = read_table(written(tmp_path, f"a,b\n1,{letter}\n2,\n"))
    assert table["b"].tolist() == [letter, ""]
    assert csv.field_size_limit() == limit
    with pytest.raises(InvalidInput, match=r"line 4 has 'x+\.\.\.x+'\. Correct") as error:
        read_table(written(tmp_path, f"a,b\n1,1\n2,2\n{letter},3\n"))["a"]
    assert len(str(error.value)) < 500


def test_what_only_python_takes_for_a_number_is_text(tmp_path):
    cells = ["a,b,c", "1_1,\u0661,\u00a02", "1_000,\u0662,3", "2,3,4"]
    path = written(tmp_path, "\n".join(cells))
    for learnt in (None, {"a": None, "b": None, "c": None}):
        table = read_table(path, learnt)
        assert table["a"].tolist() == ["1_1", "1_000", "2"]
        assert table["b"].tolist() == ["\u0661", "\u0662", "3"]
        assert table["c"].tolist() == [2, 3, 4]  # blanks around a number may be of any kind
    few = read_table(written(tmp_path, "a,b\n1,1\n2,2\n1_1,3\n"))
    with pytest.raises(InvalidInput, match="holds numbers, but line 4 has '1_1'"):
        few["a"]


ONE_COLUMN = {
    "none": ("a\n1\n2\n", [1, 2]),
    "in between": ("a\n1\n\n2\n", [1, np.nan, 2]),
    "at the end": ("a\r\n1\r\n2\r\n\r\n", [1, 2]),
    "two at the end": ("a\n1\n2\n\n\n", [1, 2, np.nan]),
    "before the header": ("\na\n1\n\n2", [1, np.nan, 2]),
    "first": ("a\n\n1\n", [np.nan, 1]),
}


@pytest.mark.parametrize("case", ONE_COLUMN)
def test_a_blank_line_is_a_sample_of_a_single_column(tmp_path, case):
    text, values = ONE_COLUMN[case]
    np.testing.assert_array_equal(read_table(written(tmp_path, text))["a"], values)


def test_what_was_learnt_decides_how_a_column_is_read(tmp_path):
    path = written(tmp_path, "a,b,c\n01,5,02\n2,NA,3\n")
    table = read_table(path, {"a": None, "b": ("5",)})
    assert table["a"].tolist() == [1, 2]
    assert table["b"].tolist() == ["5", ""]
    assert table["c"].tolist() == ["02", "3"]


def test_bools_are_spelt_alike_where_a_column_has_nothing_else(tmp_path):
    path = written(tmp_path, "a,b,c\ntrue,true,true\nFALSE,yes,\nTrue,FALSE,NA\n")
    table = read_table(path)
    assert table["a"].tolist() == ["True", "False", "True"]
    assert table["b"].tolist() == ["true", "yes", "FALSE"]
    assert table["c"].tolist() == ["True", "", ""]


def test_a_category_may_be_called_like_a_missing_value(tmp_path):
    path = written(tmp_path, "a,b\nNA,NA\nna,?\n,x\n")
    table = read_table(path, {"a": ("NA", "EU"), "b": ("?", "x")})
    assert table["a"].tolist() == ["NA", "", ""]
    assert table["b"].tolist() == ["", "?", "x"]


def test_nobody_is_told_to_drop_a_column_that_a_network_needs(tmp_path):
    path = written(tmp_path, "a,b\n1,1\n2,2\nthree,3\n")
    with pytest.raises(InvalidInput, match="Correct the cell") as error:
        read_table(path, {"a": None})["a"]
    assert "--drop" not in str(error.value)


NUMBERS_AS_TEXT = {
    "decimal comma": (["1,5", "-0,25", "3"], "decimal comma, e.g. '1,5': write a point"),
    "points between thousands": (["1.234,56", "7,1"], "decimal comma"),
    "thousands": (["1,234", "12", "-1,234,567.5"], "commas between thousands, e.g. '1,234'"),
    "codes": (["12", "01"], "a leading zero, e.g. '01'"),
    "long codes": (["12", "-9007199254740993"], "float64 would round.*e.g. '-9007199254740993'"),
    "lists": (["1,2,3", "4,5"], ""),
    "words": (["1,5", "x"], ""),
    "codes and words": (["01", "x"], ""),
    "nothing": ([""], ""),
}


@pytest.mark.parametrize("case", NUMBERS_AS_TEXT)
def test_text_that_looks_like_numbers(case):
    cells, said = NUMBERS_AS_TEXT[case]
    assert re.search(said, resemblance(cells)) if said else resemblance(cells) == ""


def test_a_decimal_comma_among_numbers_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"line 4 has '2,5'.*decimal comma"):
        read_table(written(tmp_path, "a;b\n1;1\n2;2\n2,5;3\n"))["a"]


def test_a_missing_column_is_answered_with_the_nearest(tmp_path):
    table = read_table(written(tmp_path, "species,width\nx,1\ny,2\n"))
    with pytest.raises(InvalidInput, match="Did you mean 'species'"):
        table["spesies"]
    with pytest.raises(InvalidInput, match="must have a column 'nope'"):
        table.without(["nope"])


def test_what_is_no_file(tmp_path):
    with pytest.raises(InvalidInput, match=r"there is no .*nowhere\.csv"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(InvalidInput, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(InvalidInput, match=r"Did you mean '\.parquet'"):
        read_table(written(tmp_path, GOOD, "data.parket"))
    with pytest.raises(InvalidInput, match=r"must be one of '\.csv'"):
        read_table(written(tmp_path, GOOD, "data"))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_what_is_compressed_is_to_be_decompressed(tmp_path, suffix):
    with pytest.raises(InvalidInput, match=r"data\.csv\.\w+ is, by its suffix\. Decompress it"):
        read_table(written(tmp_path, b"", f"data.csv{suffix}"))


def test_npz_matrix_and_columns(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=np.arange(6.0).reshape(3, 2), y=np.array(["u", "v", "u"]), z=[[1], [2], [3]])
    table = read_table(path)
    assert table.names == ["X_0", "X_1", "y", "z"]
    assert table["X_1"].tolist() == [1, 3, 5]
    assert table["y"].tolist() == ["u", "v", "u"]


def test_no_array_takes_the_place_of_anothers_column(tmp_path):
    for arrays in ({"X": np.zeros((3, 2)), "X_0": np.ones(3)}, {"X_1": np.ones(3), "X": np.eye(3)}):
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(InvalidInput, match=r"got 'X_[01]' twice.*Rename one"):
            read_table(tmp_path / "d.npz")


def test_bad_npz(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, X=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(InvalidInput, match="one row a sample"):
        read_table(path)
    save_npz(path, csr_matrix(np.eye(3)))
    with pytest.raises(InvalidInput, match="save_npz is for MLPClassifier in Python"):
        read_table(path)
    np.savez(path, X=np.zeros((3, 2, 2)), y=np.zeros(3))
    with pytest.raises(InvalidInput, match="Reshape it"):
        read_table(path)["X"]
    np.savez(path, y=np.array([{}], object))
    with pytest.raises(InvalidInput, match="holds pickled objects"):
        read_table(path)
    np.savez(path, X=np.zeros((0, 2)))
    with pytest.raises(InvalidInput, match="must have samples"):
        read_table(path)
    np.savez(path)
    with pytest.raises(InvalidInput, match="holds none"):
        read_table(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no zip at all"])
def test_damaged_npz(tmp_path, content):
    with pytest.raises(InvalidInput, match="must be an NPZ file"):
        read_table(written(tmp_path, content, "d.npz"))


def test_a_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "d.npy", np.zeros(3))
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    with pytest.raises(InvalidInput, match="single array"):
        read_table(tmp_path / "d.npz")


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "i": pa.array([1, None, 3]),
        "b": pa.array([True, False, True]),
        "t": pa.array(["x", None, "y"]),
        "c": pa.array(["x", "y", "x"]).dictionary_encode(),
        "l": pa.array([[1], [2], [3]]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "d.parquet")
    table = read_table(tmp_path / "d.parquet")
    np.testing.assert_array_equal(table["i"], [1, np.nan, 3])
    assert table["b"].tolist() == [True, False, True]
    assert table["t"].tolist() == ["x", "", "y"]
    assert table["c"].tolist() == ["x", "y", "x"]
    with pytest.raises(InvalidInput, match="--drop l"):
        table["l"]


def parquet_of(path, **columns):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
    return path


def test_integers_of_parquet_that_float64_would_round_are_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    columns = {
        "a": pa.array([BIG, BIG + 1]),
        "b": pa.array([2**64 - 1, 7], pa.uint64()),
        "c": pa.array([-BIG - 1, None]),
        "d": pa.array([BIG + 1, BIG]).dictionary_encode(),
        "e": pa.array([-(2**63), 10**18]),
        "f": pa.array([-128, 7], pa.int8()),
        "g": pa.array([None, None], pa.int64()),
    }
    table = read_table(parquet_of(tmp_path / "d.parquet", **columns))
    assert table["a"].tolist() == [str(BIG), str(BIG + 1)]
    assert table["b"].tolist() == [str(2**64 - 1), "7"]
    assert table["c"].tolist() == [str(-BIG - 1), ""]
    assert table["d"].tolist() == [str(BIG + 1), str(BIG)]
    assert table["e"].tolist() == [-(2**63), 10**18]  # float64 has them
    assert table["f"].tolist() == [-128, 7]
    assert np.isnan(table["g"]).all()


def test_integers_of_parquet_are_read_as_they_were_learnt(tmp_path):
    path = parquet_of(tmp_path / "d.parquet", a=[BIG, BIG + 1], b=[BIG + 1, None], c=[1, None])
    table = read_table(path, {"a": None, "b": None, "c": ("1",)})
    assert table["a"].tolist() == [BIG, BIG + 1]
    np.testing.assert_array_equal(table["b"], [BIG, np.nan])
    assert table["c"].tolist() == ["1", ""]


def test_missing_values_of_parquet_are_read_as_the_column_was_learnt(tmp_path):
    pa = pytest.importorskip("pyarrow")
    none = pa.nulls(2)
    path = parquet_of(tmp_path / "d.parquet", a=[True, None], b=[True, None], n=none, t=none)
    table = read_table(path, {"a": None, "b": ("False", "True"), "n": None, "t": ("x",)})
    np.testing.assert_array_equal(table["a"], [1, np.nan])
    assert table["b"].tolist() == ["True", ""]
    np.testing.assert_array_equal(table["n"], [np.nan, np.nan])
    assert table["t"].tolist() == ["", ""]
    assert np.isnan(read_table(path)["n"]).all()


def test_every_kind_of_arrows_texts_is_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    kinds = [pa.string(), pa.large_string(), pa.string_view()]
    columns = {f"{kind}": pa.array(["x", None], kind) for kind in kinds}
    table = read_table(parquet_of(tmp_path / "d.parquet", **columns))
    assert [table[name].tolist() for name in table.names] == [["x", ""]] * 3


def test_an_index_without_a_name_is_no_column(tmp_path):
    path = parquet_of(tmp_path / "d.parquet", a=[1, 2], __index_level_0__=[3, 4])
    table = read_table(path)
    assert table.names == ["a"]
    assert table.left_out == ("__index_level_0__",)
    assert table.without(["__index_level_0__"]).names == ["a"]
    assert read_table(path, {"__index_level_0__": None}).names == ["a", "__index_level_0__"]


def test_bad_parquet(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    path = written(tmp_path, b"PAR1 cut off", "d.parquet")
    with pytest.raises(InvalidInput, match="must be a Parquet file"):
        read_table(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidInput, match=r"Run `pip install pyarrow`"):
        read_table(path)

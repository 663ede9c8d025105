"""The arena's fields, filled through its file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from phalanx.arena import Arena, Field, Fields

Shared = tuple[Arena, int, Fields]
ODD_DTYPES = ("float32", ">f8", "float16", "bool", "int64")


def shared(values: np.ndarray) -> Shared:
    fields = {"before": Field((3,)), "x": Field(values.shape, values.dtype.str), "y": Field((5,))}
    return *Arena.shared(fields), fields


@pytest.fixture
def opened() -> Iterator[list[int]]:
    descriptors: list[int] = []
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("dtype", ODD_DTYPES)
@pytest.mark.parametrize("shape", [(700, 11), (0, 4), (5,)])
def test_whoever_attaches_the_arena_finds_what_was_filled_in(dtype, shape, opened):
    values = (np.arange(np.prod(shape, dtype=int)) % 7).astype(dtype).reshape(shape)
    arena, descriptor, fields = shared(values)
    opened.append(descriptor)
    arena.fill("x", values, descriptor)
    theirs = Arena.attach(fields, descriptor)
    for seen in (arena, theirs):
        np.testing.assert_array_equal(seen["x"], values)
        assert not seen["before"].any()
        assert not seen["y"].any()


@pytest.mark.parametrize(
    "view", [np.asfortranarray, lambda a: a[::2], lambda a: a[:, 1:3], lambda a: a[::-1]]
)
def test_what_does_not_lie_in_one_piece_is_filled_in_as_well(view, opened):
    values = view(np.arange(60.0).reshape(12, 5))
    arena, descriptor, _ = shared(values)
    opened.append(descriptor)
    arena.fill("x", values, descriptor)
    np.testing.assert_array_equal(arena["x"], values)


def test_large_values_are_written_piece_by_piece(monkeypatch, opened):
    monkeypatch.setattr("phalanx.arena.AT_ONCE", 1_000)
    values = np.arange(12_345.0)
    arena, descriptor, _ = shared(values)
    opened.append(descriptor)
    arena.fill("x", values, descriptor)
    np.testing.assert_array_equal(arena["x"], values)


def test_no_room_is_told_as_such(opened):
    values = np.arange(10.0)
    arena, _, _ = written = shared(values)
    opened.append(written[1])
    for_reading = os.open(os.devnull, os.O_RDONLY)
    opened.append(for_reading)
    with pytest.raises(MemoryError, match="no room for"):
        arena.fill("x", values, for_reading)

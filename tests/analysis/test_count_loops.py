"""Compiled loops against NumPy: every pattern is counted once, whatever the shape."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asced_analysis.counts.bit_patterns import INFINITY
from asced_analysis.counts.histograms import merge_counts
from asced_analysis.counts.tally import Tally, count
from asced_stores.errors import InputError

SHAPES = [(1, 2, 1, 1, 1), (3, 5, 2, 3, 7), (20, 4, 1, 2, 1000), (2, 3, 1, 1, 20_000)]


@settings(deadline=None, max_examples=25)
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([np.float16, np.float32]),
    signed=st.booleans(),
    lag=st.integers(0, 1),
    seed=st.integers(0, 2**16),
)
def test_steps_are_counted_as_numpy_computes_them(shape, dtype, signed, lag, seed):
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        data = np.exp(rng.normal(0, 4, shape)) * rng.choice([-1, 1], shape)
        data = data.astype(dtype)
    data[rng.random(shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0])
    runs = np.flatnonzero(rng.random(shape[0]) < 0.7)
    first = int(rng.integers(0, shape[1] - lag))
    steps = shape[1] - first
    before, after = rng.normal(0, 100, (2, steps)).astype(np.float32)
    tally = Tally((steps - lag) * shape[3], signed=signed)
    tally.add_steps(data, runs, first, before, after, lag)
    found = tally.finish()

    with np.errstate(invalid="ignore"):
        values = data[runs, first:].astype(np.float32) * before[:, None, None, None]
        if lag:
            values = (values[:, 1:] - values[:, :-1]) * after[1:, None, None, None]
    by_row = values.transpose(1, 3, 0, 2, 4).reshape((steps - lag) * shape[3], -1)
    expected = count(np.ascontiguousarray(by_row), signed=signed)
    finite = np.isfinite(by_row)
    np.testing.assert_array_equal(found.finite, finite.sum(axis=1))
    np.testing.assert_array_equal(found.nan, np.isnan(by_row).sum(axis=1))
    np.testing.assert_array_equal(found.infinite, np.isinf(by_row).sum(axis=1))
    if found.finite.any():
        np.testing.assert_array_equal(found.keys, expected.keys)
        np.testing.assert_array_equal(found.table, expected.table)
    for row, counts in zip(by_row, found.table, strict=True):
        pattern = row[np.isfinite(row)].view(np.uint32)
        keys = (pattern & np.uint32(0x7FFFFFFF)).astype(np.int64) >> 12
        if signed:
            keys = np.where(pattern >> np.uint32(31), -keys, keys)
        used, number = np.unique(keys, return_counts=True)
        np.testing.assert_array_equal(found.keys[counts > 0], used)
        np.testing.assert_array_equal(counts[counts > 0], number)


def test_counts_take_as_few_bytes_as_hold_them():
    few = count(np.ones((2, 100), np.float32))
    many = count(np.ones((2, 40_000), np.float32))
    assert few.table.itemsize == 1
    assert many.table.itemsize == 4
    whole = merge_counts([few] * 300 + [many])
    assert whole.finite.tolist() == [70_000, 70_000]
    zeros = np.array([[0.0] * 100 + [-0.0] * 100], np.float32)
    assert count(zeros, signed=True).finite.tolist() == [200]
    assert count(np.full((1, 3), np.inf, np.float32)).keys.size == 0
    assert INFINITY["single"] not in few.keys


def test_more_groups_than_a_table_has_places_for_are_refused():
    assert Tally(8192).finish().groups == (8192,)
    with pytest.raises(InputError, match="at most 4096 at once"):
        Tally(4097, signed=True)


@pytest.mark.parametrize("places", ["some", "none"])
def test_loops_are_compiled_even_where_there_is_no_place_to_keep_them(places, tmp_path):
    script = """
import sys
import numpy as np
from numba.core import caching
if sys.argv[1] == "none":
    caching.CacheImpl._locator_classes = []
from asced_analysis.counts.loops import widen
out = np.empty(2, np.float32)
widen(np.array([1.5, -np.inf], np.float16).view(np.int16), out)
assert out.tolist() == [1.5, -np.inf], out
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, places],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr

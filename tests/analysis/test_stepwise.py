"""Derived arrays read and compute what is asked of them, with the numbers of the whole."""

from __future__ import annotations

import pickle

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr

from asced_analysis.signals import stepwise
from asced_analysis.signals.stepwise import combine

VALUES = np.random.default_rng(0).standard_normal((9, 8, 2, 3, 4)).astype(np.float16)
BEFORE, AFTER = np.linspace(1, 3, 8), np.linspace(2, 1, 8)


def plain(values, lag):
    column = (-1, 1, 1, 1)
    scaled = values.astype(np.float32) * BEFORE.astype(np.float32).reshape(column)
    if not lag:
        return scaled
    return AFTER.astype(np.float32).reshape(column)[1:] * np.diff(scaled, axis=1)


class Recorded:
    """An array that remembers what was read of it."""

    def __init__(self, values):
        self.values, self.read = values, []
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        self.read.append(key)
        return self.values[key]


@pytest.fixture(params=["one block", "many blocks"])
def lazy(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(stepwise, "BLOCK_BYTES", 4 * 3 * 24 * 2)
    return lambda values, lag: combine(
        dask.array.from_array(values, chunks=(3, -1, -1, -1, -1)), BEFORE, AFTER, lag, 1
    )


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(
    "key",
    [
        (slice(None), 3),
        (slice(2, 7), slice(1, 4)),
        (4, slice(None), 1),
        (slice(None), -1, slice(None), slice(1, 3)),
        ([7, 0, 2], slice(2, 5)),
        (np.array([7, 0, 2]), slice(2, 5)),
        (slice(None), np.array([5, 1])),
        (slice(None), np.array([], int)),
        (slice(None), [5, 1]),
        (slice(None), slice(None, None, 2)),
        (slice(None), slice(4, 4)),
        (Ellipsis, 0),
        None,
    ],
    ids=str,
)
def test_a_selection_is_that_of_the_whole(lazy, lag, key):
    for values in (VALUES, VALUES.astype(np.float32), VALUES.astype(np.float64)):
        array = lazy(values, lag)
        expected = plain(values, lag)
        assert array.shape == expected.shape
        found = array[key].compute(scheduler="synchronous")
        if values.dtype == np.float64:
            np.testing.assert_allclose(found, expected[key], rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(found, expected[key])


def test_one_step_of_differences_reads_two():
    recorded = Recorded(VALUES)
    array = combine(
        dask.array.from_array(recorded, chunks=(3, -1, -1, -1, -1), lock=False),
        *(BEFORE, AFTER, 1, 1),
    )
    recorded.read.clear()
    array[:, 4].compute(scheduler="synchronous")
    assert len(recorded.read) == 3
    assert [(key[1].start, key[1].stop) for key in recorded.read] == [(4, 6)] * 3


def test_runs_of_one_step_are_selected_before_it_is_read():
    recorded = Recorded(VALUES)
    array = combine(
        dask.array.from_array(recorded, chunks=(3, -1, -1, -1, -1), lock=False),
        *(BEFORE, AFTER, 1, 1),
    )
    one = array[:, 4][4:6, :, 1][:, 0]
    recorded.read.clear()
    expected = plain(VALUES, 1)[4:6, 4, 0, 1]
    np.testing.assert_array_equal(one.compute(scheduler="synchronous"), expected)
    assert [(key[0].start, key[1].start, key[1].stop) for key in recorded.read] == [(3, 4, 6)]


def test_magnitudes_are_differenced(lazy):
    array = lazy(VALUES, 1)
    ones = np.ones(7)
    sizes = combine(array, ones, ones, 1, 1, magnitudes=True)
    expected = np.diff(np.abs(plain(VALUES, 1)), axis=1)
    np.testing.assert_array_equal(sizes.compute(), expected)
    np.testing.assert_array_equal(sizes[:, 2].compute(), expected[:, 2])


@pytest.mark.parametrize("dims", ["run", ("run", "y"), None])
def test_means_over_runs_leave_nan_out(lazy, dims):
    values = VALUES.copy()
    values[2, 5, 0, 1, 1] = np.nan
    values[:, 3, 1, 0, 0] = np.nan
    names = ("run", "step", "channel", "y", "x")
    array = xr.DataArray(lazy(values, 1), dims=names)
    with dask.config.set(scheduler="synchronous"):
        found = array.mean(dims)
        expected = xr.DataArray(plain(values, 1).astype(np.float64), dims=names).mean(dims)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_they_travel_as_plain_arrays(lazy):
    array = lazy(VALUES, 1)
    copy = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(copy[:, 1].compute(), plain(VALUES, 1)[:, 1])
    kept = array.persist(scheduler="synchronous")
    np.testing.assert_array_equal(kept[2:4, 1].compute(), plain(VALUES, 1)[2:4, 1])

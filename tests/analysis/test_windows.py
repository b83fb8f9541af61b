"""Moving windows of signals are xarray's, in one pass."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
import xarray as xr

from asced_analysis.signals import fields
from asced_analysis.signals.stepwise import Stepwise, combine
from asced_analysis.signals.windows import NAMES


def values(dtype):
    rng = np.random.default_rng(0)
    found = rng.standard_normal((23, 4, 3)).astype(dtype) + dtype(2)
    found[rng.random(found.shape) < 0.1] = np.nan
    found[9:20, 1, 1] = np.nan
    found[:, 3] = 1.5
    return found


def lazily(of_all, chunks):
    """The same numbers as a signal's, with steps along y."""
    data, ones = dask.array.from_array(of_all, chunks=chunks), np.ones(of_all.shape[1])
    return combine(data, ones, ones, 0, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("dim", "length", "options"),
    [
        ("run", 5, {}),
        ("run", 4, {"min_periods": 2, "center": True}),
        ("run", 23, {"min_periods": 1}),
        ("y", 3, {"center": True}),
        ("x", 2, {}),
    ],
)
def test_windows_are_those_of_xarray(dim, length, options, dtype, name):
    of_all = values(dtype)
    coords = {"run": np.arange(23) * 2}
    plain = xr.DataArray(of_all, coords, ("run", "y", "x"), "n", attrs={"units": "u"})
    lazy = plain.copy(data=lazily(of_all, (7, 2, 3)))
    assert isinstance(lazy.data, Stepwise)
    expected = getattr(plain.rolling({dim: length}, **options), name)()
    found = getattr(lazy.rolling({dim: length}, **options), name)()
    assert found.chunks is not None
    xr.testing.assert_allclose(found.compute(scheduler="synchronous"), expected, rtol=1e-5)
    assert found.dtype == dtype
    assert (found.attrs, found.name) == (expected.attrs, expected.name)


def test_what_is_large_is_forgotten_when_it_leaves_the_window():
    column = np.full((40, 1), 1e-3, np.float32)
    column[3], column[11] = 1e30, np.inf
    lazy = xr.DataArray(lazily(column, (16, 1)), dims=("run", "x"))
    found = lazy.rolling(run=4).mean().values[:, 0]
    assert np.isinf(found[11:15]).all()
    np.testing.assert_allclose(np.r_[found[7:11], found[15:]], 1e-3, rtol=1e-6)


def test_other_windows_are_left_to_xarray():
    array = xr.DataArray(values(np.float32), dims=("run", "y", "x"))
    lazy = array.copy(data=lazily(array.values, (7, 4, 3)))
    two = lazy.rolling(run=3, y=2, min_periods=1).mean()
    xr.testing.assert_allclose(two.compute(), array.rolling(run=3, y=2, min_periods=1).mean())
    xr.testing.assert_allclose(lazy.rolling(run=3).median(), array.rolling(run=3).median())
    with pytest.raises(KeyError, match="not found"):
        lazy.rolling(step=3)


def test_signals_have_them_however_they_are_selected(runs):
    change = fields.dynamics(runs)
    one = change.isel(step=3).isel(run=slice(2, 20)).rolling(run=4)
    expected = one.obj.compute().rolling(run=4).mean()
    xr.testing.assert_allclose(one.mean(), expected, rtol=1e-5, atol=1e-6)
    assert not any("overlap" in name for name in one.mean().data.dask.layers)  # not xarray's way

"""Datasets of runs survive xarray's own files, and come back usable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import asced_analysis as aa

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")


@pytest.fixture
def runs(tiny_runs: Path) -> Any:
    return aa.open_runs(tiny_runs)


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
@pytest.mark.parametrize("part", ["whole", "selection", "every other step"])
def test_runs_come_back(form: str, part: str, runs: Any, tmp_path: Path) -> None:
    if part == "selection":
        runs = runs.isel(run=[3, 1, 8]).load()
    elif part == "every other step":
        runs = runs.isel(step=slice(None, None, 2), run=slice(0, 12))
    path = tmp_path / f"saved.{form}"
    getattr(runs, f"to_{form}")(path)
    again = aa.open_runs(path)
    assert again.attrs == runs.attrs
    assert set(again.variables) == set(runs.variables)
    for name, variable in runs.variables.items():
        assert again[name].dtype.kind == variable.dtype.kind or variable.dtype == object, name
        np.testing.assert_array_equal(again[name].values, variable.values, err_msg=name)
    xr.testing.assert_equal(again.asced.weighted_score(), runs.asced.weighted_score())
    assert list(aa.run_features(again)) == list(aa.run_features(runs))


def test_chosen_runs_of_a_saved_dataset(runs: Any, tmp_path: Path) -> None:
    runs.to_netcdf(tmp_path / "saved.nc")
    chosen = aa.open_runs(tmp_path / "saved.nc", select=[7, 2])
    assert (
        chosen["run"].values.tolist()
        == aa.open_runs(tmp_path / "saved.nc").sel(run=chosen["run"])["run"].values.tolist()
    )
    assert sorted(chosen["run"].values.tolist()) == [2, 7]


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_derived_arrays_are_written(form: str, runs: Any, tmp_path: Path) -> None:
    dynamics = runs.asced.dynamics().rename("dynamics")
    getattr(dynamics, f"to_{form}")(tmp_path / form)
    read = xr.open_dataset if form == "netcdf" else xr.open_zarr
    np.testing.assert_array_equal(read(tmp_path / form)["dynamics"].values, dynamics.values)

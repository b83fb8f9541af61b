"""Selections of runs, steps and channels, and stores of few steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import asced_analysis as aa
from asced_analysis import plots
from asced_analysis.detection.apply import detect
from asced_analysis.statistics import abnormal_levels, artifact_regions, compare, pixel_maps
from asced_analysis.viewer import Session
from asced_cli.main import run
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("selections") / "runs.zarr"
    synthetic_store(path, runs=24, steps=8, shape=(3, 8, 8), batch_size=8)
    return aa.open_runs(path)


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> aa.Thresholds:
    """Of runs with one channel."""
    path = tmp_path_factory.mktemp("one") / "runs.zarr"
    synthetic_store(path, runs=60, steps=8, shape=(1, 8, 8))
    found: aa.Thresholds = aa.calibrate(path, "paper", false_alarm_rate=0.3)
    return found


def test_one_run_is_as_a_list_of_one(ds: Any) -> None:
    one, listed = ds.isel(run=3), ds.isel(run=[3])
    assert int(one["seed"]) == 3
    xr.testing.assert_allclose(
        aa.step_statistics(one)["median"], aa.step_statistics(listed)["median"]
    )
    features = aa.run_features(one)
    np.testing.assert_array_equal(features.to_numpy(), aa.run_features(listed).to_numpy())
    assert features.index.tolist() == [3]
    assert aa.segment_phases(one).runs == 1


def test_one_channel_is_as_a_list_of_one(ds: Any) -> None:
    one, listed = ds.isel(channel=0), ds.isel(channel=[0])
    xr.testing.assert_allclose(
        aa.step_statistics(one)["median"], aa.step_statistics(listed)["median"]
    )
    np.testing.assert_array_equal(
        one.asced.dynamics().values, listed.asced.dynamics().values, strict=True
    )
    np.testing.assert_array_equal(
        aa.run_features(one).to_numpy(), aa.run_features(listed).to_numpy()
    )


def explored(ds: Any, _: Any) -> list[int]:
    session = Session(ds, keep_scores=False)
    session.close()
    return [session.runs.channels, *session.runs.runs.tolist()]


OF_IMAGES = {
    "maps": lambda ds, _: pixel_maps(ds).to_dict(),
    "regions": lambda ds, _: artifact_regions(ds, reference="run").to_dict(),
    "levels": lambda ds, _: abnormal_levels(ds).values.tolist(),
    "comparison": lambda ds, _: compare(ds, ds).to_dict(),
    "detections": lambda ds, by: detect(ds, by, override=True).compute().to_dict(),
    "film strip": lambda ds, _: len(plots.film_strip(ds, run=3).axes),
    "viewer": explored,
}
"""What needs runs, channels and whole images, as something that is equal where it is the same."""


@pytest.mark.parametrize("name", OF_IMAGES)
def test_images_of_a_selection_are_those_of_a_list_of_one(
    name: str, ds: Any, thresholds: aa.Thresholds
) -> None:
    def make(selected: Any) -> Any:
        return OF_IMAGES[name](selected, thresholds)

    assert repr(make(ds.isel(channel=0))) == repr(make(ds.isel(channel=[0])))
    if name == "comparison":
        with pytest.raises(InputError, match="at least 5 of each"):
            make(ds.isel(run=3))
    else:
        assert repr(make(ds.isel(run=3))) == repr(make(ds.isel(run=[3])))
    with pytest.raises(InputError, match=r"one step was selected|neither eps nor x0 by step"):
        make(ds.isel(step=4))
    if name != "maps":
        with pytest.raises(InputError, match="one row of pixels was selected"):
            make(ds.isel(y=2))
        with pytest.raises(InputError, match="one column of pixels was selected"):
            make(ds.isel(x=2))


def test_derived_arrays_of_a_selection(ds: Any) -> None:
    one, listed = (
        selected.asced.trajectory_variance().values
        for selected in (ds.isel(channel=0), ds.isel(channel=[0]))
    )
    np.testing.assert_array_equal(one, listed)
    for make in (lambda ds: ds.asced.trajectory_variance(), lambda ds: ds.asced.norm()):
        with pytest.raises(InputError, match="one row of pixels was selected"):
            make(ds.isel(y=2))
    for make in (lambda ds: ds.asced.trajectory_variance(), lambda ds: ds.asced.log_snr_rate()):
        with pytest.raises(InputError, match="one step was selected"):
            make(ds.isel(step=4))


def test_selections_are_calibrated_and_audited(ds: Any) -> None:
    options = {"false_alarm_rate": 0.3}
    one, listed = ds.isel(channel=0), ds.isel(channel=[0])
    assert aa.calibrate(one, **options) == aa.calibrate(listed, **options)
    assert aa.audit(one).steps.equals(aa.audit(listed).steps)
    assert aa.audit(ds.isel(run=3)).runs == 1
    with pytest.raises(InputError, match="of these 1 runs it has"):
        aa.calibrate(ds.isel(run=3), **options)
    with pytest.raises(InputError, match="one row of pixels was selected"):
        aa.calibrate(ds.isel(y=2), **options)


@pytest.mark.parametrize(
    "function", ["step_statistics", "segment_phases", "run_features", "audit", "calibrate"]
)
def test_one_step_is_refused_in_words(function: str, ds: Any) -> None:
    with pytest.raises(InputError, match="one step was selected"):
        getattr(aa, function)(ds.isel(step=4))
    with pytest.raises(InputError, match="one step was selected"):
        ds.isel(step=4).asced.dynamics()


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    "command", ["stats", "phases", "calibrate --false-alarm-rate 0.2", "calibrate --variant paper"]
)
def test_a_store_of_few_steps_says_how_many_are_needed(
    steps: int, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.zarr"
    synthetic_store(path, runs=60, steps=steps, shape=(1, 8, 8))
    name, *rest = command.split()
    if steps == 2 and name != "phases":
        assert run([name, str(path), *rest]) == 0  # one difference is enough
        return
    assert run([name, str(path), *rest]) == 2
    error = capsys.readouterr().err
    assert f"{steps} step" in error
    assert "at least" in error
    assert "unexpected" not in error
    assert "-1" not in error


@pytest.mark.parametrize(
    ("options", "needed"), [([], 19), (["--method", "robust"], 30), (["--method", "risk"], 19)]
)
def test_too_few_runs_are_told_how_many_in_all(
    options: list[str], needed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.zarr"
    synthetic_store(path, runs=30, steps=6, shape=(1, 8, 8))
    assert run(["calibrate", str(path), *options]) == 2
    error = capsys.readouterr().err
    found = re.search(rf"needs {needed} runs .* it has (\d+): record some (\d+) runs in all", error)
    assert found, error
    calibrate, in_all = map(int, found.groups())
    assert in_all == pytest.approx(needed * 30 / calibrate, abs=1)
    synthetic_store(path, runs=in_all + 2, steps=6, shape=(1, 8, 8), overwrite=True)
    assert run(["calibrate", str(path), *options]) == 0


def test_too_few_prompts_are_told_how_many_prompts(ds: Any) -> None:
    """More runs of the same ones would not help, and prompts are what their user chooses."""

    def with_prompts(count: int) -> Any:
        return ds.assign_coords(prompt=("run", [f"prompt {run % count}" for run in range(24)]))

    with pytest.raises(InputError, match="more runs of the same ones do not help") as raised:
        aa.calibrate(with_prompts(3), false_alarm_rate=0.3)
    said = r"of 3 prompts it has 1: record some (\d+) different prompts"
    found = re.search(said, str(raised.value))
    assert found
    assert int(found[1]) == 9
    assert aa.calibrate(with_prompts(9), false_alarm_rate=0.3).guarantee.unit == "prompt"


def test_too_few_labels_are_told_how_many_to_give(ds: Any) -> None:
    with pytest.raises(InputError, match=r"of which 4 have a label, .*: label some 20 runs"):
        aa.calibrate(ds, method="labels", labels={0: True, 1: False, 2: False, 3: True})


def test_recorded_and_computed_arrays_mix(tiny_runs: Path) -> None:
    """xarray refuses to mix arrays of unequal classes."""
    ds = aa.open_runs(tiny_runs)
    louder = ds["eps"] * 2
    mixed = xr.apply_ufunc(np.add, ds["eps"], louder, dask="parallelized", output_dtypes=["f4"])
    np.testing.assert_allclose(mixed.values, 3 * ds["eps"].values.astype(np.float32), rtol=1e-2)
    change, plain = ds.asced.dynamics(), louder.isel(step=slice(1, None))
    for other in (plain, ds["eps"].isel(step=slice(1, None))):
        kept = xr.where(change > 0, change, other)
        expected = np.where(change.values > 0, change.values, other.values)
        np.testing.assert_array_equal(kept.values, expected)
        mixed = xr.apply_ufunc(np.add, change, other, dask="parallelized", output_dtypes=["f4"])
        np.testing.assert_array_equal(mixed.values, change.values + other.values)


def test_chosen_runs_of_what_follows_are_read_alone(tiny_runs: Path) -> None:
    change = aa.open_runs(tiny_runs).asced.dynamics()
    few = change.isel(run=[2, 9, 17])
    assert few.chunksizes["run"] == (3,)
    np.testing.assert_array_equal(few.values, change.values[[2, 9, 17]])

"""The xarray layer: lazy, named, and the same numbers as the kernels."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

from asced_analysis.accessor import open_runs
from asced_analysis.phases.segmentation import segment_phases
from asced_analysis.signals import dynamics as kernels
from asced_analysis.signals import fields
from asced_analysis.statistics.by_pixel import pixel_maps
from asced_analysis.statistics.by_step import statistics_graph
from asced_analysis.statistics.features import run_features
from asced_analysis.statistics.regions import artifact_regions
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store


def refuse(*arguments, **options):
    raise AssertionError("something was computed before it was asked for")


DERIVED = {
    "score": lambda a: a.score(),
    "weighted_score": lambda a: a.weighted_score(),
    "predicted_x0": lambda a: a.predicted_x0(),
    "innovation": lambda a: a.innovation(),
    "sample": lambda a: a.sample(),
    "dynamics": lambda a: a.dynamics(),
    "x0 dynamics": lambda a: a.dynamics("predicted_x0"),
    "acceleration": lambda a: a.acceleration("innovation"),
    "rate": lambda a: a.log_snr_rate(),
    "norm": lambda a: a.norm(),
    "variance": lambda a: a.trajectory_variance(last=4),
}


@pytest.mark.parametrize("name", DERIVED)
def test_nothing_is_computed_before_it_is_asked_for(runs, name):
    with dask.config.set(scheduler=refuse):
        lazy = DERIVED[name](runs.asced)
        assert lazy.chunks is not None
        assert lazy.attrs["long_name"]
        assert lazy.attrs["units"]
        with pytest.raises(AssertionError, match="before it was asked for"):
            lazy.compute()
    assert np.isfinite(lazy.compute().values).all()


def test_the_graph_of_the_statistics_reads_nothing(runs):
    with dask.config.set(scheduler=refuse):
        graph, layout = statistics_graph(runs)
    assert layout["step"].values.tolist() == list(range(1, 10))
    assert dask.compute(graph)[0].finite.tolist() == [29 * 240] * 9


def test_numbers_are_those_of_the_kernels(runs):
    eps, x0 = runs["eps"].values, runs["x0"].values
    alpha, sigma, snr = (runs[name].values for name in ("alpha", "sigma", "log_snr"))
    weighted = kernels.weighted_score(eps, alpha, sigma)
    change = kernels.score_dynamics(weighted)
    expected = {
        "weighted_score": weighted,
        "dynamics": change,
        "acceleration": kernels.acceleration(kernels.innovation(eps, alpha, sigma)),
        "rate": kernels.log_snr_rate(change, snr),
        "variance": kernels.trajectory_variance(x0, last=4),
        "norm": kernels.root_mean_square(weighted),
        "x0 dynamics": kernels.predicted_x0_change(x0),
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(DERIVED[name](runs.asced).values, values, err_msg=name)


def test_differences_are_named_by_their_later_step(runs):
    assert runs.asced.dynamics()["step"].values.tolist() == list(range(1, 10))
    assert runs.asced.acceleration()["step"].values.tolist() == list(range(2, 10))
    np.testing.assert_array_equal(runs.asced.dynamics()["log_snr"], runs["log_snr"][1:])
    assert "prompt" in runs.asced.dynamics().coords


def test_the_sample_entering_a_step_follows_from_eps_and_x0(runs):
    start = runs.asced.sample().isel(step=0)
    np.testing.assert_allclose(start, runs["x_init"], atol=5e-3)


@pytest.fixture
def singular(runs) -> xr.Dataset:
    """Zero terminal SNR: the first step is pure noise."""
    alpha, sigma, snr = (runs[name].values.copy() for name in ("alpha", "sigma", "log_snr"))
    alpha[0], sigma[0], snr[0] = 0.0, 1.0, -np.inf
    return runs.assign_coords(alpha=("step", alpha), sigma=("step", sigma), log_snr=("step", snr))


def test_a_singular_first_step_is_left_out_and_said_so(singular):
    weighted = singular.asced.weighted_score()
    assert weighted["step"].values.tolist() == list(range(1, 10))
    assert weighted.attrs["dropped_steps"] == [0]
    assert "left out" in weighted.attrs["note"]
    assert singular.asced.dynamics().attrs["dropped_steps"] == [0]
    assert np.isfinite(singular.asced.dynamics().values).all()
    assert singular.asced.log_snr_rate("innovation").attrs["dropped_steps"] == [0]
    # what stays defined is kept
    assert singular.asced.innovation()["step"].values.tolist() == list(range(1, 10))
    assert singular.asced.predicted_x0().sizes["step"] == 10
    statistics = singular.asced.step_statistics()
    assert statistics["step"].values.tolist() == list(range(2, 10))
    assert statistics.attrs["dropped_steps"] == [0]
    assert np.isfinite(run_features(singular).to_numpy()).all()
    assert len(artifact_regions(singular))
    maps = pixel_maps(singular, "weighted_score")
    assert maps["step"].values.tolist() == list(range(2, 10))
    assert maps.attrs["dropped_steps"] == [0]
    phases = segment_phases(singular, replicates=5, run_replicates=0)
    assert phases.activity["step"].values.tolist() == list(range(2, 10))
    assert phases.attributes["dropped_steps"] == [0]
    assert "dropped_steps" not in pixel_maps(singular).attrs  # an innovation there is finite


def test_video_keeps_its_frames(tmp_path):
    synthetic_store(tmp_path / "video.zarr", runs=4, batch_size=2, steps=6, shape=(3, 1, 8, 8))
    video = open_runs(tmp_path / "video.zarr")
    change = video.asced.dynamics()
    assert change.dims == ("run", "step", "frame", "channel", "y", "x")
    kappa = (video["sigma"] / video["alpha"]).astype(np.float32)
    plain = (-kappa * video["eps"].astype(np.float32)).diff("step").transpose(*change.dims)
    np.testing.assert_allclose(change, plain, rtol=1e-5, atol=1e-5)
    assert video.asced.trajectory_variance().dims == ("run", "frame", "channel", "y", "x")
    statistics = video.asced.step_statistics()
    assert statistics["count"].values.tolist() == [4 * 3 * 64] * 5
    median = np.median(np.abs(plain.transpose("step", ...).values.reshape(5, -1)), axis=1)
    np.testing.assert_allclose(statistics["median"], median, rtol=1e-3)
    assert np.isfinite(run_features(video).to_numpy()).all()


def test_what_is_not_there_is_named(runs):
    with pytest.raises(InputError, match="no signal 'scores'"):
        fields.signal(runs, "scores")
    with pytest.raises(InputError, match="needs the recorded variable 'eps'"):
        fields.signal(runs.drop_vars("eps"))
    with pytest.raises(InputError, match="expected at least 2"):
        fields.dynamics(runs.isel(step=[3]))

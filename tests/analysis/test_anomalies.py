"""Regions, features, outliers, maps and comparisons on runs whose truth is planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from asced_analysis.signals import fields
from asced_analysis.statistics.by_pixel import merge_maps, pixel_maps
from asced_analysis.statistics.comparison import benjamini_hochberg, compare
from asced_analysis.statistics.features import DESCRIPTIONS, run_features
from asced_analysis.statistics.outliers import outlier_pipeline, rank_runs
from asced_analysis.statistics.regions import (
    REGION_COLUMNS,
    abnormal_levels,
    artifact_regions,
    region_profile,
)
from asced_stores.errors import InputError


@pytest.fixture
def faulty(planted_runs):
    """Forty calm runs; run 7 has one region that moves from step 10 to 13."""
    ds = planted_runs(runs=40, calm=0.0, share=0.0, size=20, seed=3)
    kappa = (ds["sigma"] / ds["alpha"]).values
    width = np.diff(ds["log_snr"].values)
    eps = ds["eps"].values
    for step in (10, 11, 12, 13):
        jump = 15 * (step - 9) * width[step - 1] / 200 / kappa[step]
        eps[7, step:, 0, 4:10, 12:18] += jump
    return ds


@pytest.mark.parametrize("reference", ["population", "run"])
def test_a_planted_region_heads_the_table(faulty, reference):
    table = artifact_regions(faulty, reference=reference, probability=0.99, cutoff=8)
    assert list(table.columns) == list(REGION_COLUMNS)
    top = table.loc[table["excess"].idxmax()]
    assert top["run"] == 7
    assert top["region"] == 0
    assert top["onset_step"] in (9, 10)  # a pixel beside it may be abnormal by chance
    assert 13 <= top["end_step"] <= 14
    assert top["peak_step"] in range(10, 14)
    assert top["peak_acceleration"] > 0
    assert abs(top["y"] - 6.5) < 1
    assert abs(top["x"] - 14.5) < 1
    assert 25 <= top["area"] <= 100
    assert top["area_share"] == top["area"] / 400
    assert top["persistence"] == top["end_step"] - top["onset_step"] + 1


def test_small_specks_are_no_regions(faulty):
    table = artifact_regions(faulty, probability=0.9, smooth=0, smallest_area=9)
    assert table["area"].min() >= 9
    assert len(artifact_regions(faulty, probability=0.9, smooth=0, smallest_area=1)) > len(table)


def test_levels_of_another_population_can_be_used(faulty):
    calm = faulty.isel(run=slice(8, 40))
    levels = abnormal_levels(calm, probability=0.999)
    table = artifact_regions(faulty.isel(run=[6, 7]), levels=levels)
    assert table.loc[table["excess"].idxmax(), "run"] == 7
    with pytest.raises(InputError, match="levels found"):
        artifact_regions(faulty, levels=levels[1:])


def test_levels_are_quantiles_of_the_smoothed_dynamics(faulty):
    size = np.abs(fields.dynamics(faulty, "innovation")).transpose("step", ...).values
    expected = np.quantile(size.reshape(len(size), -1), 0.95, axis=1)
    np.testing.assert_allclose(
        abnormal_levels(faulty, probability=0.95, smooth=0), expected, rtol=1e-3
    )


def test_the_profile_of_a_region_rises_where_the_rest_stays_calm(faulty):
    top = artifact_regions(faulty, probability=0.999).iloc[0]
    profile = region_profile(
        faulty, artifact_regions(faulty, probability=0.999).query("run == 7").iloc[0]
    )
    table = profile.pivot_table(index="step", columns="place", values="dynamics")
    assert (table.loc[10:13, "region"] > 5 * table.loc[10:13, "rest"]).all()
    assert table.loc[15:, "region"].max() < 3 * table.loc[15:, "rest"].max()
    assert top["region"] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("smooth", [0, 1.0])
@pytest.mark.parametrize("reference", ["population", "run"])
def test_runs_that_are_not_finite_are_counted_beside_the_regions(faulty, reference, smooth, value):
    assert artifact_regions(faulty, reference=reference).attrs == {"not_finite_runs": 0}
    faulty["eps"].values[3, 12:] = value
    faulty["eps"].values[20, 24, 0, 0, 0] = value
    table = artifact_regions(faulty, reference=reference, smooth=smooth, probability=0.999)
    assert table.attrs["not_finite_runs"] == 2
    assert 7 in table["run"].to_numpy()


def test_levels_say_how_many_values_were_not_finite(faulty):
    levels = abnormal_levels(faulty, smooth=0)
    assert levels["step"].values.tolist() == list(range(1, 25))
    assert (levels.attrs["nan"], levels.attrs["infinite"]) == (0, 0)
    faulty["eps"].values[3, 10, 0, 0, 0] = np.nan  # in two differences
    faulty["eps"].values[4, 24, 0, 0, 0] = np.inf  # in one
    broken = abnormal_levels(faulty, smooth=0)
    assert (broken.attrs["nan"], broken.attrs["infinite"]) == (2, 1)
    np.testing.assert_allclose(broken, levels, rtol=0.02)


def test_regions_and_levels_say_which_steps_they_leave_out(faulty):
    alpha, sigma = faulty["alpha"].values.copy(), faulty["sigma"].values.copy()
    alpha[0], sigma[0] = 0.0, 1.0
    singular = faulty.assign_coords(alpha=("step", alpha), sigma=("step", sigma))
    for signal, dropped in (("weighted_score", [0]), ("innovation", None)):
        for found in (
            artifact_regions(singular, signal=signal),
            abnormal_levels(singular, signal=signal),
        ):
            assert found.attrs.get("dropped_steps") == dropped
            assert ("note" in found.attrs) == (dropped is not None)


def test_a_region_at_the_first_difference_has_no_acceleration(faulty):
    kappa = (faulty["sigma"] / faulty["alpha"]).values
    faulty["eps"].values[11, :1, 0, 3:8, 3:8] += 3 / kappa[1]  # step 1 moves, 2 no more
    faulty["eps"].values[12, :1, 0, 3:8, 3:8] += 3 / kappa[1]
    faulty["eps"].values[12, 2:, 0, 3:8, 3:8] += 6 / kappa[2]  # steps 1 and 2 move
    table = artifact_regions(faulty, reference="run", smooth=0, cutoff=20, smallest_area=20)
    early = table[table["onset_step"] == 1].set_index("run")
    assert early["end_step"].to_dict() == {11: 1, 12: 2}
    assert np.isnan(early.loc[11, "peak_acceleration"])
    assert early.loc[11, "peak_step"] == 1
    assert early.loc[12, "peak_acceleration"] == pytest.approx(3, rel=0.05)
    assert early.loc[12, "peak_step"] == 2


@pytest.mark.parametrize("model", ["robust_covariance", "isolation_forest", "pca"])
def test_broken_runs_come_first(faulty, model):
    features = run_features(faulty)
    assert list(features.columns) == list(DESCRIPTIONS)
    ranking = rank_runs(features, model)
    assert ranking.index[0] == 7
    assert ranking["outlier"].iloc[0]
    assert ranking["rank"].tolist() == list(range(40))
    assert ranking["reason"].isin(features.columns).all()
    again = rank_runs(features, model)
    pd.testing.assert_frame_equal(ranking, again)


def test_outlier_models_are_ordinary_estimators(faulty):
    features = run_features(faulty)
    for model in ("robust_covariance", "isolation_forest", "pca"):
        pipeline = clone(outlier_pipeline(model, contamination=0.1))
        labels = pipeline.fit_predict(features)
        check_is_fitted(pipeline)
        assert set(np.unique(labels)) == {-1, 1}
        assert (labels == -1).sum() in range(2, 7)
        pipeline.set_params(scale="passthrough").fit(features)
    with pytest.raises(InputError, match="no model"):
        outlier_pipeline("oracle")


def test_features_of_runs_that_are_not_finite_are_nan_and_come_first(faulty):
    faulty["x0"][2, 5, 0, 0, 0] = np.inf
    features = run_features(faulty, by_step=True)
    assert features.loc[2].isna().all()
    assert features.drop(2).notna().all(axis=None)
    assert features.shape[1] == len(DESCRIPTIONS) + 2 * 24
    ranking = rank_runs(features)
    assert ranking.index[0] == 2
    assert ranking["reason"].iloc[0] == "not finite"


@pytest.mark.parametrize("signal", ["innovation", "weighted_score", "predicted_x0"])
def test_maps_hold_moments_exactly_and_quantiles_to_the_stated_error(runs, signal):
    maps = pixel_maps(runs, signal, (0.25, 0.5, 0.9))
    size = np.abs(fields.dynamics(runs, signal)).values.astype(float)
    np.testing.assert_allclose(maps["mean"], size.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(maps["standard_deviation"], size.std(axis=0), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(maps["largest"], size.max(axis=0))
    assert (maps["count"] == 29).all()
    check_quantiles(maps, size)


@pytest.mark.parametrize("signal", ["innovation", "predicted_x0"])
def test_maps_of_few_runs_and_of_a_singular_schedule_are_as_right_as_stated(runs, signal):
    few = runs.isel(run=slice(0, 16))
    alpha, sigma, snr = (few[name].values.copy() for name in ("alpha", "sigma", "log_snr"))
    alpha[0], sigma[0], snr[0] = 0.0, 1.0, -np.inf
    few = few.assign_coords(alpha=("step", alpha), sigma=("step", sigma), log_snr=("step", snr))
    few = few.assign({name: few[name].where(few["x"] > 0, 0.5) for name in ("eps", "x0")})
    size = np.abs(fields.dynamics(few, signal)).values.astype(float)
    maps = pixel_maps(few, signal, (0.25, 0.5, 0.9))
    check_quantiles(maps, size)
    assert (maps["quantile"].isel(x=0) == 0).all()  # what never moves is zero, not small


def check_quantiles(maps, size):
    """Quantiles are NumPy's within the stated error; few are NaN."""
    found = maps["quantile"].values
    known = np.isfinite(found)
    assert known.mean() > 0.97
    exact = np.quantile(size, maps["probability"].values, axis=0)[known]
    assert (np.abs(found[known] - exact) <= maps.attrs["relative_error"] * exact).all()


def test_maps_merge(runs):
    parts = [pixel_maps(runs.isel(run=part)) for part in np.split(np.arange(29), [4, 20])]
    merged, whole = merge_maps(parts), pixel_maps(runs)
    for name in ("mean", "standard_deviation"):
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-10)
    for name in ("bins", "count", "largest", "quantile"):
        np.testing.assert_array_equal(merged[name], whole[name])
    assert merged.attrs["runs"] == 29
    other = runs.assign_coords(log_snr=runs["log_snr"] + 0.01)
    for unfit in (pixel_maps(runs, "weighted_score"), pixel_maps(other)):
        with pytest.raises(InputError, match="do not merge"):
            merge_maps([whole, unfit])


def test_maps_of_chosen_steps_leave_out_what_is_not_finite(runs):
    broken = runs.compute()
    broken["eps"][0, 4, 0, 0, 0] = np.nan
    maps = pixel_maps(broken, steps=[4, 6])
    assert maps["step"].values.tolist() == [4, 6]
    assert maps["count"].values[0, 0, 0, 0] == 28
    assert np.isfinite(maps["mean"]).all()
    with pytest.raises(InputError, match="have no dynamics"):
        pixel_maps(runs, steps=[0])


def test_maps_of_nothing_are_nan_and_merge(runs):
    broken = runs.compute()
    broken["eps"][:10, 4, 0, 0, 0] = np.nan
    broken["eps"][:10, 5, 0, 0, 1] = np.inf
    parts = [pixel_maps(broken.isel(run=part)) for part in (slice(0, 10), slice(10, None))]
    nothing = parts[0].sel(step=4).isel(channel=0, y=0, x=0)
    assert nothing["count"] == 0
    for name in ("mean", "standard_deviation", "largest", "quantile"):
        assert nothing[name].isnull().all(), name
    merged, whole = merge_maps(parts), pixel_maps(broken)
    for name in ("mean", "standard_deviation", "largest", "quantile"):
        assert np.isfinite(merged[name]).all()
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-10)
    empty = merge_maps([parts[0], parts[0]]).sel(step=4).isel(channel=0, y=0, x=0)
    assert np.isnan(empty["largest"])
    assert np.isnan(empty["mean"])


def test_steps_of_maps_may_be_named_twice_and_in_any_order(runs):
    once, twice = pixel_maps(runs, steps=[4, 6]), pixel_maps(runs, steps=[6, 4, 4])
    xr.testing.assert_identical(once, twice)
    with pytest.raises(InputError, match="no steps chosen"):
        pixel_maps(runs, steps=[])
    with pytest.raises(InputError, match=r"steps \[0, 77\] have no dynamics; choose among 1 to 9"):
        pixel_maps(runs, steps=[77, 3, 0])


def test_two_halves_of_one_population_do_not_differ(planted_runs):
    ds = planted_runs(runs=80, size=12)
    table = compare(ds.isel(run=slice(0, 40)), ds.isel(run=slice(40, 80)), levels=8)
    assert table["different"].mean() <= 0.05
    assert len(table) == 8 * 17


def test_a_region_that_moves_more_is_found_in_its_place_and_only_there(planted_runs):
    first = planted_runs(runs=40, size=16, seed=1)
    second = planted_runs(runs=40, size=16, seed=2)
    factor = np.ones((16, 16))
    factor[:4, 12:] = 1.5  # one tile of 4 x 4, at every step
    second = second.assign(eps=(second["eps"].dims, second["eps"].values * factor.astype("f4")))
    table = compare(first, second, levels=6)
    tile = (table["tile_row"] == 0) & (table["tile_column"] == 3)
    others = (table["tile_row"] >= 0) & ~tile
    assert table.loc[tile, "different"].all()
    assert (table.loc[tile, "delta"] > 0.5).all()
    np.testing.assert_allclose(table.loc[tile, "ratio"], 1.5, rtol=0.25)
    assert table.loc[others, "different"].mean() <= 0.05


def test_paired_runs_see_less_than_unpaired_ones_need(planted_runs):
    first = planted_runs(runs=20, size=10)
    second = first.assign(eps=first["eps"] * np.float32(1.01))
    assert compare(first, second, paired=True, tiles=0, levels=5)["different"].all()
    assert not compare(first, second, tiles=0, levels=5)["different"].any()
    with pytest.raises(InputError, match="share no seeds"):
        compare(first, second.assign_coords(seed=second["seed"] + 1000), paired=True)


def test_stores_of_different_step_counts_are_compared_by_log_snr(planted_runs):
    table = compare(
        planted_runs(runs=12, size=8), planted_runs(runs=12, steps=40, size=8), levels=5
    )
    assert table["log_snr"].nunique() == 5
    with pytest.raises(InputError, match="at least 5 of each"):
        compare(planted_runs(runs=4, size=8), planted_runs(runs=12, size=8))


def test_adjusted_p_values_are_those_of_the_textbook():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, 0.04, 0.04, 0.02])


def test_the_accessor_reaches_the_results(runs):
    assert isinstance(runs.asced.step_statistics(signal="x0"), xr.Dataset)
    assert len(runs.asced.run_features()) == 29
    assert runs.asced.segment_phases(replicates=9, run_replicates=0).runs == 29

"""Every plot is drawn: axes named with units, text inside the figure, files written."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asced_analysis import plots
from asced_analysis.anomalies import abnormal_levels, artifact_regions, region_profile
from asced_analysis.compare import compare
from asced_analysis.features import run_features
from asced_analysis.fields import (
    acceleration,
    log_snr_rate,
    norm,
    sample,
    score,
    signal,
    trajectory_variance,
)
from asced_analysis.maps import pixel_maps
from asced_analysis.outliers import rank_runs
from asced_analysis.phases import segment_phases
from asced_analysis.plots import style
from asced_analysis.statistics import step_statistics
from asced_stores.errors import InputError

mpl.use("agg")


@pytest.fixture(scope="module")
def results(planted_runs):
    ds = planted_runs(runs=24, size=12)
    phases = segment_phases(ds, replicates=19, run_replicates=5)
    return {
        "ds": ds,
        "phases": phases,
        "statistics": step_statistics(ds),
        "by": step_statistics(ds.assign_coords(label=("run", np.arange(24) % 2)), by="label"),
        "regions": artifact_regions(ds, reference="run", cutoff=3, smallest_area=2),
        "maps": pixel_maps(ds),
        "features": run_features(ds),
        "ranking": rank_runs(run_features(ds)),
        "table": compare(ds.isel(run=slice(0, 12)), ds.isel(run=slice(12, 24)), levels=5),
    }


DRAWN = {
    "dynamics curves": lambda r, ax: plots.dynamics_curves(r["statistics"], r["phases"], ax=ax),
    "by log-SNR": lambda r, ax: plots.dynamics_curves(r["statistics"], axis="log_snr", ax=ax),
    "by label": lambda r, ax: plots.dynamics_curves(r["by"], ax=ax),
    "heat map": lambda r, ax: plots.quantile_heatmap(r["statistics"], ax=ax),
    "phases": lambda r, ax: plots.phase_curve(r["phases"], ax=ax),
    "phases by time": lambda r, ax: plots.phase_curve(r["phases"], axis="normalised_time", ax=ax),
    "run phases": lambda r, ax: plots.run_phases(r["phases"], ax=ax),
    "acceleration": lambda r, ax: plots.region_acceleration(
        region_profile(r["ds"], r["regions"].iloc[0]), run=0, ax=ax
    ),
    "frequency": lambda r, ax: plots.region_frequency(
        r["regions"], steps=25, phases=r["phases"], ax=ax
    ),
    "map": lambda r, ax: plots.pixel_map(r["maps"], "quantile", step=9, ax=ax),
    "ranking": lambda r, ax: plots.feature_ranking(r["ranking"], runs=5, ax=ax),
    "comparison": lambda r, ax: plots.comparison(r["table"], ax=ax),
    "comparison by tile": lambda r, ax: plots.comparison_map(r["table"], ax=ax),
    "levels": lambda r, ax: plots.level_curve(abnormal_levels(r["ds"]), r["phases"], ax=ax),
    "norms": lambda r, ax: plots.run_curves(norm(r["ds"], "innovation"), [3, 5], ax=ax),
    "norms by log-SNR": lambda r, ax: plots.run_curves(norm(r["ds"]), axis="log_snr", ax=ax),
    "features": lambda r, ax: plots.feature_spread(r["features"], run=3, ax=ax),
}
NO_UNIT_NEEDED = {"quantile", ""}


@pytest.mark.parametrize("name", DRAWN)
def test_axes_are_named_with_units_and_everything_lies_inside_the_figure(results, name, tmp_path):
    ax = DRAWN[name](results, None)
    assert isinstance(ax, Axes)
    assert ax.get_xlabel()
    for label in (ax.get_xlabel(), ax.get_ylabel()):
        assert "(" in label or "delta" in label or label in NO_UNIT_NEEDED, label
    figure = ax.get_figure()
    assert figure.get_size_inches()[0] <= style.WIDTH
    figure.draw_without_rendering()
    edge = figure.bbox
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title, *ax.get_yticklabels()):
        box = text.get_window_extent()
        assert box.x0 >= edge.x0 - 2, text
        assert box.x1 <= edge.x1 + 2, text
    plots.save_figure(ax, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.parametrize("name", DRAWN)
def test_plots_are_drawn_where_they_are_told_to(results, name):
    own = Figure().subplots()
    assert DRAWN[name](results, own) is own


def test_a_run_is_a_film_strip(results, tmp_path):
    mask = np.zeros((12, 12), bool)
    mask[2:5, 3:8] = True
    figure = plots.film_strip(results["ds"], 3, regions=results["regions"], mask=mask)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 16
    plots.save_figure(figure, tmp_path / "film.svg")
    with pytest.raises(InputError, match="no run 99"):
        plots.film_strip(results["ds"], 99)


@pytest.mark.parametrize(
    ("derive", "panels"),
    [
        (score, 6),
        (sample, 6),
        (acceleration, 6),
        (log_snr_rate, 6),
        (lambda ds: signal(ds, "weighted_score"), 6),
        (trajectory_variance, 1),
    ],
)
def test_every_derived_array_of_a_run_is_shown_with_its_units(results, derive, panels, tmp_path):
    figure = plots.run_images(derive(results["ds"]), 3)
    *images, scale = figure.axes
    assert len(images) == panels
    assert "(" in scale.get_ylabel()
    limits = {panel.images[0].get_clim() for panel in images}
    assert len(limits) == 1  # one scale for all steps
    figure.draw_without_rendering()
    assert figure.get_tightbbox().width <= style.WIDTH
    plots.save_figure(figure, tmp_path / "images.png")
    assert (tmp_path / "images.png").stat().st_size > 5000


def test_a_derived_image_shows_the_values_of_that_run_and_step(results):
    change = signal(results["ds"], "innovation")
    figure = plots.run_images(change, 3, steps=[9, 12])
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(shown, change.sel(run=3, step=12).mean("channel"))
    with pytest.raises(InputError, match="no run 99"):
        plots.run_images(change, 99)
    with pytest.raises(InputError, match="expected 1 to 8"):
        plots.run_images(change, 3, steps=[400])
    with pytest.raises(InputError, match="no images"):
        plots.run_images(norm(results["ds"]), 3)
    with pytest.raises(InputError, match="no curve"):
        plots.run_curves(change)


def test_colours_are_told_apart_without_colour_vision():
    """Lightness alone tells the two colours of a plot apart, or their marks differ."""

    def lightness(colour):
        linear = [
            c / 12.92 if c < 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in mpl.colors.to_rgb(colour)
        ]
        return np.dot(linear, [0.2126, 0.7152, 0.0722]) ** (1 / 2.4)

    ramp = [lightness(c) for c in mpl.colormaps[style.SEQUENTIAL](np.linspace(0, 1, 32))[:, :3]]
    assert np.all(np.diff(ramp) > 0)
    assert abs(lightness(style.BLUE) - lightness(style.ORANGE)) > 0.15


def test_phases_that_do_not_exist_shade_nothing(planted_runs):
    flat = segment_phases(
        planted_runs(runs=3, size=4, share=0.0, calm=0.0, seed=5),
        cutoff=50,
        replicates=5,
        run_replicates=0,
    )
    assert np.isnan(flat.population.mutation.step)
    assert not plots.phase_curve(flat).patches


def test_settings_of_the_user_stay_as_they_were(results):
    before = dict(mpl.rcParams)
    plots.phase_curve(results["phases"])
    assert dict(mpl.rcParams) == before


def test_what_cannot_be_drawn_is_named(results, tmp_path):
    with pytest.raises(InputError, match="no axis"):
        plots.phase_curve(results["phases"], axis="time")
    with pytest.raises(InputError, match="without groups"):
        plots.quantile_heatmap(results["by"])
    with pytest.raises(InputError, match="no map"):
        plots.pixel_map(results["maps"], "bins of gold")
    with pytest.raises(InputError, match="no figure format"):
        plots.save_figure(plots.phase_curve(results["phases"]), tmp_path / "a.xyz")

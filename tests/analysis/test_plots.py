"""Every plot is drawn: axes named with units, text inside the figure, files written."""

from __future__ import annotations

import itertools
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from asced_analysis import calibrate, open_runs, plots
from asced_analysis.phases.segmentation import segment_phases
from asced_analysis.plots import style
from asced_analysis.plots.curves import NAMED_GROUPS
from asced_analysis.signals.fields import (
    acceleration,
    log_snr_rate,
    norm,
    sample,
    score,
    signal,
    trajectory_variance,
)
from asced_analysis.statistics.by_pixel import pixel_maps
from asced_analysis.statistics.by_step import step_statistics
from asced_analysis.statistics.comparison import compare
from asced_analysis.statistics.features import run_features
from asced_analysis.statistics.outliers import rank_runs
from asced_analysis.statistics.regions import abnormal_levels, artifact_regions, region_profile
from asced_stores import TrajectoryStore
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store

mpl.use("agg")


@pytest.fixture(scope="module")
def results(planted_runs):
    ds = planted_runs(runs=24, size=12)
    phases = segment_phases(ds, replicates=19, run_replicates=5)
    return {
        "ds": ds,
        "phases": phases,
        "statistics": step_statistics(ds),
        "signed": {m: step_statistics(ds, measure=m) for m in ("difference", "value")},
        "by": step_statistics(ds.assign_coords(label=("run", np.arange(24) % 2)), by="label"),
        "by many": step_statistics(ds.assign_coords(label=("run", np.arange(24) % 14)), by="label"),
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
    "by many labels": lambda r, ax: plots.dynamics_curves(r["by many"], ax=ax),
    "signed heat map": lambda r, ax: plots.quantile_heatmap(r["signed"]["difference"], ax=ax),
    "heat map of values": lambda r, ax: plots.quantile_heatmap(r["signed"]["value"], ax=ax),
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
    "many norms": lambda r, ax: plots.run_curves(norm(r["ds"]), range(12), ax=ax),
    "norms by log-SNR": lambda r, ax: plots.run_curves(norm(r["ds"]), axis="log_snr", ax=ax),
    "features": lambda r, ax: plots.feature_spread(r["features"], run=3, ax=ax),
}
STEP, SNR, DATA = "step (0 = noise)", "(nats; ", "(data units)"
UNITS = {
    "dynamics curves": (STEP, DATA),
    "by log-SNR": (SNR, DATA),
    "by label": (STEP, DATA),
    "by many labels": (STEP, DATA),
    "signed heat map": (STEP, "quantile", DATA),
    "heat map of values": (STEP, "quantile", DATA),
    "heat map": (STEP, "quantile", DATA),
    "phases": (STEP, "(% beyond "),
    "phases by time": ("normalised time (0 = noise, 1 = image)", "(% beyond "),
    "run phases": (STEP, "of runs (%)"),
    "acceleration": (STEP, DATA),
    "frequency": ("normalised step of onset (0 = noise, 1 = image)", "(%)"),
    "map": ("(pixels)", "(pixels)", DATA),
    "ranking": ("(no unit)", ""),
    "comparison": (SNR, "Cliff's delta"),
    "comparison by tile": (SNR, "", "Cliff's delta"),
    "levels": (STEP, "(units of the data)"),
    "norms": (STEP, DATA),
    "many norms": (STEP, DATA),
    "norms by log-SNR": (SNR, DATA),
    "features": ("(robust units)", ""),
}
"""What the labels of the axes, and of a colour bar, have to say."""


def assert_everything_lies_inside(figure):
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert width <= style.WIDTH
    slack = 1 / figure.dpi
    assert box.x0 >= -slack
    assert box.y0 >= -slack
    assert box.x1 <= width + slack
    assert box.y1 <= height + slack


@pytest.mark.parametrize("name", DRAWN)
def test_axes_are_named_with_units_and_everything_lies_inside_the_figure(results, name, tmp_path):
    ax = DRAWN[name](results, None)
    assert isinstance(ax, Axes)
    horizontal, vertical, *bar = UNITS[name]
    assert horizontal in ax.get_xlabel()
    assert vertical in ax.get_ylabel()
    assert bool(ax.get_ylabel()) == bool(vertical)
    drawn, *bars = ax.figure.axes
    assert drawn is ax
    assert len(bars) == len(bar)
    for scale, units in zip(bars, bar, strict=True):
        assert units in scale.get_ylabel()
    assert_everything_lies_inside(ax.get_figure())
    plots.save_figure(ax, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.parametrize("name", DRAWN)
def test_plots_are_drawn_where_they_are_told_to(results, name):
    own = Figure().subplots()
    assert DRAWN[name](results, own) is own


def test_a_run_is_a_film_strip_that_says_what_its_colours_mean(results, tmp_path):
    figure = plots.film_strip(results["ds"], 3)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 16
    assert_everything_lies_inside(figure)
    assert DATA in figure.axes[8].get_ylabel()
    for frame in figure.axes[8:]:
        (number,) = frame.texts
        low, high = frame.images[0].get_clim()
        assert low == 0
        assert float(number.get_text()) == pytest.approx(high, rel=0.05)
    plots.save_figure(figure, tmp_path / "film.svg")
    with pytest.raises(InputError, match="no run 99"):
        plots.film_strip(results["ds"], 99)


def test_many_frames_stand_in_several_strips(results):
    figure = plots.film_strip(results["ds"], 3, steps=range(2, 14))
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == [f"step {step}" for step in range(2, 14)]
    assert len(figure.axes) == 24
    assert_everything_lies_inside(figure)


def test_a_film_strip_frames_regions_and_outlines_the_mask(results):
    regions = results["regions"]
    run = int(regions["run"].iloc[0])
    own = regions[regions["run"] == run]
    mask = np.zeros((12, 12), bool)
    mask[2:5, 3:8] = True
    steps = list(range(1, 25, 4))
    figure = plots.film_strip(results["ds"], run, steps=steps, regions=regions, mask=mask)
    active = [own[(own["onset_step"] <= s) & (own["end_step"] >= s)] for s in steps]
    assert sum(map(len, active)) > 0
    for frame, here in zip(figure.axes, [*active, *active], strict=True):
        boxes = [patch for patch in frame.patches if isinstance(patch, Rectangle)]
        drawn = sorted((b.get_x(), b.get_y(), b.get_width(), b.get_height()) for b in boxes)
        sides = here[["left", "top", "width", "height"]].to_numpy(float)
        assert drawn == sorted(map(tuple, sides - [0.5, 0.5, 0, 0]))
        assert {to_hex(box.get_edgecolor(), keep_alpha=False) for box in boxes} <= {
            style.VERMILION.lower()
        }
        (outline,) = [drawn for drawn in frame.collections if isinstance(drawn, ContourSet)]
        (path,) = outline.get_paths()
        # halfway between the pixels of the mask and those around it
        np.testing.assert_allclose(path.get_extents().extents, [2.5, 1.5, 7.5, 4.5])
    plain = plots.film_strip(results["ds"], run, steps=steps)
    assert not any(frame.patches or frame.collections for frame in plain.axes)


def test_a_film_strip_shows_the_steps_of_its_regions(results):
    """Eight steps that are spread evenly over 24 would miss most regions of a single step."""
    box = {"run": 3, "top": 2, "left": 2, "height": 3, "width": 3}
    begin = (2, 3, 12, 13, 19, 20)
    regions = pd.DataFrame(
        [{**box, "onset_step": s, "end_step": s, "excess": 9 - s / 10} for s in begin]
    )
    figure = plots.film_strip(results["ds"], 3, regions=regions)
    shown = [int(ax.get_title().removeprefix("step ")) for ax in figure.axes[:8]]
    assert shown == sorted({1, 24, *begin})
    many = pd.concat([regions.assign(onset_step=s, end_step=s) for s in range(1, 25)])
    assert len(plots.film_strip(results["ds"], 3, regions=many).axes) == 16


@pytest.mark.parametrize("some", [slice(5, None), slice(0, 12), slice(None, None, 3)])
def test_a_film_strip_of_some_steps_takes_regions_of_all(results, some):
    """A region that is abnormal before or between the steps held is shown where it still is."""
    ds = results["ds"].isel(step=some)
    held = ds["step"].values[1:].tolist()
    box = {"run": 3, "top": 2, "left": 2, "height": 3, "width": 3}
    ends = [(2, 2), (4, 7), (10, 12), (19, 24)]
    regions = pd.DataFrame(
        [{**box, "onset_step": a, "end_step": b, "excess": 9 - a / 10} for a, b in ends]
    )
    figure = plots.film_strip(ds, 3, regions=regions)
    shown = [int(ax.get_title().removeprefix("step ")) for ax in figure.axes[:8] if ax.get_title()]
    assert set(shown) <= set(held)
    for onset, end in ends:
        if any(onset <= step <= end for step in held):
            assert any(onset <= step <= end for step in shown)


def test_acceleration_stands_apart_from_the_edges_of_its_picture(results):
    ax = plots.region_acceleration(region_profile(results["ds"], results["regions"].iloc[0]))
    drawn = np.concatenate([line.get_ydata() for line in ax.lines])
    inside = (ax.transData + ax.transAxes.inverted()).transform(
        np.column_stack([np.full(len(drawn), 5), drawn])
    )[:, 1]
    np.testing.assert_allclose([np.nanmin(inside), 1 - np.nanmax(inside)], 0.05 / 1.1, rtol=1e-3)


@pytest.mark.parametrize(
    ("derive", "panels", "units"),
    [
        (score, 6, "(1 / data units)"),
        (sample, 6, DATA),
        (acceleration, 6, DATA),
        (log_snr_rate, 6, DATA),
        (lambda ds: signal(ds, "weighted_score"), 6, DATA),
        (trajectory_variance, 1, "(data units)²"),
    ],
)
def test_every_derived_array_of_a_run_is_shown_with_its_units(
    results, derive, panels, units, tmp_path
):
    figure = plots.run_images(derive(results["ds"]), 3)
    *images, scale = figure.axes
    assert len(images) == panels
    assert scale.get_ylabel().endswith(f"\n{units}")
    limits = {panel.images[0].get_clim() for panel in images}
    assert len(limits) == 1  # one scale for all steps
    assert_everything_lies_inside(figure)
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


def styles_in(figure, path):
    """Dashes and colour of every line that matplotlib writes to an SVG."""
    plots.save_figure(figure, path)
    found = re.findall(r'style="fill: none; ([^"]*)"', path.read_text())
    return {
        (dashes.group(1) if dashes else "", colour.group(1))
        for line in found
        if (colour := re.search(r"stroke: (#\w+)", line))
        for dashes in [re.search(r"stroke-dasharray: ([^;]+)", line)]
    }


def test_no_two_groups_that_are_named_look_alike_of_64(planted_runs, tmp_path):
    ds = planted_runs(runs=64, size=3)
    many = step_statistics(ds.assign_coords(label=("run", np.arange(64))), by="label")
    ax = plots.dynamics_curves(many)
    assert len(ax.lines) == 64
    assert len(ax.get_legend().get_texts()) == NAMED_GROUPS + 1
    palette = {to_hex(line.get_color()) for line in ax.lines}
    looks = {look for look in styles_in(ax.figure, tmp_path / "many.svg") if look[1] in palette}
    assert len(looks) == NAMED_GROUPS + 1  # all others are one grey
    assert_everything_lies_inside(ax.figure)


@pytest.mark.parametrize("letters", [0, 40, 300])
def test_a_long_legend_covers_no_curve(planted_runs, letters):
    ds = planted_runs(runs=14, size=3)
    names = [f"{run} {'x' * letters}" for run in range(14)]
    ax = plots.dynamics_curves(step_statistics(ds.assign_coords(name=("run", names)), by="name"))
    ax.figure.draw_without_rendering()
    legend = ax.get_legend()
    assert len(legend.get_texts()) == 14
    assert legend.get_window_extent().y1 < ax.xaxis.label.get_window_extent().y0
    assert ax.bbox.height > 2.5 * ax.figure.dpi  # the figure grew, the axes did not shrink
    assert_everything_lies_inside(ax.figure)


@pytest.mark.parametrize("measure", ["difference", "value"])
def test_signed_quantiles_diverge_from_zero(results, measure):
    ax = plots.quantile_heatmap(results["signed"][measure])
    (cells,) = ax.collections
    assert cells.cmap.name == style.DIVERGING
    assert cells.norm.vmin == -cells.norm.vmax
    assert cells.get_array().min() < 0 < cells.get_array().max()
    assert np.all(cells.to_rgba(cells.get_array())[..., 3] == 1)  # none is blank
    marks = [text.get_text() for text in ax.figure.axes[1].get_yticklabels()]
    assert "0" in marks
    assert {f"-{mark}" for mark in marks[marks.index("0") + 1 :]} == set(marks[: marks.index("0")])
    assert len(marks) >= 3


def test_quantiles_of_zero_are_not_blank(planted_runs):
    still = planted_runs(runs=8, size=4)
    still["eps"] = still["eps"].where(still["y"] > 1, 0)
    ax = plots.quantile_heatmap(step_statistics(still, signal="eps", measure="magnitude"))
    (cells,) = ax.collections
    assert np.all(cells.to_rgba(cells.get_array())[..., 3] == 1)


def test_a_run_of_a_mixed_row_is_named_as_an_integer(results):
    profile = region_profile(results["ds"], results["regions"].iloc[0])
    for run in (1234567, 1234567.0, np.float64(1234567), np.int64(1234567)):
        assert plots.region_acceleration(profile, run=run).get_title() == "Run 1234567"


# Linear sRGB as seen without the cones for red or green: Machado, Oliveira, Fernandes (2009).
SEEN = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
JUST = 10
"""Least distance in CIELAB; 2.3 is just noticeable in large neighbouring areas."""


def seen(colour, vision):
    """CIELAB coordinates of what a colour-blind reader sees."""
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded < 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = np.clip(SEEN[vision] @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ linear / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def told_apart(one, other, vision):
    return np.linalg.norm(seen(one, vision) - seen(other, vision))


def colours_of(ax):
    """Colours of the palette that lines, bars and points of a plot have."""
    named = {style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.GREY}
    named |= {*style.PHASE_COLOURS.values()}
    palette = {to_hex(colour) for colour in named}
    palette |= {to_hex(look["color"]) for look in style.curve_looks(10)}
    found = [line.get_color() for line in ax.lines]
    found += [patch.get_facecolor() for patch in ax.patches]
    for points in ax.collections:
        if points.get_array() is None:
            found += [*points.get_facecolor(), *points.get_edgecolor()]
    return palette & {to_hex(colour, keep_alpha=False) for colour in found}


@pytest.mark.parametrize("vision", SEEN)
@pytest.mark.parametrize("name", DRAWN)
def test_colours_of_a_plot_are_told_apart_without_colour_vision(results, name, vision):
    used = sorted(colours_of(DRAWN[name](results, None)))
    assert used or len(UNITS[name]) == 3, "only maps have no colours of their own"
    for one, other in itertools.combinations(used, 2):
        assert told_apart(one, other, vision) > JUST, (one, other)


def test_the_simulation_of_colour_blindness_confuses_red_and_green():
    red, green = "#b35a3c", "#7a7a36"
    assert told_apart(red, green, "deuteranopia") < JUST
    assert told_apart("#0000ff", "#ffff00", "deuteranopia") > 100


@pytest.mark.parametrize("vision", SEEN)
def test_colour_maps_are_read_without_colour_vision(vision):
    ramp = mpl.colormaps[style.SEQUENTIAL](np.linspace(0, 1, 32))[:, :3]
    assert np.all(np.diff([seen(colour, vision)[0] for colour in ramp]) > 0)
    both = mpl.colormaps[style.DIVERGING](np.linspace(0, 1, 33))[:, :3]
    light = [seen(colour, vision)[0] for colour in both]
    assert np.all(np.diff(light[:17]) > 0)
    assert np.all(np.diff(light[16:]) < 0)
    for low, high in zip(both[:12], both[:-13:-1], strict=True):
        assert told_apart(low, high, vision) > JUST


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


def test_latents_are_shown_in_false_colours(tmp_path):
    synthetic_store(tmp_path / "latents.zarr", runs=4, batch_size=4, shape=(4, 8, 8))
    latents = open_runs(tmp_path / "latents.zarr")
    figure = plots.film_strip(latents, 2, steps=[3, 9])
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes[:2]]
    assert all(image.shape == (8, 8, 3) for image in shown)
    assert np.ptp(shown[1], axis=-1).max() > 0.2  # colours, not grey
    assert "false colours" in figure.get_suptitle()
    figure.clear()


def test_of_many_groups_those_that_move_most_and_least_are_named(results):
    ds = results["ds"]
    many = ds.assign_coords(label=("run", np.arange(ds.sizes["run"])))
    ax = plots.dynamics_curves(step_statistics(many, by="label"))
    named = ax.get_legend_handles_labels()[1]
    assert len(named) == NAMED_GROUPS + 1
    assert f"{ds.sizes['run'] - NAMED_GROUPS} others, between these" in named
    ax.figure.clear()


def test_results_are_short_tables_in_notebooks(results, tmp_path):
    synthetic_store(tmp_path / "runs.zarr", runs=120, batch_size=40)
    store = TrajectoryStore.open(tmp_path / "runs.zarr")
    thresholds = calibrate(store, false_alarm_rate=0.1)
    for shown in (results["phases"], store, thresholds):
        assert shown._repr_html_().startswith("<div><table>")
        assert len(shown._repr_html_()) < 3000
    assert len(repr(thresholds)) < 200

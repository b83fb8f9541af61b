"""Plots of scores about the level, and of effects beside the controls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from asced_analysis import calibrate, plots
from asced_analysis.detection.apply import detect
from asced_analysis.evaluation import Evaluation
from asced_analysis.evaluation.effects import EffectFigures
from asced_analysis.evaluation.intervals import NOTHING, Change, Estimate
from asced_analysis.evaluation.outcome_rates import OutcomeRates
from asced_analysis.evaluation.parts import ControlFigures, FlaggedRuns, JudgeFacts
from asced_analysis.realism.claims import Kind, Reference
from asced_analysis.statistics.by_step import step_statistics
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store

mpl.use("agg")


def test_scores_are_split_at_the_level(tmp_path: Path) -> None:
    path = synthetic_store(tmp_path / "runs.zarr", runs=96).path
    thresholds = calibrate(path, false_alarm_rate=0.2)
    found = detect(open_runs(path), thresholds).compute()
    ax = plots.scores(found, thresholds)
    bars = {c[0].get_label(): sum(p.get_height() for p in c) for c in ax.containers}
    assert bars["flagged"] == int(found["flagged"].sum())
    assert sum(bars.values()) == np.isfinite(found["score"].values).sum()
    assert "promised at most 20 %" in ax.get_title()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("score of a run", "runs")
    with pytest.raises(InputError, match="no run has a finite score"):
        plots.scores(found.assign(score=found["score"] * np.nan), thresholds)


def test_scores_of_groups_are_shown_against_their_own_levels(tmp_path: Path) -> None:
    """A run is flagged by its group's level: its bar stands on that side of the line."""
    path = synthetic_store(tmp_path / "runs.zarr", runs=192).path
    ds = open_runs(path).assign_coords(label=("run", np.arange(192) % 2))
    thresholds = calibrate(path, false_alarm_rate=0.2)
    level = thresholds.levels.level
    own = {"0": level + 2.0, "1": level - 2.0}
    thresholds = replace(thresholds, groups=own, grouped_by="label")
    found = detect(ds, thresholds).compute()
    flagged = found["flagged"].values
    assert np.any(flagged != (found["score"].values > level))
    ax = plots.scores(found, thresholds)
    bars = {c[0].get_label(): c for c in ax.containers}
    for name, count in (("flagged", flagged.sum()), ("not flagged", (~flagged).sum())):
        assert sum(bar.get_height() for bar in bars[name]) == count
    right = [bar for bar in bars["not flagged"] if bar.get_height() and bar.get_x() >= level]
    left = [bar for bar in bars["flagged"] if bar.get_height() and bar.get_x() < level]
    assert not [*right, *left]
    assert "label" in ax.get_xlabel()
    with pytest.raises(InputError, match=r"levels by label, .*assign_coords\(label="):
        plots.scores(found.drop_vars("label"), thresholds)


def judged(change: float | None, kind: Kind = "real", **controls: float) -> Evaluation:
    def effect(value: float | None) -> EffectFigures:
        figure = NOTHING if value is None else Estimate(value, value - 0.1, value + 0.1)
        return EffectFigures(figure, NOTHING, NOTHING, NOTHING, NOTHING)

    return Evaluation(
        judge=JudgeFacts("mine", Reference(kind, "x", 9), "distance", 3, {}, chose=False),
        paired=True,
        pairs="",
        strategy="ttc",
        correction="ttc",
        runs=9,
        flagged=7,
        quality={},
        flagged_runs=FlaggedRuns(
            effect(change), OutcomeRates(0.5, 3, 4, *[NOTHING] * 4, Change(*[NOTHING] * 3), 0.25)
        ),
        controls={
            name: ControlFigures(effect(value), 7, 0.1, NOTHING, NOTHING)
            for name, value in controls.items()
        },
    )


def test_effects_stand_beside_every_control() -> None:
    ax = plots.effects(judged(-0.3, shuffled=-0.2, everywhere=0.1))
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "ttc in the mask"
    assert "another run's mask" in names[1]
    assert len(names) == 3
    assert "distance to real images" in ax.get_xlabel()
    assert "negative: more realistic" in ax.get_xlabel()
    label = plots.effects(judged(-0.3, "population")).get_xlabel()
    assert "more typical" in label
    assert "real" not in label
    with pytest.raises(InputError, match="no run was flagged"):
        plots.effects(judged(None))


def test_tiny_quantiles_do_not_take_the_colour_scale(tmp_path: Path) -> None:
    ds = open_runs(synthetic_store(tmp_path / "runs.zarr", runs=8).path)
    quiet = ds.assign(eps=ds["eps"].where(ds["y"] > 2, np.float16(6e-8)))
    ax = plots.quantile_heatmap(step_statistics(quiet, signal="eps", measure="magnitude"))
    norm = ax.collections[0].norm
    assert norm.vmax / norm.vmin <= 1.01e6


def test_a_case_study_shows_the_flagged_run_of_the_highest_score(tmp_path: Path) -> None:
    ds = open_runs(synthetic_store(tmp_path / "runs.zarr", runs=8).path)
    masks = np.zeros((8, ds.sizes["y"], ds.sizes["x"]), bool)
    masks[:, 2:6, 3:7] = True
    flagged = np.arange(8) >= 6
    corrected = ds[["image"]].assign(
        mask=(("run", "y", "x"), masks), flagged=("run", flagged), score=("run", np.arange(8.0))
    )
    drawn = plots.case_study(ds, corrected.assign_attrs(correction_step=4), steps=[3, 5])
    titles = [axis.get_title() for axis in drawn.axes]
    assert titles.count("corrected version") == 1
    assert {"step 3", "step 5", "as sampled", "flagged region"} <= set(titles)
    curve = next(axis for axis in drawn.axes if axis.get_legend() is not None)
    assert (curve.get_xlabel(), curve.get_ylabel()) == ("step (0 = noise)", "|change| (data units)")
    assert len(curve.lines) == 3, "region, rest, and where the correction falls"
    with pytest.raises(InputError, match="no run is flagged"):
        plots.case_study(ds, corrected.assign(flagged=("run", ~flagged & flagged)))
    with pytest.raises(InputError, match="not in both stores"):
        plots.case_study(ds, corrected, run=99)


@pytest.mark.parametrize("kind", ["population", "model", "given", "masks"])
def test_words_for_what_became_of_runs_stand_alone(kind: Kind) -> None:
    """A report's head may hold one of them, where no flagged run was broken."""
    claims = judged(0.1, kind).claims
    assert claims.left == "left the worst quarter"
    assert claims.fell == "fell into the worst quarter"


@pytest.mark.parametrize("name", plots.__all__)
def test_a_plot_is_a_function_also_the_second_time(name: str) -> None:
    """A module of the same name would take the function's place once it is imported."""
    assert callable(getattr(plots, name))
    assert callable(getattr(plots, name))

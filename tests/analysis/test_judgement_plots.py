"""Plots of scores about the level, and of effects beside the controls."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from asced_analysis import calibrate, plots
from asced_analysis.detection.apply import detect
from asced_analysis.evaluation import Evaluation
from asced_analysis.statistics import step_statistics
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
    with pytest.raises(InputError, match="no run has a finite score"):
        plots.scores(found.assign(score=found["score"] * np.nan), thresholds)


def figure(value: float | None) -> dict[str, dict[str, dict[str, float | None]]]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"effect": {"all": {"value": value, "low": low, "high": high}}}


def test_effects_stand_beside_every_control() -> None:
    data = {
        "strategy": "ttc",
        "flagged": 7,
        "flagged_runs": figure(-0.3),
        "controls": {"shuffled": figure(-0.2), "everywhere": figure(0.1)},
    }
    ax = plots.effects(Evaluation(data))
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "ttc in the mask"
    assert "another run's mask" in names[1]
    assert len(names) == 3
    with pytest.raises(InputError, match="no run was flagged"):
        plots.effects(Evaluation({**data, "flagged_runs": figure(None)}))


def test_tiny_quantiles_do_not_take_the_colour_scale(tmp_path: Path) -> None:
    ds = open_runs(synthetic_store(tmp_path / "runs.zarr", runs=8).path)
    quiet = ds.assign(eps=ds["eps"].where(ds["y"] > 2, np.float16(6e-8)))
    ax = plots.quantile_heatmap(step_statistics(quiet, signal="eps", measure="magnitude"))
    norm = ax.collections[0].norm
    assert norm.vmax / norm.vmin <= 1.01e6

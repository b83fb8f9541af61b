"""Figure 4: acceleration of artifact regions against other regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import foreground
from asced_analysis.realism import upsample
from asced_analysis.signals import fields
from asced_stores import open_runs
from experiments.paper.detecting import labels_of
from experiments.paper.setting import Setting

SIGNALS = ("weighted_score", "innovation")
PLACES = ("artifact", "rest of the foreground", "same places, whole runs")
REGION = 0.97  # locations beyond this quantile of all local distances are artifact regions
MOST = 512  # runs of each kind
AT_ONCE = 128
RESAMPLES = 500


def figure_four(setting: Setting, labels: Path | None = None) -> dict[str, Any]:
    """Mean |D| and acceleration by step and place, with bootstrap intervals over runs.

    Artifact regions are where the judge finds broken runs least realistic *at the end*: the
    dynamics have no say in them. The same places in runs that ended whole stand beside them.
    """
    broken, whole, who = labels_of(setting, labels)
    ds = open_runs(setting.store)
    shape = ds.sizes["y"], ds.sizes["x"]
    worst = upsample(setting.original[1] > np.quantile(setting.original[1], REGION), shape)
    bad = [i for i in np.flatnonzero(broken) if worst[i].any()][:MOST]
    good = np.flatnonzero(whole)[: len(bad)]
    bad = np.asarray(bad[: len(good)], np.intp)
    pictures = ds["sample"].values[bad].reshape(len(bad), -1, *shape)
    around = np.stack([foreground(one) for one in pictures]) & ~worst[bad]
    return {
        "labels_by": who,
        "runs_of_each": len(bad),
        "area": float(worst[bad].mean()),
        "steps": setting.steps,
        "signals": {
            signal: _compared(
                {
                    "artifact": _curves(ds, signal, bad, worst[bad]),
                    "rest of the foreground": _curves(ds, signal, bad, around),
                    "same places, whole runs": _curves(ds, signal, good, worst[bad]),
                }
            )
            for signal in SIGNALS
        },
    }


def _compared(curves: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Acceleration of each place, and |D| of artifact regions over that of the others."""
    own = curves["artifact"]
    places = {
        name: {
            "acceleration": _with_interval(np.diff(values, axis=1)),
            "artifact_over_this": None if values is own else _ratio(own, values),
        }
        for name, values in curves.items()
    }
    return {"step": list(range(1, own.shape[1] + 1)), "places": places}


def _curves(
    ds: Any, signal: str, runs: NDArray[np.intp], masks: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mean |D| inside each run's mask by step, (run, step - 1); NaN where a mask is empty."""
    inside = []
    for begin in range(0, len(runs), AT_ONCE):
        part = ds.isel(run=runs[begin : begin + AT_ONCE])
        change = abs(fields.dynamics(part, signal)).transpose("run", "step", ..., "y", "x")
        size = change.values.reshape(*change.shape[:2], -1, *change.shape[-2:]).mean(2)
        mask = masks[begin : begin + AT_ONCE, None]
        with np.errstate(invalid="ignore"):
            inside.append((size * mask).sum((2, 3), dtype=np.float64) / mask.sum((2, 3)))
    return np.concatenate(inside)


def _with_interval(values: NDArray[np.floating[Any]]) -> dict[str, list[float]]:
    """Mean over runs with its 95 % bootstrap interval."""
    values = values[np.isfinite(values).all(1)]
    return _interval(values.mean(0), _draws(len(values)) @ values / len(values))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> dict[str, list[float]]:
    """Ratio of two means over the same number of runs, with its bootstrap interval."""
    usable = np.isfinite(above).all(1) & np.isfinite(below).all(1)
    above, below = above[usable], below[usable]
    draws = _draws(len(above))
    return _interval(above.mean(0) / below.mean(0), (draws @ above) / (draws @ below))


def _draws(runs: int) -> NDArray[np.int64]:
    """How often each run was drawn, (RESAMPLES, run)."""
    return np.random.default_rng(0).multinomial(runs, np.full(runs, 1 / runs), RESAMPLES)


def _interval(value: NDArray[np.float64], drawn: NDArray[np.float64]) -> dict[str, list[float]]:
    """By step: value, low and high."""
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {"mean": value.tolist(), "low": low.tolist(), "high": high.tolist()}

"""Table 2 and figure 7: who is flagged, and at which steps dynamics are abnormal."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from asced_analysis.compute.source import open_source
from asced_analysis.detection import paper, released
from asced_analysis.detection.scoring import detections, detector_for
from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.statistics.regions import artifact_regions
from asced_analysis.thresholds.document import Thresholds
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import weighted_score
from experiments.detection.who_breaks import read_labels
from experiments.paper.published import ABNORMAL
from experiments.paper.setting import Setting

EACH = 100
AT_ONCE = 128
WORST, BEST = 0.9, 0.5  # broken: the worst tenth; whole: the better half
DRAWS = 1000

Bools = NDArray[np.bool_]


def labels_of(setting: Setting, labels: Path | None) -> tuple[Bools, Bools, str]:
    """Runs with and without artifacts, and who says so.

    Parameters
    ----------
    labels : Path, optional
        A table of two columns, ``run`` and ``broken`` (0 or 1), as people labelled them, or one of
        `experiments.models.emoji`, for ``FILE#SET`` its rows of that set; by default the judge's
        worst tenth and its better half.
    """
    runs = [int(run) for run in open_runs(setting.store)["run"].values]
    if labels is None:
        bad, good = np.quantile(setting.distance, [WORST, BEST])
        return setting.distance > bad, setting.distance <= good, setting.model.name
    told = _told(labels)
    broken = np.array([told.get(run) is True for run in runs])
    whole = np.array([told.get(run) is False for run in runs])
    if not broken.any() or not whole.any():
        raise InputError(f"{labels} calls no recorded run broken, or none whole")
    return broken, whole, f"people ({labels.name})"


def _told(labels: Path) -> dict[int, bool]:
    """Whether each labelled run is broken."""
    path, _, name = str(labels).partition("#")
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and "label" in rows[0]:
        runs, broken = read_labels(Path(path), name or None)
        return dict(zip(runs.tolist(), broken.tolist(), strict=True))
    return {int(row["run"]): row["broken"].strip() == "1" for row in rows}


def table_two(
    setting: Setting, detectors: Mapping[str, Thresholds], labels: Path | None = None
) -> dict[str, Any]:
    """Accuracy of each detector on equal numbers of broken and whole runs."""
    broken, whole, who = labels_of(setting, labels)
    each = min(EACH, int(broken.sum()), int(whole.sum()))
    rows = {}
    for name, thresholds in detectors.items():
        flagged, scores = _flags(setting, thresholds)
        rows[name] = {
            **_accuracy(flagged, broken, whole, each),
            "auroc": _auroc(scores, broken, whole),
            "flagged_broken": mean_estimate(flagged[broken]).to_dict(),
            "flagged_whole": mean_estimate(flagged[whole]).to_dict(),
        }
    return {
        "labels_by": who,
        "broken": int(broken.sum()),
        "whole": int(whole.sum()),
        "each": each,
        "detectors": rows,
    }


def _accuracy(flagged: Bools, broken: Bools, whole: Bools, each: int) -> dict[str, Any]:
    """Mean accuracy over many draws of `each` and `each`, and the spread of one such draw."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        bad = rng.choice(np.flatnonzero(broken), each, replace=False)
        good = rng.choice(np.flatnonzero(whole), each, replace=False)
        drawn.append((flagged[bad].sum() + (~flagged[good]).sum()) / (2 * each))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"accuracy": float(np.mean(drawn)), "one_draw": [float(low), float(high)]}


def _auroc(scores: NDArray[np.float64], broken: Bools, whole: Bools) -> dict[str, float]:
    """Area under the curve of the score, with its bootstrap interval over runs."""
    bad, good = scores[broken], scores[whole]

    def area(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float(roc_auc_score(np.repeat([1, 0], [len(a), len(b)]), np.concatenate([a, b])))

    rng = np.random.default_rng(0)
    drawn = [area(rng.choice(bad, len(bad)), rng.choice(good, len(good))) for _ in range(300)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": area(bad, good), "low": float(low), "high": float(high)}


def _flags(setting: Setting, thresholds: Thresholds) -> tuple[Bools, NDArray[np.float64]]:
    """Flag and score of every run; a video's are those of its worst frame."""
    source = open_source(open_runs(setting.store))
    flags = np.zeros(source.runs, np.bool_)
    scores = np.zeros(source.runs, np.float64)
    for batch, found in detections(source, detector_for(source, thresholds)):
        frames = np.asarray(found.flagged, np.bool_).reshape(-1, batch.frames)
        flags[batch.rows] = frames.any(1)
        values = np.asarray(found.score, np.float64).reshape(-1, batch.frames).max(1)
        scores[batch.rows] = np.nan_to_num(values, neginf=-1e9, posinf=1e9)
    return flags, scores


def figure_seven(setting: Setting, labels: Path | None = None) -> dict[str, Any]:
    """Frequency of abnormal dynamics by step, each rule applied to every pair of steps alone."""
    broken, whole, who = labels_of(setting, labels)
    ds = open_runs(setting.store)
    alpha, sigma = ds["alpha"].values, ds["sigma"].values
    sizes = vars(released.Parameters.for_size(ds.sizes["y"], ds.sizes["x"]))
    flagged = np.zeros((ds.sizes["run"], setting.steps - 1), np.bool_)
    beyond = np.zeros((ds.sizes["run"], setting.steps - 1))
    for begin in range(0, ds.sizes["run"], AT_ONCE):
        part = ds.isel(run=slice(begin, begin + AT_ONCE))
        rows = slice(begin, begin + part.sizes["run"])
        x0, eps = (_by_step(part[name]) for name in ("x0", "eps"))
        score = weighted_score(eps, alpha[:, None, None, None], sigma[:, None, None, None])
        for step in range(1, setting.steps):
            pair = slice(step - 1, step + 1)
            found = released.artifact_mask(x0[:, pair], **sizes)
            flagged[rows, step - 1] = found.any((-2, -1))
            beyond[rows, step - 1] = paper.artifact_mask(score[:, pair]).mean((-2, -1))
    shares = np.arange(1, setting.steps) / setting.steps
    inside = (shares >= ABNORMAL[0]) & (shares <= ABNORMAL[1])
    rules = {"released": flagged.astype(np.float64), "paper": beyond}
    return {
        "labels_by": who,
        "share_of_sampling": shares.tolist(),
        "rules": {
            name: {
                "all": values.mean(0).tolist(),
                "broken": values[broken].mean(0).tolist(),
                "whole": values[whole].mean(0).tolist(),
                "within_0.24_0.52": float(values[:, inside].sum() / values.sum()),
            }
            for name, values in rules.items()
        },
        "evenly_spread": float(inside.mean()),
        "onsets": {signal: _onsets(ds, signal) for signal in ("weighted_score", "innovation")},
    }


def _by_step(values: Any) -> NDArray[np.float32]:
    """Runs as (run, step, channel, y, x); a video's frames are stacked as channels."""
    wide = values.transpose("run", "step", ..., "y", "x").values.astype(np.float32)
    return wide.reshape(*wide.shape[:2], -1, *wide.shape[-2:])


def _onsets(ds: Any, signal: str) -> dict[str, Any]:
    """Steps at which regions beyond five robust units of their own run begin."""
    found = artifact_regions(ds, signal=signal, reference="run")
    counts = np.bincount(found["onset_step"].to_numpy(int), minlength=ds.sizes["step"])
    return {"regions": len(found), "by_step": counts.tolist()}

"""Corrections by strategy, map and control, on the same runs: those foretold to end worst.

All masks have one area, so that a map is compared with a map and not with a size. Effects are
paired by run against no correction, and against the best control of equal area; p-values of the
paired t test are corrected by Holm's method over the whole table.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from comparisons import note_adjusted, paired_p
from detectors import MAIN
from masks import SHARE, top_share
from numpy.typing import NDArray
from placing import placed
from sets import Split, bar_of, judge_of, mean_distance

from asced_analysis.correction.controls import control_masks
from asced_analysis.evaluation.effects import Effect, damaged_locations, effect_of, pixel_change
from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.evaluation.judges import pictures
from asced_analysis.evaluation.populations import compare
from asced_analysis.realism import local_realism, upsample
from asced_analysis.replay import Branch, branch, replay
from asced_stores import TrajectoryStore, open_runs
from asced_stores.copying import select_runs

WINDOW = (0.08, 12 / 25)
STEP = 12
MAPS = (MAIN, "paper", "released")
MOST = 96  # flagged runs, from the first on
BRANCHES = {
    "ttc, additive": Branch(STEP, "ttc"),
    "ttc, multiplicative 0.2": Branch(
        STEP, "ttc", parameters={"noise_scale": 0.2, "perturbation": "multiplicative"}
    ),
    "state replacement": Branch(STEP, "state_replacement"),
    "stochastic steps": Branch(STEP, "stochastic_steps"),
}
REPLAYS = {"score clipping": "score_clipping", "noise and denoise": "noise_denoise"}
CONTROLS = ("learnt mask of another run", "random foreground")


@dataclass(frozen=True)
class Corrected:
    """Chosen runs of `report`: as the judge sees them, where and into what they were corrected."""

    report: Split
    chosen: NDArray[np.intp]
    judged: NDArray[np.float32]
    masks: dict[str, NDArray[np.bool_]]
    ends: dict[str, dict[str, NDArray[np.float32]]]


def measure(bench: Any) -> dict[str, Any]:
    """Every strategy with every map."""
    one = corrected(bench)
    images = one.report.samples[one.chosen]
    return table(one.judged, images, one.masks, one.ends, bar_of(bench.sets["tune"])) | {
        "runs": len(one.chosen),
        "of": len(one.report.runs),
        "step": STEP,
        "share": SHARE,
        "judge": judge_of().name,
    }


def measure_qualities(bench: Any) -> dict[str, Any]:
    """Frechet distance, precision and recall of all runs, the chosen ones corrected."""
    one = corrected(bench)
    before = placed(one.report.samples)
    rows: dict[str, dict[str, Any]] = {}
    for name, by_strategy in one.ends.items():
        for strategy, ends in by_strategy.items():
            after = one.report.samples.copy()
            after[one.chosen] = ends
            found = compare(before, placed(after), judge_of())
            rows.setdefault(strategy, {})[name] = {
                figure: values["change"] for figure, values in found.items()
            }
        bench.say(f"qualities: {name}")
    return {"rows": rows, "corrected": len(one.chosen), "runs": len(one.report.runs)}


def corrected(bench: Any) -> Corrected:
    """Correct the chosen runs, or take what was kept of the same runs and masks."""
    report, detectors = bench.sets["report"], bench.detectors()
    ranked = {n: detectors.ranked(n, WINDOW, report.dataset, "report")[0] for n in MAPS}
    shape = report.samples.shape[-2], report.samples.shape[-1]
    chosen = np.flatnonzero(ranked[MAIN].scores > np.quantile(ranked[MAIN].scores, 0.75))[:MOST]
    judged = report.distance("judge")[chosen]
    masks = {name: top_share(one.maps[chosen]) for name, one in ranked.items()}
    masks["hindsight"] = top_share(upsample(judged, shape))
    every = np.ones(len(chosen), np.bool_)
    images, runs = report.samples[chosen], report.runs[chosen]
    for label, control in zip(CONTROLS, ("shuffled", "foreground"), strict=True):
        masks[label] = control_masks(control, masks[MAIN], every, images, runs=runs)
    masks["everywhere"] = np.ones_like(masks[MAIN])
    ends = {}
    folder = report.store.parent / f"where-{STEP}"
    folder.mkdir(exist_ok=True)
    for name, mask in masks.items():
        digest = hashlib.sha256(runs.tobytes() + np.packbits(mask).tobytes()).hexdigest()[:10]
        path = folder / f"{name.replace(' ', '-')}-{digest}.npz"
        if not path.exists():
            np.savez(path, **sample_all(flagged_store(report, runs), runs, mask, bench.pipe))
        with np.load(path) as kept:
            ends[name] = {strategy: kept[strategy] for strategy in kept.files}
        bench.say(f"corrected: {name}")
    return Corrected(report, chosen, judged, masks, ends)


def flagged_store(report: Split, runs: NDArray[np.int64]) -> Path:
    """A store of these runs alone, so that replays write no other."""
    digest = hashlib.sha256(runs.tobytes()).hexdigest()[:10]
    path = report.store.parent / f"flagged-{digest}.zarr"
    if not path.exists():
        part = path.with_suffix(".part.zarr")
        select_runs(
            TrajectoryStore.open(report.store),
            part,
            lambda index: np.isin(index["run"], runs),
            overwrite=True,
        )
        part.rename(path)
    return path


def sample_all(
    store: Path, runs: NDArray[np.int64], masks: NDArray[np.bool_], pipe: Any
) -> dict[str, NDArray[np.float32]]:
    """Ends of every strategy with these masks."""
    given = {int(run): mask for run, mask in zip(runs, masks, strict=True)}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        out = branch(
            store, Path(folder) / "b.zarr", list(BRANCHES.values()), masks=given, pipeline=pipe
        )
        ds = open_runs(out.path)
        assert np.array_equal(ds["run"].values, runs)
        for number, name in enumerate(BRANCHES):
            found[name] = pictures(ds["branch_sample"].isel(branch=number).values)
        for name, strategy in REPLAYS.items():
            out = replay(
                store,
                Path(folder) / f"{strategy}.zarr",
                strategy=strategy,
                masks=given,
                step=STEP,
                pipeline=pipe,
            )
            found[name] = pictures(open_runs(out.path)["sample"].values)
    return found


def table(
    judged: NDArray[np.float32],
    images: NDArray[np.float32],
    masks: dict[str, NDArray[np.bool_]],
    ends: dict[str, dict[str, NDArray[np.float32]]],
    bar: float,
) -> dict[str, Any]:
    """Effects by strategy and map, with worth against the controls of equal area."""
    damaged = damaged_locations(judged)
    model = judge_of()
    effects: dict[str, dict[str, Effect]] = {}
    rows: dict[str, dict[str, Any]] = {}
    bad = mean_distance(judged) > bar
    area = float((judged > np.quantile(judged, 0.9)).mean())
    for name, by_strategy in ends.items():
        for strategy, samples in by_strategy.items():
            after = local_realism(samples, model)
            effect = effect_of(judged, after, images, samples, damaged)
            effects.setdefault(strategy, {})[name] = effect
            inside, outside = pixel_change(images, samples, masks[name])
            now = mean_distance(after) > bar
            rows.setdefault(strategy, {})[name] = {
                **effect.to_dict(),
                "repaired": mean_estimate(~now[bad]).to_dict(),
                "harmed": mean_estimate(now[~bad]).to_dict() if (~bad).any() else None,
                "artifact_area_before": area,
                "artifact_area_after": float((after > np.quantile(judged, 0.9)).mean()),
                "inside_mask": mean_estimate(inside[np.isfinite(inside)]).to_dict(),
                "outside_mask": mean_estimate(outside[np.isfinite(outside)]).to_dict(),
            }
    tests = []
    for strategy, by_mask in effects.items():
        best = min(CONTROLS, key=lambda c: float(by_mask[c].sums["all"].mean()))
        for name, effect in by_mask.items():
            values = _mean(effect)
            tests.append((rows[strategy][name], "p", paired_p(values)))
            if name not in CONTROLS and name != "everywhere":
                worth = values - _mean(by_mask[best])
                row = rows[strategy][name]
                row["worth"] = {"against": best, **mean_estimate(worth).to_dict()}
                tests.append((row, "p_worth", paired_p(worth)))
    return {"rows": rows, "tests": note_adjusted(tests), "bad_before": int(bad.sum())}


def _mean(effect: Effect) -> NDArray[np.float64]:
    return np.asarray(effect.sums["all"] / effect.counts["all"])

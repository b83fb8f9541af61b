"""Corrections of SIMPLE SHAPES, judged by counting: inside masks, and of whole runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.realism import RealismModel, features
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_analysis.replay import replay
from asced_analysis.thresholds.document import Thresholds
from asced_analysis.thresholds.registries import STRATEGIES
from asced_stores import TrajectoryStore, open_runs
from asced_stores.copying.selecting import select_runs
from experiments.correction.every_correction import Target, masks_of
from experiments.correction.where_to_correct import Case, Seen, flags_of, measured
from experiments.datasets import shapes
from experiments.detection.ranking import Ranked
from experiments.tables.comparisons import note_adjusted, paired_p

STEP = 8
FLAGGED = 0.25
INSIDE = ("ttc, additive",)
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "re-noised": ("renoise", {"where": "everywhere"}),
    "re-noised in the foreground": ("renoise", {"where": "foreground"}),
    "best of 2 re-noised, chosen at step 20": ("best_of", {"where": "everywhere", "choose": 20.0}),
    "normalised_noise": ("noise_normalisation", {}),
    "drawn anew, at most 4 tries": ("restart", {"tries": 4}),
}


@dataclass(frozen=True)
class Set:
    """Runs of SIMPLE SHAPES that no detector saw.

    Attributes
    ----------
    store : Path
        Of these runs alone.
    samples : float32 array, shape (n, 16, 16, 16)
    verdict : Verdict
    teacher : RealismModel
        Whitened patches of the data, which count nothing.
    """

    store: Path
    samples: NDArray[np.float32]
    verdict: shapes.Verdict
    teacher: RealismModel


def set_of(store: Path, rows: slice, teacher: RealismModel) -> Set:
    """Copy some runs into a store of their own."""
    path = store.with_name("report.zarr")
    if not path.exists():
        part = store.with_name("report.part.zarr")
        numbers = np.asarray(open_runs(store)["run"].values)[rows]
        select_runs(
            TrajectoryStore.open(store),
            part,
            lambda index: np.isin(index["run"], numbers),
            overwrite=True,
        )
        part.rename(path)
    samples = pictures(open_runs(path)["sample"].values)
    return Set(path, samples, shapes.judge(shapes.unfold(samples)), teacher)


def inside_masks(given: Set, ranked: Mapping[str, Ranked], bench: Any, pipe: Any) -> dict[str, Any]:
    """One strategy with every mask at step 8; a run that breaks a rule counts 1.

    One, because few runs break a rule, and no place of theirs is wrong by itself.
    """

    def see(images: NDArray[np.float32]) -> Seen:
        verdict = shapes.judge(shapes.unfold(images))
        area = verdict.mask.mean((1, 2))
        vectors = features(images, given.teacher)
        return Seen(verdict.broken.astype(np.float64), verdict.broken, area, None, vectors)

    before = see(given.samples)
    runs = np.asarray(open_runs(given.store)["run"].values, np.int64)
    target = Target(given.store, runs, given.samples, STEP)
    flags = flags_of({name: one.scores for name, one in ranked.items()}, before)
    everybody = np.ones(len(runs), np.bool_)
    case = Case(target, before, everybody, None, flags, given.teacher)
    damage = shapes.blocks(given.verdict.mask)
    masks = masks_of(target, {name: one.maps for name, one in ranked.items()}, damage)
    return measured(case, masks, see, given.store.parent / "where", bench, pipe, INSIDE)


def whole_runs(
    given: Set, thresholds: Thresholds, ranked: Ranked, pipe: Any, say: Callable[[str], None]
) -> dict[str, Any]:
    """The flagged quarter corrected as a whole by the product's own replay, and a random quarter.

    A random quarter is what the same correction does with nobody's foresight.
    """
    level = float(np.quantile(ranked.scores, 1 - FLAGGED))
    flagged = ranked.scores > level
    quarter = replace(thresholds, levels=replace(thresholds.levels, level=level))
    runs = np.asarray(open_runs(given.store)["run"].values, np.int64)
    drawn = np.random.default_rng(0).permutation(len(runs))[: int(flagged.sum())]
    chance = np.isin(np.arange(len(runs)), drawn)
    broken = given.verdict.broken
    rows: dict[str, Any] = {
        "all runs, as they are": {"broken": mean_estimate(broken).to_dict()},
        "flagged quarter, as it is": {"broken": mean_estimate(broken[flagged]).to_dict()},
        "the others": {"broken": mean_estimate(broken[~flagged]).to_dict()},
    }
    tests: list[tuple[dict[str, Any], str, float]] = []
    for name, (strategy, parameters) in WHOLE.items():
        for label, chosen in (("flagged", flagged), ("random", chance)):
            if label == "random" and STRATEGIES.get(strategy).judges_draws:
                continue  # judged by the detector, which random flags do without
            everything = np.ones(given.samples.shape[-2:], np.bool_)
            masks = {int(run): everything for run in runs[chosen]}
            with tempfile.TemporaryDirectory() as folder:
                out = replay(
                    given.store,
                    Path(folder) / "out.zarr",
                    thresholds=quarter if label == "flagged" else None,
                    masks=None if label == "flagged" else masks,
                    strategy=strategy,
                    step=STEP,
                    teacher=given.teacher,
                    pipeline=pipe,
                    only_flagged=True,
                    **parameters,
                )
                ds = open_runs(out.path)
                now = shapes.judge(shapes.unfold(pictures(ds["sample"].values))).broken
                touched = np.asarray(ds["flagged"].values, np.bool_)
                paid = float(np.mean(ds["evaluations"].values[touched]))
            row: dict[str, Any] = {
                "runs": int(touched.sum()),
                "broken": mean_estimate(now[touched]).to_dict(),
                "change": mean_estimate(now[touched].astype(float) - broken[touched]).to_dict(),
                "repaired": mean_estimate(~now[touched & broken]).to_dict(),
                "harmed": mean_estimate(now[touched & ~broken]).to_dict(),
                "evaluations": paid,
            }
            tests.append((row, "p", paired_p(now[touched].astype(float) - broken[touched])))
            rows[f"{label} quarter, {name}"] = row
            say(f"shapes, {label}, {name}: {row['change']['value']:+.3f}")
    return {"rows": rows, "tests": note_adjusted(tests), "step": STEP}

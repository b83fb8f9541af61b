"""SIMPLE SHAPES: detectors ranked and corrections judged by counting, with no learnt judge.

The outcome detector's teacher is whitened patches of the data: it never counts anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.realism import local_realism, patch_model
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_recorders import load_pipeline, record
from asced_recorders.pipelines.fingerprint import model_fingerprint
from asced_stores import open_runs
from asced_stores.errors import InputError
from experiments.correction.shapes_repair import STEP, inside_masks, set_of, whole_runs
from experiments.datasets import shapes
from experiments.datasets.sets import STEPS, mean_distance
from experiments.detection.detectors import CANDIDATES, Detectors
from experiments.detection.ranking import image_auroc
from experiments.detection.rankings import image_figures, paired_aurocs, pixel_figures

FOLDER = Path(__file__).resolve().parents[1] / "models" / "shapes"
NAMES = tuple(n for n in CANDIDATES if "alone" not in n and not CANDIDATES[n].committee)
WINDOWS = {8: (0.08, 8 / STEPS), 12: (0.08, 12 / STEPS), 18: (0.08, 18 / STEPS)}


def measure(bench: Any, runs: int) -> dict[str, Any]:
    """Record, judge, rank, correct."""
    if not (FOLDER / "model_index.json").exists():
        raise InputError(f"{FOLDER} holds no model: python -m experiments.models.shapes.train")
    pipe = load_pipeline(FOLDER)
    folder = bench.cache / f"shapes-{model_fingerprint(pipe).removeprefix('sha256:')[:12]}-{runs}"
    folder.mkdir(exist_ok=True)
    store = folder / "runs.zarr"
    record(
        pipe,
        store,
        runs=runs,
        steps=STEPS,
        batch_size=64,
        seed=0,
        fields=("checkpoint_sample", "eps", "x0", "x_init", "sample"),
        checkpoints=(8, 12, 16),
        resume=store.exists(),
    )
    bench.say("recorded")
    ds = open_runs(store)
    verdict = shapes.judge(shapes.unfold(ds["sample"].values))
    broken, mask = verdict.broken, shapes.blocks(verdict.mask)
    half = runs * 2 // 5
    fit, tune = ds.isel(run=slice(0, half)), ds.isel(run=slice(half, half * 5 // 4))
    rest = slice(half * 5 // 4, runs)
    report = ds.isel(run=rest)
    result: dict[str, Any] = {
        "runs": int(report.sizes["run"]),
        "rates": rates(verdict, rest),
        "data": rates(shapes.judge(shapes.draw_images(1000, seed=1)), slice(None)),
    }
    teacher = patch_model(
        shapes.fold(shapes.draw_images(500, seed=2)), name="whitened patches of the data"
    )
    tune_bad = broken[half : half * 5 // 4]
    detectors = Detectors(
        folder / "detectors", fit, tune, tune_bad, folder.name, outcome={"teacher": teacher}
    )
    worst_pixels = mask[rest]
    for last, window in WINDOWS.items():
        rows, scores = {}, {}
        for name in NAMES:
            ranked, spent = detectors.ranked(name, window, report, "report")
            scores[name] = ranked.scores
            rows[name] = image_figures(ranked.scores, broken[rest])
            rows[name] |= pixel_figures(ranked, worst_pixels) | {"milliseconds": spent}
            bench.say(f"shapes, up to step {last}, {name}: {rows[name]['image_auroc']:.3f}")
        result[f"up to step {last}"] = {
            "rows": rows,
            "base_rate": float(worst_pixels.mean()),
            "paired": paired_aurocs(
                scores, lambda s, i: image_auroc(s[i], broken[rest][i]), len(worst_pixels)
            ),
        }
    energy = np.sqrt(np.mean(report["x_init"].values.astype(np.float64) ** 2, axis=(1, 2, 3)))
    result["starting_noise_auroc"] = image_auroc(energy, broken[rest])
    end = mean_distance(local_realism(pictures(report["sample"].values), teacher))
    result["teacher_at_the_end_auroc"] = image_auroc(end, broken[rest])
    best = sorted(NAMES, key=lambda n: -result[f"up to step {STEP}"]["rows"][n]["image_auroc"])[:2]
    ranks = {
        name: detectors.ranked(name, WINDOWS[STEP], report, "report")[0]
        for name in dict.fromkeys((*best, "outcome", "paper", "released"))
        if name in NAMES
    }
    given = set_of(store, rest, teacher)
    learnt = detectors.thresholds("outcome", WINDOWS[STEP])
    result["whole"] = whole_runs(given, learnt, ranks["outcome"], pipe, bench.say)
    result["where"] = inside_masks(given, ranks, bench, pipe)
    return result


def rates(verdict: shapes.Verdict, rows: slice) -> dict[str, float]:
    """Shares of images that break each rule."""
    names = ("broken", "doubled", "misplaced", "malformed", "blank")
    return {name: float(getattr(verdict, name)[rows].mean()) for name in names}

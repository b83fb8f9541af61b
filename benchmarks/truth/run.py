"""Detectors and corrections on sets whose truth is known.

    python benchmarks/truth/run.py --runs 1000 --cache build/truth --out build/truth/results.json

Tuning and learning see the runs of `fit`, figures come from those of `report` (other seeds). Stores
are kept in the cache by the model's fingerprint.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from corrections import compare_corrections
from faults import KINDS, plant
from numpy.typing import NDArray
from ranking import (
    Ranked,
    balanced_accuracy,
    foreground_correlation,
    image_auroc,
    interval,
    pixel_precision,
    rank,
)

from asced_analysis.calibration import calibrate
from asced_analysis.correction.controls import foreground
from asced_analysis.evaluation.judges import pictures
from asced_analysis.realism import load_embedded, local_realism, upsample
from asced_analysis.thresholds import Thresholds
from asced_recorders import load_pipeline, record
from asced_recorders.fingerprint import model_fingerprint
from asced_stores import open_runs

STEPS = 25
VARIANTS = ("calibrated", "outcome", "paper", "released", "trajectory_variance")
LEAST_DAMAGE = 8  # pixels of a planted run that must be damaged for it to count as broken


def stores(cache: Path, runs: int, pipe: Any, pipeline: str) -> dict[str, Path]:
    """Record the natural sets and plant the faults, or find them in the cache.

    They are recorded by the pipeline's name, by which calibration finds the teacher.
    """
    judge = load_embedded("judge")
    folder = cache / f"{model_fingerprint(pipe)[7:19]}-{runs}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.zarr" for name in ("fit", "report", "planted")}
    for name, seed in (("fit", 0), ("report", 1_000_000)):
        record(
            pipeline,
            paths[name],
            runs=runs,
            steps=STEPS,
            batch_size=64,
            seed=seed,
            checkpoints=(8, 12),
            resume=paths[name].exists(),
        )
    if not paths["planted"].exists():
        part = folder / "planted.part.zarr"
        plant(paths["report"], part, judge, pipeline=pipe)
        part.rename(paths["planted"])
    return paths


def learn(fit: Path, window: tuple[float, float]) -> dict[str, Thresholds]:
    """Calibrate every variant on the runs for tuning, all with the same window."""
    found = {}
    for variant in VARIANTS:
        method = "outcome" if variant == "outcome" else "conformal"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[variant] = calibrate(
                fit, variant, method=method, false_alarm_rate=0.05, window=window
            )
    return found


def planted(paths: Mapping[str, Path], thresholds: Mapping[str, Thresholds]) -> dict[str, Any]:
    """Rank detectors on planted faults, undisturbed runs being the negatives."""
    ds = open_runs(paths["planted"])
    truth = {name: np.asarray(ds[name].values, np.bool_) for name in ("change", "damage")}
    kinds = np.asarray(ds["kind"].values)
    broken = truth["damage"].sum((1, 2)) >= LEAST_DAMAGE
    result: dict[str, Any] = {
        "runs": len(kinds),
        "broken": int(broken.sum()),
        "broken_by_kind": {k: int(broken[kinds == i].sum()) for i, k in enumerate(KINDS)},
        "base_rate": float(truth["damage"].mean()),
    }
    for name, one in thresholds.items():
        clean, faulted = rank(paths["report"], one), rank(paths["planted"], one)
        result[name] = _planted_row(clean, faulted, truth, broken, kinds)
    return result


def _planted_row(
    clean: Ranked,
    faulted: Ranked,
    truth: Mapping[str, NDArray[np.bool_]],
    broken: NDArray[np.bool_],
    kinds: NDArray[Any],
) -> dict[str, Any]:
    """Figures of one detector."""

    def auroc(index: NDArray[Any]) -> float:
        picked = index[broken[index]]
        scores = np.concatenate([clean.scores[index], faulted.scores[picked]])
        return image_auroc(scores, np.arange(len(scores)) >= len(index))

    everyone = np.arange(len(kinds))
    scores = np.concatenate([clean.scores, faulted.scores[broken]])
    labels = np.arange(len(scores)) >= len(clean.scores)
    return {
        "image_auroc": auroc(everyone),
        "image_auroc_interval": interval(auroc, len(kinds)),
        "accuracy": balanced_accuracy(scores, labels),
        "pixel_precision_damage": pixel_precision(faulted.maps, truth["damage"]),
        "pixel_precision_change": pixel_precision(faulted.maps, truth["change"]),
        "image_auroc_by_kind": {
            kind: auroc(np.flatnonzero(kinds == i)) for i, kind in enumerate(KINDS)
        },
    }


def natural(report: Path, thresholds: Mapping[str, Thresholds]) -> dict[str, Any]:
    """Rank detectors on undisturbed runs, as the judge sees their end."""
    samples = pictures(open_runs(report)["sample"].values)
    maps = local_realism(samples, load_embedded("judge"))
    distance = upsample(maps, (samples.shape[-2], samples.shape[-1]))
    worst = maps.mean((1, 2)) > np.quantile(maps.mean((1, 2)), 0.75)
    inside = np.stack([foreground(sample) for sample in samples])
    result: dict[str, Any] = {"runs": len(samples)}
    for name, one in thresholds.items():
        ranked = rank(report, one)
        correlation = foreground_correlation(ranked.maps, distance, inside)
        result[name] = {
            "image_auroc": image_auroc(ranked.scores, worst),
            "image_auroc_interval": interval(
                lambda index, r=ranked: image_auroc(r.scores[index], worst[index]), len(samples)
            ),
            "foreground_correlation": float(correlation.mean()),
            "foreground_correlation_interval": interval(
                lambda index, c=correlation: float(c[index].mean()), len(samples)
            ),
        }
    return result


def main() -> None:
    """Build what is missing, rank, correct, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--corrected-runs", type=int, default=1000)
    parser.add_argument("--cache", type=Path, default=Path("build/truth"))
    parser.add_argument("--pipeline", default="fashion")
    parser.add_argument("--out", type=Path, default=Path("build/truth/results.json"))
    parser.add_argument("--only", choices=("planted", "natural", "corrections"), action="append")
    arguments = parser.parse_args()
    wanted = arguments.only or ["natural", "planted", "corrections"]
    pipe = load_pipeline(arguments.pipeline)
    begin = time.perf_counter()
    paths = stores(arguments.cache, arguments.runs, pipe, arguments.pipeline)
    results: dict[str, Any] = {
        "model": model_fingerprint(pipe),
        "judge": "fashion-judge",
        "steps": STEPS,
    }

    def say(name: str, found: Any) -> None:
        results[name] = found
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
        print(
            f"{time.perf_counter() - begin:7.0f} s  {name}\n{json.dumps(found, indent=1)}",
            flush=True,
        )

    if "natural" in wanted:
        for last in (8, 12):
            say(
                f"natural, up to step {last}",
                natural(paths["report"], learn(paths["fit"], (0.08, last / STEPS))),
            )
    if "planted" in wanted:
        say("planted, up to step 18", planted(paths, learn(paths["fit"], (0.16, 18 / STEPS))))
    if "corrections" in wanted:
        thresholds = learn(paths["fit"], (0.08, 12 / STEPS))
        ranked = {name: rank(paths["report"], thresholds[name]) for name in VARIANTS[:4]}
        outcome = ranked["outcome"].scores
        few = slice(0, arguments.corrected_runs)
        say(
            "corrections at step 12",
            compare_corrections(
                paths["report"],
                {name: one.maps[few] for name, one in ranked.items()},
                load_embedded("judge"),
                step=12,
                chosen=(outcome > np.quantile(outcome, 0.75))[few],
                pipeline=pipe,
            ),
        )


if __name__ == "__main__":
    main()

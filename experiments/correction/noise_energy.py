"""How much of the breaking is the energy of the starting noise.

A start of N normal numbers has a root mean square of 1 within 1/sqrt(2 N): 2.2 % for 1 x 32 x 32,
0.55 % for 4 x 64 x 64, 0.16 % for 3 x 256 x 256. A deterministic sampler keeps it to the end. Here:
how well it predicts the end before a single evaluation, what detectors know beyond it, and what
giving every start the same energy does to the population, sampled anew with paired intervals.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asced_analysis.correction import normalise_noise
from asced_analysis.correction.controls import foreground
from asced_analysis.correction.noise_normalisation import NoiseNormalisation
from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.evaluation.populations import compare, quality_of
from asced_analysis.realism import features, local_realism, upsample
from asced_analysis.realism.distances import neighbour_radii
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import resample_from
from asced_recorders import record
from asced_stores import open_runs
from experiments.correction.continuing import NormalisedAround, local_energy
from experiments.correction.scattering import detail
from experiments.correction.stages import Stage, figures, stage_of
from experiments.datasets.committee import HALF, garments
from experiments.datasets.sets import STEPS, Split, judge_of, mean_distance, model_named
from experiments.detection.detectors import CANDIDATES
from experiments.detection.ranking import foreground_correlation, image_auroc, interval
from experiments.detection.rankings import matched_auroc
from experiments.tables.comparisons import note_changes, note_intervals

EARLY = (0.08, 8 / STEPS)
STRATA = 12
TARGETS = (1.0, 0.98, 1.02)
BLURS = (2.0, 4.0)
STEPS_TRIED = (4, 8, 12, 16)
SAMPLERS = {"DDIM": "ddim", "Euler": "euler", "DPM++": "dpm++", "Euler, ancestral": "euler-a"}
REAL = 2000  # images
FRESH = {"runs": 512, "seed": 30_000}


def energy(noise: NDArray[Any]) -> NDArray[np.float64]:
    """Root mean square of each run's noise (n, channel, y, x)."""
    return np.sqrt(np.mean(noise.astype(np.float64) ** 2, axis=(1, 2, 3)))


def level(noise: NDArray[Any], target: float = 1.0) -> NDArray[np.float32]:
    """Bring each run's noise to one root mean square."""
    start = torch.from_numpy(np.asarray(noise, np.float32))
    return np.asarray(normalise_noise(start, target=target).numpy())


def level_locally(noise: NDArray[Any], blur: float) -> NDArray[np.float32]:
    """Bring the noise around each place to a root mean square of 1, then the whole."""
    return level(noise / local_energy(noise, blur)[:, None])


def measure(bench: Any) -> dict[str, Any]:
    """Detection at step 0, within equal energy, and starts of equal energy."""
    report = bench.sets["report"]
    starts = np.asarray(report.dataset["x_init"].values, np.float32)
    result = predicted(bench, report, starts)
    bench.say(f"at step 0: {result['rows']['starting noise, step 0']['image_auroc']:.3f}")
    result["corrections"] = normalised_later(bench, stage_of(bench, "tune"))
    result["populations"] = populations(bench, report, starts)
    result["samplers"] = samplers(bench)
    return result


def predicted(bench: Any, report: Split, starts: NDArray[np.float32]) -> dict[str, Any]:
    """What the starting noise knows of the end, and what detectors know beyond it."""
    judged = report.distance("judge")
    distance, rms = mean_distance(judged), energy(starts)
    worst = distance > np.quantile(distance, 0.75)
    broken = distance > real_limit(0.99)
    edges = np.quantile(rms, np.linspace(0, 1, STRATA + 1)[1:-1])
    strata = np.searchsorted(edges, rms)
    scores = {"starting noise, step 0": rms}
    detectors = bench.detectors()
    for name in CANDIDATES:
        scores[name] = detectors.ranked(name, EARLY, report.dataset, "report")[0].scores
    rows = {}
    for name, one in scores.items():
        rows[name] = {
            "image_auroc": image_auroc(one, worst),
            "image_auroc_interval": interval(
                lambda i, s=one: image_auroc(s[i], worst[i]), len(one)
            ),
            "broken_auroc": image_auroc(one, broken),
            "broken_auroc_interval": interval(
                lambda i, s=one: image_auroc(s[i], broken[i]), len(one)
            ),
            "matched_auroc": matched_auroc(one, distance, strata),
            "matched_auroc_interval": interval(
                lambda i, s=one: matched_auroc(s[i], distance[i], strata[i]),
                len(one),
                resamples=200,
            ),
        }
    shares = [
        {
            "energy": float(rms[strata == k].mean()),
            "worst_quarter": mean_estimate(worst[strata == k]).to_dict(),
            "broken": mean_estimate(broken[strata == k]).to_dict(),
        }
        for k in range(STRATA)
    ]
    shape = starts.shape[-2:]
    inside = np.stack([foreground(one) for one in report.samples])
    maps = {
        f"{blur:g}": mean_estimate(
            foreground_correlation(local_energy(starts, blur), upsample(judged, shape), inside)
        ).to_dict()
        for blur in BLURS
    }
    return {"rows": rows, "strata": shares, "local_energy": maps, "values": starts[0].size}


def real_limit(share: float, name: str = "judge") -> float:
    """Local distance that so many real images stay below, as the judge or another sees them."""
    return float(np.quantile(_real_distances(name, REAL), share))


@cache
def _real_distances(name: str, count: int) -> NDArray[np.float64]:
    """Local distance of real images, as the judge or another sees them."""
    real = garments(1 - HALF.get(name, 0), count)
    return mean_distance(local_realism(real, model_named(name)))


def normalised_later(bench: Any, stage: Stage) -> dict[str, Any]:
    """Flagged runs whose noise is brought to the right energy at a step, none of it fresh."""
    rows = {}
    for step in STEPS_TRIED:
        for name, strategy in (
            ("noise normalised", NoiseNormalisation()),
            ("noise normalised around each place", NormalisedAround(blur=BLURS[-1])),
        ):
            ends, _ = stage.sample(f"{name}-{step}", strategy, step)
            rows[f"{name}, step {step}"] = figures(stage, ends, STEPS - step) | {
                "detail": detail(ends)
            }
            bench.say(
                f"{name}, step {step}: {rows[f'{name}, step {step}']['change']['value']:+.3f}"
            )
    note_changes(rows)
    return {"rows": rows, "detail_before": detail(stage.images)}


def sampled(bench: Any, report: Split, starts: NDArray[np.float32], name: str) -> Any:
    """Ends of all runs of a split from other starts; kept in the cache."""
    path = report.store.parent / f"normalised-{name}.npy"
    if not path.exists():
        recording = Recording(report.store)
        ends = []
        for begin in range(0, len(starts), 64):
            batch = recording.select(report.runs[begin : begin + 64])
            start = torch.from_numpy(starts[begin : begin + 64])
            ends.append(resample_from(recording, batch, bench.pipe, start, 0))
        np.save(path, pictures(np.concatenate(ends)))
    return np.load(path)


def samplers(bench: Any) -> dict[str, Any]:
    """What the starting noise predicts with other samplers, on fresh seeds.

    A sampler that draws noise at every step forgets the energy of its start.
    """
    rows, limit, model = {}, real_limit(0.99), judge_of()
    for label, scheduler in SAMPLERS.items():
        path = bench.cache / f"energy-{scheduler}.zarr"
        record(
            bench.arguments.pipeline,
            path,
            steps=STEPS,
            batch_size=64,
            scheduler=scheduler,
            fields=("eps", "x0", "x_init", "sample"),
            resume=path.exists(),
            **FRESH,
        )
        runs = open_runs(path)
        rms = energy(runs["x_init"].values)
        images = pictures(runs["sample"].values)
        distance = mean_distance(local_realism(images, model))
        worst = distance > np.quantile(distance, 0.75)
        rows[label] = {
            "runs": len(distance),
            "image_auroc": image_auroc(rms, worst),
            "image_auroc_interval": interval(
                lambda i, r=rms, w=worst: image_auroc(r[i], w[i]), len(rms)
            ),
            "broken": mean_estimate((distance > limit).astype(float)).to_dict(),
            "distance": mean_estimate(distance).to_dict(),
            "detail": detail(images),
        }
        bench.say(f"{label}: {rows[label]['image_auroc']:.3f}")
    return rows


def populations(bench: Any, report: Split, starts: NDArray[np.float32]) -> dict[str, Any]:
    """The whole population from starts of equal energy, beside itself."""
    model = judge_of()
    radii = neighbour_radii(model.vectors, 3)
    limits = {q: real_limit(q) for q in (0.95, 0.99)}
    views = {name: (model_named(name), real_limit(0.99, name)) for name in ("teacher", "patches")}
    versions = {"as drawn": report.samples}
    for target in TARGETS:
        versions[f"root mean square {target:g}"] = sampled(
            bench, report, level(starts, target), f"{target:g}"
        )
    for blur in BLURS:
        versions[f"1, and around each place (Gaussian of {blur:g} pixels)"] = sampled(
            bench, report, level_locally(starts, blur), f"local-{blur:g}"
        )
    rows, first = {}, None
    worst = float(np.quantile(mean_distance(report.distance("judge")), 0.75))
    for name, images in versions.items():
        distance = mean_distance(local_realism(images, model))
        quality = quality_of(features(images, model), distance, model, radii, 3)
        first = first or (quality, distance)
        rows[name] = {
            "distance": float(distance.mean()),
            "beyond_real": {
                str(q): mean_estimate((distance > one).astype(float)).to_dict()
                for q, one in limits.items()
            },
            "repaired": mean_estimate((distance <= worst)[first[1] > worst]).to_dict(),
            "broken_repaired": mean_estimate(
                (distance <= limits[0.99])[first[1] > limits[0.99]]
            ).to_dict(),
            "harmed": mean_estimate((distance > worst)[first[1] <= worst]).to_dict(),
            "broken_harmed": mean_estimate(
                (distance > limits[0.99])[first[1] <= limits[0.99]]
            ).to_dict(),
            "beyond_real_by": {
                one: mean_estimate(mean_distance(local_realism(images, seen)) > limit).to_dict()
                for one, (seen, limit) in views.items()
            },
            "detail": detail(images),
            "compared": None
            if images is report.samples
            else {k: asdict(v) for k, v in compare(first[0], quality, model).items()},
        }
        bench.say(f"{name}: {rows[name]['beyond_real']}")
    note_intervals(
        [one["change"] for row in rows.values() for one in (row["compared"] or {}).values()]
    )
    return {"rows": rows, "detail_of_real": detail(garments(1 - HALF["judge"], REAL))}

"""Detectors ranked on sets whose truth is known: natural, planted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import foreground
from asced_analysis.detection.change_maps import pool
from asced_analysis.realism import upsample
from experiments.datasets.faults import KINDS, LEAST_DAMAGE
from experiments.datasets.sets import Split, limit_of, mean_distance
from experiments.detection.detectors import CANDIDATES, OPTIONS, Detectors
from experiments.detection.outcome_comparison import content_strata
from experiments.detection.ranking import (
    Ranked,
    balanced_accuracy,
    best_overlap,
    count_pixels,
    first_flags,
    foreground_correlation,
    group_overlaps,
    image_auroc,
    interval,
    pixel_precision,
    risk_coverage,
)


def natural(
    report: Split,
    tune: Split,
    detectors: Detectors,
    window: tuple[float, float],
    say: Callable[[str], None],
    names: tuple[str, ...] = tuple(CANDIDATES),
) -> dict[str, Any]:
    """Undisturbed runs: the worst quarter, and the worst tenth of their places, by the judge."""
    maps = report.distance("judge")
    distance = mean_distance(maps)
    shape = report.samples.shape[-2], report.samples.shape[-1]
    worst = distance > limit_of(tune)
    places = upsample(maps > np.quantile(tune.distance("judge"), 0.9), shape)
    inside = np.stack([foreground(sample) for sample in report.samples])
    strata = content_strata(np.asarray(pool(report.samples, 16)))
    result: dict[str, Any] = {
        "runs": len(distance),
        "worst": int(worst.sum()),
        "base_rate_places": float(places.mean()),
        "rows": {},
    }
    for name in names:
        ranked, spent = detectors.ranked(name, window, report.dataset, "report")
        correlation = foreground_correlation(ranked.maps, upsample(maps, shape), inside)
        row = image_figures(ranked.scores, worst) | pixel_figures(ranked, places)
        row |= {
            "matched_auroc": matched_auroc(ranked.scores, distance, strata),
            "matched_auroc_interval": interval(
                lambda i, r=ranked: matched_auroc(r.scores[i], distance[i], strata[i]),
                len(distance),
                resamples=200,
            ),
            "foreground_correlation": float(correlation.mean()),
            "foreground_correlation_interval": interval(
                lambda i, c=correlation: float(c[i].mean()), len(distance)
            ),
            "milliseconds": spent,
        }
        result["rows"][name] = row
        say(f"{name}: {row['image_auroc']:.3f}")
    result["ceiling"] = {}
    for label in ("teacher", "patches", "committee"):
        seen = report.distance(label)
        at_end = foreground_correlation(upsample(seen, shape), upsample(maps, shape), inside)
        result["ceiling"][label] = {
            "image_auroc": image_auroc(mean_distance(seen), worst),
            "matched_auroc": matched_auroc(mean_distance(seen), distance, strata),
            "pixel_precision": pixel_precision(upsample(seen, shape), places),
            "foreground_correlation": float(at_end.mean()),
        }
    result["paired"] = paired_aurocs(
        {n: detectors.ranked(n, window, report.dataset, "report")[0].scores for n in names},
        lambda s, i: image_auroc(s[i], worst[i]),
        len(distance),
    )
    return result


def image_figures(scores: NDArray[Any], broken: NDArray[np.bool_]) -> dict[str, Any]:
    """How well a run score ranks."""
    risks, area = risk_coverage(scores, broken)
    return {
        "image_auroc": image_auroc(scores, broken),
        "image_auroc_interval": interval(lambda i: image_auroc(scores[i], broken[i]), len(scores)),
        "accuracy": balanced_accuracy(scores, broken),
        "risk_coverage": risks,
        "risk_coverage_area": area,
    }


def pixel_figures(ranked: Ranked, truth: NDArray[np.bool_]) -> dict[str, Any]:
    """How well a map ranks places."""
    counts = count_pixels(ranked.maps, truth)
    runs = len(truth)
    return {
        "pixel_precision": counts.precision(),
        "pixel_precision_interval": interval(
            lambda i: counts.precision(np.bincount(i, minlength=runs)), runs
        ),
        "overlap": best_overlap(ranked.maps, truth),
    }


def matched_auroc(scores: NDArray[Any], distance: NDArray[Any], strata: NDArray[np.intp]) -> float:
    """AUROC of the worst quarter within strata of brightness and busyness, weighted by pairs."""
    total, pairs = 0.0, 0
    for stratum in np.unique(strata):
        inside = strata == stratum
        worst = distance[inside] > np.quantile(distance[inside], 0.75)
        weight = int(worst.sum()) * int((~worst).sum())
        if weight:
            total += weight * image_auroc(scores[inside], worst)
            pairs += weight
    return total / pairs if pairs else float("nan")


def paired_aurocs(
    scores: Mapping[str, NDArray[Any]], figure: Any, runs: int, resamples: int = 300
) -> dict[str, Any]:
    """Difference of the first detector's figure to every other's, paired by run."""
    names = list(scores)
    found = {}
    for other in names[1:]:
        value = figure(scores[names[0]], np.arange(runs)) - figure(scores[other], np.arange(runs))
        low, high = interval(
            lambda i, o=other: figure(scores[names[0]], i) - figure(scores[o], i),
            runs,
            resamples=resamples,
        )
        found[other] = {"value": float(value), "low": low, "high": high}
    return found


def planted(
    clean: Split,
    faulted: Any,
    detectors: Detectors,
    window: tuple[float, float],
    say: Callable[[str], None],
    names: tuple[str, ...] = tuple(n for n in CANDIDATES if "alone" not in n),
) -> dict[str, Any]:
    """Planted faults that stay broken against the same runs undisturbed."""
    truth = {name: np.asarray(faulted[name].values, np.bool_) for name in ("change", "damage")}
    facts = {n: np.asarray(faulted[n].values) for n in ("kind", "size", "contrast", "onset")}
    broken = truth["damage"].sum((1, 2)) >= LEAST_DAMAGE
    strong = facts["contrast"] > np.median(facts["contrast"][broken])
    large = facts["size"] > np.median(facts["size"])
    groups = {name: facts["kind"] == i for i, name in enumerate(KINDS)}
    groups |= {"low contrast": ~strong, "high contrast": strong, "small": ~large, "large": large}
    result: dict[str, Any] = {
        "runs": len(broken),
        "broken": int(broken.sum()),
        "changed": float((truth["change"].sum((1, 2)) >= LEAST_DAMAGE).mean()),
        "groups": {
            name: {
                "runs": int(one.sum()),
                "changed": float((truth["change"].sum((1, 2)) >= LEAST_DAMAGE)[one].mean()),
                "broken": float(broken[one].mean()),
            }
            for name, one in groups.items()
        },
        "base_rate_damage": float(truth["damage"].mean()),
        "base_rate_change": float(truth["change"].mean()),
        "rows": {},
    }
    count = len(broken)
    everybody: dict[str, NDArray[Any]] = {}
    for name in names:
        undisturbed, _ = detectors.ranked(name, window, clean.dataset, "report")
        ranked, spent = detectors.ranked(name, window, faulted, "planted")
        pair = np.stack([undisturbed.scores, ranked.scores], axis=1)
        everybody[name] = pair

        def auroc(index: NDArray[Any], pair: NDArray[Any] = pair) -> float:
            hit = index[broken[index]]
            values = np.concatenate([pair[index, 0], pair[hit, 1]])
            return image_auroc(values, np.arange(len(values)) >= len(index))

        values = np.concatenate([pair[:, 0], pair[broken, 1]])
        labels = np.arange(len(values)) >= count
        risks, area = risk_coverage(values, labels)
        row = {
            "image_auroc": auroc(np.arange(count)),
            "image_auroc_interval": interval(auroc, count),
            "accuracy": balanced_accuracy(values, labels),
            "above_intact": float((pair[broken, 1] > pair[broken, 0]).mean()),
            "risk_coverage": risks,
            "risk_coverage_area": area,
            "milliseconds": spent,
        }
        row |= pixel_figures(ranked, truth["damage"])
        row["pixel_precision_change"] = pixel_precision(ranked.maps, truth["change"])
        overlaps = group_overlaps(ranked.maps, truth["damage"], groups)
        first = first_flags(faulted, detectors.thresholds(name, window))
        row |= delays(first, facts["onset"], broken)
        row["by_group"] = {
            group: {
                "image_auroc": auroc(np.flatnonzero(one)),
                "pixel_precision": pixel_precision(ranked.maps[one], truth["damage"][one]),
                "overlap": overlaps[group],
                **delays(first[one], facts["onset"][one], broken[one]),
            }
            for group, one in groups.items()
        }
        result["rows"][name] = row
        say(f"{name}: {row['image_auroc']:.3f}, pixels {row['pixel_precision']:.3f}")

    def figure(pair: NDArray[Any], index: NDArray[Any]) -> float:
        hit = index[broken[index]]
        values = np.concatenate([pair[index, 0], pair[hit, 1]])
        return image_auroc(values, np.arange(len(values)) >= len(index))

    result["paired"] = paired_aurocs(everybody, figure, count)
    return result


def options(
    clean: Split,
    tune: Split,
    faulted: Any,
    detectors: Detectors,
    window: tuple[float, float],
    say: Callable[[str], None],
    names: tuple[str, ...] = (*OPTIONS, "diffpath"),
) -> dict[str, Any]:
    """Choices of `calibrated` on planted faults and on undisturbed runs, beside `diffpath`.

    The last row is no detector: by how much a sample entering a step differs from what the step
    before makes of it, which is what planting does and a deterministic sampler never does.
    """
    damage = np.asarray(faulted["damage"].values, np.bool_)
    fault = np.asarray(faulted["fault"].values, np.bool_)
    broken = damage.sum((1, 2)) >= LEAST_DAMAGE
    kinds = np.asarray(faulted["kind"].values)
    maps = clean.distance("judge")
    shape = clean.samples.shape[-2], clean.samples.shape[-1]
    worst = mean_distance(maps) > limit_of(tune)
    places = upsample(maps > np.quantile(tune.distance("judge"), 0.9), shape)

    def measure(undisturbed: Ranked, ranked: Ranked) -> dict[str, Any]:
        pair = np.stack([undisturbed.scores, ranked.scores], axis=1)

        def auroc(index: NDArray[Any]) -> float:
            hit = index[broken[index]]
            values = np.concatenate([pair[index, 0], pair[hit, 1]])
            return image_auroc(values, np.arange(len(values)) >= len(index))

        everybody = np.arange(len(broken))
        return {
            "image_auroc": auroc(everybody),
            "image_auroc_interval": interval(auroc, len(broken)),
            "score_trap_auroc": auroc(np.flatnonzero(kinds == KINDS.index("score_trap"))),
            "damage": pixel_figures(ranked, damage),
            "fault": pixel_precision(ranked.maps, fault),
            "natural_image_auroc": image_auroc(undisturbed.scores, worst),
            "natural_image_auroc_interval": interval(
                lambda i: image_auroc(undisturbed.scores[i], worst[i]), len(worst)
            ),
            "natural_pixel_precision": pixel_precision(undisturbed.maps, places),
        }

    result: dict[str, Any] = {
        "base_rate_damage": float(damage.mean()),
        "base_rate_fault": float(fault.mean()),
        "base_rate_places": float(places.mean()),
        "fault_itself": pixel_precision(fault.astype(np.float32), damage),
        "rows": {},
    }
    for name in names:
        ranked = detectors.ranked(name, window, faulted, "planted")[0]
        undisturbed = detectors.ranked(name, window, clean.dataset, "report")[0]
        result["rows"][name] = measure(undisturbed, ranked)
        say(f"{name}: {result['rows'][name]['image_auroc']:.3f}")
    result["rows"]["the break of the sampler's step itself"] = measure(
        step_breaks(clean.dataset), step_breaks(faulted)
    )
    return result


def step_breaks(runs: Any) -> Ranked:
    """Largest change of the sample that the deterministic step before does not account for."""
    alpha, sigma = (np.asarray(runs[name].values, np.float32) for name in ("alpha", "sigma"))
    largest: NDArray[np.float32] | None = None
    for step in range(1, len(alpha)):
        before, here = (
            (runs["x0"].isel(step=k).values, runs["eps"].isel(step=k).values)
            for k in (step - 1, step)
        )
        entering = alpha[step] * here[0].astype(np.float32) + sigma[step] * here[1]
        expected = alpha[step] * before[0].astype(np.float32) + sigma[step] * before[1]
        size = np.abs(entering - expected).mean(axis=1)
        largest = size if largest is None else np.maximum(largest, size)
    assert largest is not None
    return Ranked(largest.reshape(len(largest), -1).max(axis=1).astype(np.float64), largest)


def delays(
    first: NDArray[np.int64], onset: NDArray[Any], broken: NDArray[np.bool_]
) -> dict[str, Any]:
    """Steps from the onset to the first flag, of runs that stay broken and are flagged after it.

    Parameters
    ----------
    first : int array, shape (n,)
        First flagged step, -1 where never.
    onset : int array, shape (n,)
    broken : bool array, shape (n,)
    """
    hit = broken & (first >= onset)
    before = broken & (first >= 0) & (first < onset)
    return {
        "detected": float(hit.sum() / max(1, broken.sum())),
        "flagged_before_onset": float(before.sum() / max(1, broken.sum())),
        "delay": float(np.median((first - onset)[hit])) if hit.any() else None,
    }

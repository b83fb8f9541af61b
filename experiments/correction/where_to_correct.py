"""Corrections by strategy and mask on all runs of a set, as the set's truth sees them.

All masks have one area, so that a map is compared with a map and not with a size. Every run is
corrected with every mask: effects are read where runs are predicted to break or do, harm on those
that are whole. They are paired by run against no correction, and against the best control of equal
area; p-values of the paired t test are corrected by Holm's method over the whole table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.effects import Effect, effect_of, pixel_change
from asced_analysis.evaluation.intervals import bootstrap, mean_estimate
from asced_analysis.evaluation.populations import OF_SETS, Quality, quality_of
from asced_analysis.realism import RealismModel, features, local_realism, upsample
from asced_analysis.realism.distances import neighbour_radii
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_stores import open_runs
from experiments.correction.every_correction import (
    CONTROLS,
    EVERYWHERE,
    HINDSIGHT,
    STRATEGIES,
    Masks,
    Target,
    corrected,
    masks_of,
)
from experiments.correction.masks import SHARE
from experiments.correction.placing import NEIGHBOURS
from experiments.datasets.faults import CHECKPOINT, LEAST_DAMAGE, clipped, damage_of
from experiments.datasets.sets import STEPS, judge_of, limit_of, mean_distance
from experiments.detection.detectors import MAIN
from experiments.tables.comparisons import note_adjusted, paired_p

NATURAL_STEP, PLANTED_STEP = 12, CHECKPOINT
NATURAL_MAPS = (MAIN, "outcome", "paper", "released")
PLANTED_MAPS = ("innovation, peak", "diffpath", "outcome", "paper", "released")
RESAMPLES = 200

Runs = NDArray[np.bool_]
See = Callable[[NDArray[np.float32]], "Seen"]


@dataclass(frozen=True)
class Seen:
    """Ends of all runs as the set's truth sees them.

    Attributes
    ----------
    score : float64 array, shape (n,)
        What a correction is to lower.
    broken : bool array, shape (n,)
    area : float64 array, shape (n,)
        Damaged share of the image.
    distance : float32 array, shape (n, rows, columns), optional
        Local distance, where a network judges.
    vectors : float32 array, shape (n, d), optional
        The judge's features of whole images.
    """

    score: NDArray[np.float64]
    broken: Runs
    area: NDArray[np.float64]
    distance: NDArray[np.float32] | None = None
    vectors: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Correction:
    """One strategy with one mask: what is seen after it, and what changed."""

    seen: Seen
    effect: Effect | None
    outside: NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A set with its truth.

    Attributes
    ----------
    target : Target
    before : Seen
        The runs uncorrected.
    chosen : bool array, shape (n,)
        Runs whose effects count.
    damaged : bool array, shape (n, rows, columns), optional
        Damaged places of the map of local distance.
    flags : dict of detector to bool array, shape (n,)
        As many runs as break, those it puts first.
    model : RealismModel
        Whose features Frechet distance, precision and recall are computed from.
    """

    target: Target
    before: Seen
    chosen: Runs
    damaged: Runs | None
    flags: Mapping[str, Runs]
    model: RealismModel


def natural(bench: Any) -> dict[str, Any]:
    """Undisturbed runs: whatever the judge finds worst."""
    report, tune, detectors = bench.sets["report"], bench.sets["tune"], bench.detectors()
    window = (0.08, NATURAL_STEP / STEPS)
    ranked = {n: detectors.ranked(n, window, report.dataset, "report")[0] for n in NATURAL_MAPS}
    limit, judge = limit_of(tune), judge_of()
    place = float(np.quantile(tune.distance("judge"), 0.9))

    def see(images: NDArray[np.float32]) -> Seen:
        distance = local_realism(images, judge)
        score = mean_distance(distance)
        area = (distance > place).mean((1, 2))
        return Seen(score, score > limit, area, distance, features(images, judge))

    before = see(report.samples)
    assert before.distance is not None
    flags = flags_of({n: one.scores for n, one in ranked.items()}, before)
    chosen = flags[MAIN]
    damaged = before.distance > np.quantile(before.distance[chosen], 0.9)
    target = Target(report.store, report.runs, report.samples, NATURAL_STEP)
    truth = upsample(before.distance, report.samples.shape[-2:])
    masks = masks_of(target, {name: one.maps for name, one in ranked.items()}, truth)
    case = Case(target, before, chosen, damaged, flags, judge)
    folder = report.store.parent / "where"
    return measured(case, masks, see, folder, bench) | {"judge": judge.name}


def planted(bench: Any, path: Path) -> dict[str, Any]:
    """Planted faults: whatever is changed and less real than in the undisturbed run."""
    report, detectors = bench.sets["report"], bench.detectors()
    faulted = open_runs(path)
    window = (0.16, PLANTED_STEP / STEPS)
    ranked = {n: detectors.ranked(n, window, faulted, "planted")[0] for n in PLANTED_MAPS}
    images = pictures(faulted["sample"].values)
    batches, judge = np.asarray(faulted["batch"].values), judge_of()

    def see(images: NDArray[np.float32]) -> Seen:
        distance = local_realism(images, judge)
        every = (images, report.samples, distance, report.distance("judge"))
        damage = np.concatenate(
            [damage_of(*(one[batches == b] for one in every))[1] for b in np.unique(batches)]
        )
        area = damage.mean((1, 2))
        broken = damage.sum((1, 2)) >= LEAST_DAMAGE
        return Seen(area, broken, area, distance, features(images, judge))

    before = see(images)
    assert before.distance is not None
    damage = np.asarray(faulted["damage"].values, np.bool_)
    case = Case(
        Target(path, np.asarray(faulted["run"].values), images, PLANTED_STEP, clipped),
        before,
        before.broken,
        pooled(damage, before.distance.shape),
        flags_of({n: one.scores for n, one in ranked.items()}, before),
        judge,
    )
    worse = upsample(before.distance - report.distance("judge"), damage.shape[1:])
    truth = np.where(damage, worse, worse.min() - 1)
    masks = masks_of(case.target, {name: one.maps for name, one in ranked.items()}, truth)
    found = measured(case, masks, see, path.parent / "where-planted", bench)
    return found | {"judge": judge.name}


def pooled(mask: Runs, shape: tuple[int, ...]) -> Runs:
    """Places of a coarser map that hold any pixel of a mask."""
    n, rows, columns = shape
    parts = mask.reshape(n, rows, mask.shape[1] // rows, columns, mask.shape[2] // columns)
    return np.asarray(parts.any((2, 4)))


def flags_of(scores: Mapping[str, NDArray[Any]], before: Seen) -> dict[str, Runs]:
    """As many runs as break: the highest of each detector."""
    count = int(before.broken.sum())
    found = {}
    for name, one in scores.items():
        found[name] = np.zeros(len(one), np.bool_)
        found[name][np.argsort(-one, kind="stable")[:count]] = True
    return found


def measured(
    case: Case,
    masks: Mapping[str, Masks],
    see: See,
    folder: Path,
    bench: Any,
    pipe: Any = None,
    strategies: Sequence[str] = STRATEGIES,
) -> dict[str, Any]:
    """Correct, look, and tabulate; by the bench's pipeline where no other is given."""
    pipe = bench.pipe if pipe is None else pipe
    found: dict[str, dict[str, Correction]] = {}
    for name, mask in masks.items():
        ends = corrected(case.target, mask, name, folder, pipe, strategies)
        for strategy, images in ends.items():
            found.setdefault(strategy, {})[name] = _compared(case, images, mask, see(images))
        bench.say(f"corrected: {name}")
    result = by_mask(case, found) | {
        "runs": len(case.before.score),
        "chosen": int(case.chosen.sum()),
        "broken_before": int(case.before.broken.sum()),
        "area_before": float(case.before.area[case.chosen].mean()),
        "step": case.target.step,
        "share": SHARE,
    }
    bench.say("effects")
    return result | {"policies": by_flag(case, found)}


def _compared(case: Case, images: NDArray[np.float32], mask: Masks, seen: Seen) -> Correction:
    before, effect = case.before, None
    if before.distance is not None and case.damaged is not None:
        assert seen.distance is not None
        effect = effect_of(before.distance, seen.distance, case.target.images, images, case.damaged)
    _, outside = pixel_change(case.target.images, images, mask)
    kept = Seen(seen.score, seen.broken, seen.area, None, seen.vectors)
    return Correction(kept, effect, outside)


def by_mask(case: Case, found: Mapping[str, Mapping[str, Correction]]) -> dict[str, Any]:
    """Effects by strategy and mask on the chosen runs, with and against the controls."""
    rows: dict[str, dict[str, Any]] = {}
    tests: list[tuple[dict[str, Any], str, float]] = []
    was, chosen = case.before.broken, case.chosen
    for strategy, one in found.items():
        change = {name: (c.seen.score - case.before.score)[chosen] for name, c in one.items()}
        best = min(CONTROLS, key=lambda name, change=change: change[name].mean())
        for name, correction in one.items():
            now, outside = (
                correction.seen.broken,
                correction.outside[np.isfinite(correction.outside)],
            )
            row: dict[str, Any] = {
                "change": mean_estimate(change[name]).to_dict(),
                "repaired": mean_estimate(~now[chosen & was]).to_dict(),
                "harmed": mean_estimate(now[~was]).to_dict(),
                "area_after": float(correction.seen.area[chosen].mean()),
                "outside": mean_estimate(outside).to_dict(),
            }
            if correction.effect is not None:
                row["effect"] = asdict(part_of(correction.effect, chosen).figures())
            tests.append((row, "p", paired_p(change[name])))
            if name not in (*CONTROLS, EVERYWHERE):
                difference = change[name] - change[best]
                row["against_controls"] = {"against": best, **mean_estimate(difference).to_dict()}
                tests.append((row, "p_against", paired_p(difference)))
            rows.setdefault(strategy, {})[name] = row
    note_adjusted(tests)
    return {"rows": rows, "tests": len(tests)}


def part_of(effect: Effect, chosen: Runs) -> Effect:
    """The effect on some of the runs."""
    return Effect(
        {where: values[chosen] for where, values in effect.sums.items()},
        {where: values[chosen] for where, values in effect.counts.items()},
    )


def by_flag(case: Case, found: Mapping[str, Mapping[str, Correction]]) -> dict[str, Any]:
    """What each detector's own flags and masks do to the whole set, beside the controls' masks.

    Hindsight flags the runs that break; controls are for the first detector's flags.
    """
    first, was = next(iter(case.flags)), case.before.broken
    before = _quality(case, case.before.vectors, case.before.score)
    rows: dict[str, dict[str, Any]] = {}
    tests: list[tuple[dict[str, Any], str, float]] = []
    for strategy, one in found.items():
        for name, correction in one.items():
            flags = was if name == HINDSIGHT else case.flags.get(name, case.flags[first])
            seen = correction.seen
            now = np.where(flags, seen.broken, was)
            row: dict[str, Any] = {
                "flagged": int(flags.sum()),
                "flagged_broken": mean_estimate(was[flags]).to_dict(),
                "repaired": mean_estimate(~now[was]).to_dict(),
                "harmed": mean_estimate(now[~was]).to_dict(),
                "broken": mean_estimate(now).to_dict(),
                "change": mean_estimate(now.astype(float) - was).to_dict(),
            }
            tests.append((row, "p", paired_p(now.astype(float) - was)))
            if before is not None:
                assert seen.vectors is not None
                assert case.before.vectors is not None
                vectors = np.where(flags[:, None], seen.vectors, case.before.vectors)
                score = np.where(flags, seen.score, case.before.score)
                after = _quality(case, vectors, score)
                row |= quality_changes(before, after, case.model)
            rows.setdefault(strategy, {})[name] = row
    note_adjusted(tests)
    return {"rows": rows, "tests": len(tests), "controls_flagged_by": first}


def _quality(case: Case, vectors: Any, score: NDArray[np.float64]) -> Any:
    """A population placed against the judge's real images."""
    if vectors is None:
        return None
    radii = neighbour_radii(case.model.vectors, NEIGHBOURS)
    return quality_of(vectors, score, case.model, radii, NEIGHBOURS)


def quality_changes(before: Quality, after: Quality, model: RealismModel) -> dict[str, Any]:
    """Changes of Frechet distance, precision and recall, paired by run."""
    found = {
        name: bootstrap(
            lambda counts, of=of: of(after, model, counts) - of(before, model, counts),
            len(before.vectors),
            resamples=RESAMPLES,
        ).to_dict()
        for name, of in OF_SETS.items()
    }
    precise = after.realistic.astype(float) - before.realistic
    return found | {"precision": mean_estimate(precise).to_dict()}

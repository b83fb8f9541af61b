"""Whom, where, when and how to correct: every idea with what it gave.

Masks and flags come from the learnt detector at step 12 unless a row says otherwise. Ideas are
compared on `tune`; those that a policy is made of are measured on `report`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from committee import committee
from continuing import continued
from detectors import MAIN
from masks import top_share
from numpy.typing import NDArray
from scipy import ndimage
from sets import STEPS, Split, bar_of, judge_of, mean_distance

from asced_analysis.correction.controls import control_masks, foreground
from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.evaluation.populations import compare, quality_of
from asced_analysis.realism import features, local_realism, upsample
from asced_analysis.realism.distances import neighbour_radii
from asced_analysis.replay.recording import Recording

WINDOW = (0.08, 12 / STEPS)
FLAGGED = 0.25
MOST_TUNED = 192


@dataclass
class Stage:
    """Flagged runs of one split, ready to be corrected."""

    split: Split
    recording: Recording
    chosen: NDArray[np.intp]
    maps: NDArray[np.float32]
    before: NDArray[np.float32]
    bar: float
    bench: Any

    @property
    def runs(self) -> NDArray[np.int64]:
        """Numbers of the flagged runs."""
        return self.split.runs[self.chosen]

    @property
    def images(self) -> NDArray[np.float32]:
        """Their ends, uncorrected."""
        return self.split.samples[self.chosen]

    def everywhere(self) -> NDArray[np.bool_]:
        """Masks that hold everything."""
        return np.ones((len(self.chosen), *self.images.shape[-2:]), np.bool_)

    def foreground(self, step: int) -> NDArray[np.bool_]:
        """Foreground of what was predicted right before a step."""
        x0 = self.recording.read(self.recording.select(self.runs), "x0", step=step - 1)
        return np.stack([foreground(one.astype(np.float32)) for one in x0])

    def sample(self, name: str, edits: Any, seed: int = 0, watch: Sequence[int] = ()) -> Any:
        """Ends of the flagged runs with these edits; kept in the cache by name and content."""
        folder = self.split.store.parent / f"policies-{self.split.name}"
        folder.mkdir(exist_ok=True)
        digest = hashlib.sha256(self.runs.tobytes())
        for step, mask in sorted(edits.items()):
            digest.update(bytes([step]) + np.ascontiguousarray(mask).tobytes())
        path = folder / f"{name}-{seed}-{digest.hexdigest()[:10]}.npz"
        if not path.exists():
            ends, seen = continued(
                self.recording, self.bench.pipe, self.runs, edits, seed=seed, watch=watch
            )
            np.savez(path, ends=ends, **{f"x0_{step}": v for step, v in seen.items()})
        with np.load(path) as kept:
            return kept["ends"], {step: kept[f"x0_{step}"] for step in watch}


def stage_of(bench: Any, name: str, *, share: float = FLAGGED) -> Stage:
    """The runs of a split foretold to end worst; the level is set on the other split."""
    split, other = bench.sets[name], bench.sets["tune" if name == "report" else "report"]
    detectors = bench.detectors()
    ranked, _ = detectors.ranked(MAIN, WINDOW, split.dataset, name)
    reference, _ = detectors.ranked(MAIN, WINDOW, other.dataset, other.name)
    level = np.quantile(reference.scores, 1 - share)
    chosen = np.flatnonzero(ranked.scores > level)
    if name == "tune":
        chosen = chosen[:MOST_TUNED]
    return Stage(
        split,
        Recording(split.store),
        chosen,
        ranked.maps[chosen],
        split.distance("judge")[chosen],
        bar_of(other),
        bench,
    )


def figures(stage: Stage, ends: NDArray[np.float32], evaluations: float) -> dict[str, Any]:
    """What an idea did to the flagged runs, as the judge sees it.

    `repaired`: of the flagged runs in the worst quarter, the share that leaves it. `good`: the
    share of all flagged runs that end outside the worst quarter. `harmed`: of the flagged runs that
    were not in the worst quarter, the share that falls into it, and as a share of all runs.
    """
    before = mean_distance(stage.before)
    after = mean_distance(local_realism(ends, judge_of()))
    was, now = before > stage.bar, after > stage.bar
    return {
        "flagged": len(before),
        "changes": [round(float(one), 5) for one in after - before],
        "change": mean_estimate(after - before).to_dict(),
        "improved": mean_estimate(after < before).to_dict(),
        "repaired": mean_estimate(~now[was]).to_dict(),
        "good_before": float((~was).mean()),
        "good": mean_estimate(~now).to_dict(),
        "harmed_of_flagged_good": mean_estimate(now[~was]).to_dict(),
        "harmed_of_all_good": float(
            (now & ~was).sum() / (mean_distance(stage.split.distance("judge")) <= stage.bar).sum()
        ),
        "evaluations_per_flagged_run": float(evaluations),
    }


def measure_ideas(bench: Any) -> None:
    """Every idea on `tune`; results are kept as they come."""
    stage = stage_of(bench, "tune")
    found: dict[str, Any] = {}

    def note(name: str, ends: NDArray[np.float32], evaluations: float) -> None:
        found[name] = figures(stage, ends, evaluations)
        change = found[name]["change"]["value"]
        bench.say(f"{name}: {change:+.3f}, good {found[name]['good']['value']:.3f}")
        worth = {name: paired(found, *names) for name, names in WORTH.items()}
        bench.keep("ideas", {"set": "tune", "rows": found, "worth": worth})

    places(stage, note)
    again(stage, note)
    best_of(stage, note, pool_of(bench))


WORTH = {
    f"{kind} minus {control}, step {step}": (f"{kind}, step {step}", f"{control}, step {step}")
    for step in (12, 14, 16)
    for kind, control in (
        ("learnt map, 12%", "random foreground, 12%"),
        ("learnt map, 12%", "another run's learnt map, 12%"),
        ("learnt map, 12%", "hindsight, 12%"),
        ("the whole foreground", "everywhere"),
        ("the whole foreground", "another run's foreground"),
    )
}


def paired(found: dict[str, Any], one: str, other: str) -> dict[str, Any] | None:
    """Difference of two ideas' changes, paired by run; None where one was not tried."""
    if one not in found or other not in found:
        return None
    difference = np.array(found[one]["changes"]) - np.array(found[other]["changes"])
    return dict(mean_estimate(difference).to_dict())


def places(stage: Stage, note: Any) -> None:
    """Where and when: masks of several areas at several steps, beside the controls."""
    masks = top_share(stage.maps)
    every = np.ones(len(masks), np.bool_)
    wrong = {
        label: control_masks(control, masks, every, stage.images, runs=stage.runs)
        for control, label in (("foreground", "random foreground"), ("shuffled", "another run's"))
    }
    hindsight = top_share(upsample(stage.before, masks.shape[1:]))
    for step in (12, 14, 16):
        cells = {"learnt map, 12%": masks, "random foreground, 12%": wrong["random foreground"]}
        if step != 14:
            cells["hindsight, 12%"] = hindsight
        if step == 12:
            cells["another run's learnt map, 12%"] = wrong["another run's"]
            cells["learnt map, 25%"] = top_share(stage.maps, 0.25)
            cells["learnt map, 50%"] = top_share(stage.maps, 0.5)
            inside = stage.foreground(12)
            cells["learnt map inside the foreground, 12%"] = top_share(stage.maps, inside=inside)
            cells["the whole foreground"] = inside
        for label, mask in cells.items():
            ends, _ = stage.sample(f"{label}-{step}", {step: mask})
            note(f"{label}, step {step}", ends, STEPS - step)
    for step in (8, 12, 16):
        ends, _ = stage.sample(f"everywhere-{step}", {step: stage.everywhere()})
        note(f"everywhere, step {step}", ends, STEPS - step)
    for step in (8, 10, 14, 16):
        ends, _ = stage.sample(f"foreground-known-{step}", {step: stage.foreground(step)})
        note(f"the whole foreground, step {step}", ends, STEPS - step)
    grown = ndimage.binary_dilation(stage.foreground(12), np.ones((1, 3, 3)))
    ends, _ = stage.sample("foreground-grown-12", {12: grown})
    note("the whole foreground, grown by a pixel, step 12", ends, STEPS - 12)
    other = np.roll(stage.foreground(12), 1, axis=0)
    ends, _ = stage.sample("foreground-other-12", {12: other})
    note("another run's foreground, step 12", ends, STEPS - 12)


def again(stage: Stage, note: Any) -> None:
    """The same mask renewed at two steps."""
    kinds = {
        "learnt map, 12%": top_share(stage.maps),
        "all": stage.everywhere(),
        "the whole foreground": stage.foreground(12),
    }
    for label, mask in kinds.items():
        ends, _ = stage.sample(f"{label}-again", dict.fromkeys((12, 16), mask))
        note(f"{label}, at steps 12 and 16", ends, STEPS - 12)


def draws(stage: Stage, step: int, count: int, watch: Sequence[int]) -> Any:
    """Several renewals of the foreground: ends (k, n, ...), the teachers' view on the way."""
    teacher = committee()
    ends, seen = [], {at: [] for at in watch}
    for seed in range(count):
        one, x0 = stage.sample(f"drawn-{step}", {step: stage.foreground(step)}, seed, watch)
        ends.append(one)
        for at in watch:
            seen[at].append(mean_distance(local_realism(x0[at], teacher)))
    views = {at: np.stack(values) for at, values in seen.items()}
    views[STEPS] = np.stack([mean_distance(local_realism(one, teacher)) for one in ends])
    return np.stack(ends), views


WATCHED = (16, 20)


def pick(ends: NDArray[Any], view: NDArray[Any]) -> NDArray[np.float32]:
    """The draw of each run that looks best."""
    best = view.argmin(0)
    return np.asarray(ends[best, np.arange(len(best))])


def best_of(stage: Stage, note: Any, pool: Any) -> None:
    """The best of several renewals, as the two teachers foresee them; and new draws."""
    for step in (12,):
        ends, views = draws(stage, step, 4, WATCHED)
        for count in (2, 4):
            for at, view in views.items():
                paid = count * (at - step) + (STEPS - at)
                text = "the end" if at == STEPS else f"step {at}"
                note(
                    f"best of {count} renewals of the foreground at step {step}, chosen at {text}",
                    pick(ends[:count], view[:count]),
                    paid,
                )
    for tries in (1, 2, 4, 8):
        ends, paid = restarted(stage, pool, tries)
        note(f"restart, at most {tries} tries, judged at step 12", ends, paid)


@dataclass(frozen=True)
class Pool:
    """Recorded runs that serve as new draws: what restarting them would give, already sampled."""

    scores: NDArray[np.float64]
    samples: NDArray[np.float32]
    level: float


def pool_of(bench: Any) -> Pool:
    """New draws with their scores at step 12, and the level below which one is kept."""
    pool, tune = bench.sets["pool"], bench.sets["tune"]
    detectors = bench.detectors()
    ranked, _ = detectors.ranked(MAIN, WINDOW, pool.dataset, "pool")
    reference, _ = detectors.ranked(MAIN, WINDOW, tune.dataset, "tune")
    return Pool(
        ranked.scores,
        pool.samples,
        float(np.quantile(reference.scores, 1 - FLAGGED)),
    )


def restarted(
    stage: Stage, pool: Pool, tries: int, *, level: float | None = None, seed: int = 0
) -> tuple[NDArray[np.float32], float]:
    """Ends of flagged runs drawn anew until one is foretold good, and the mean cost of each.

    Of a run whose every try is flagged, the try of the lowest score is finished. The steps of the
    abandoned run and of every abandoned try are paid; what is finished pays to its end.
    """
    level = pool.level if level is None else level
    rng = np.random.default_rng([seed, 3])
    order = iter(rng.permutation(len(pool.scores)))
    ends, paid = [], 0
    for _ in stage.chosen:
        tried: list[int] = []
        while len(tried) < tries:
            tried.append(int(next(order)))
            if pool.scores[tried[-1]] <= level:
                break
        best = min(tried, key=lambda i: pool.scores[i])
        ends.append(pool.samples[best])
        paid += 12 * len(tried) + STEPS - 12
    return np.stack(ends), paid / len(stage.chosen)


def measure_uplift(bench: Any) -> None:
    """A map learnt from where renewal helped, not from where the end is bad."""
    report = stage_of(bench, "report")
    from uplift import learn_uplift

    maps = learn_uplift(bench, report)
    rows = {}
    for name, one in maps.items():
        for step in (12,):
            ends, _ = report.sample(f"{name}-{step}", {step: top_share(one)})
            rows[f"{name}, 12% of the area, step {step}"] = figures(report, ends, STEPS - step)
    masks = top_share(report.maps)
    every = np.ones(len(masks), np.bool_)
    ends, _ = report.sample("learnt map, 12%-12", {12: masks})
    rows["learnt from ends, 12% of the area, step 12"] = figures(report, ends, STEPS - 12)
    wrong = control_masks("foreground", masks, every, report.images, runs=report.runs)
    ends, _ = report.sample("random foreground, 12%-12", {12: wrong})
    rows["random foreground, 12% of the area, step 12"] = figures(report, ends, STEPS - 12)
    bench.keep("uplift", {"set": "report", "rows": rows})


def measure_policies(bench: Any) -> None:
    """Policies over the whole population: repair, harm, precision, recall, cost."""
    stage = stage_of(bench, "report")
    pool = pool_of(bench)
    ends, views = draws(stage, 12, 2, WATCHED)
    every12, _ = stage.sample("everywhere-12", {12: stage.everywhere()})
    mask12, _ = stage.sample("learnt map, 12%-12", {12: top_share(stage.maps)})
    twice, _ = stage.sample(
        "the whole foreground-again", dict.fromkeys((12, 16), stage.foreground(12))
    )
    new4, paid4 = restarted(stage, pool, 4, seed=1)
    new8, paid8 = restarted(stage, pool, 8, level=strict_level(bench), seed=2)
    policies = {
        "TTC, learnt map, 12% of the area, step 12": (mask12, 13.0),
        "re-noise everywhere at step 12": (every12, 13.0),
        "re-noise the foreground at step 12": (ends[0], 13.0),
        "re-noise the foreground at steps 12 and 16": (twice, 13.0),
        "best of 2 re-noised foregrounds, chosen at step 20": (pick(ends, views[20]), 2 * 8 + 5.0),
        "best of 2 re-noised foregrounds, chosen at the end": (pick(ends, views[STEPS]), 2 * 13.0),
        "restart, at most 4 tries": (new4, paid4),
        "restart, at most 8 tries, until in the better half": (new8, paid8),
    }
    rows = {name: figures(stage, one, paid) for name, (one, paid) in policies.items()}
    bench.keep("policies", {"set": "report", "rows": rows, "populations": {}})
    populations = {}
    for name, (one, paid) in policies.items():
        populations[name] = population(stage, one) | {
            "evaluations_per_run": STEPS + extra_cost(stage, paid)
        }
        bench.say(f"population: {name}")
        bench.keep("policies", {"set": "report", "rows": rows, "populations": populations})
    equal = equal_evaluations(stage, pool)
    bench.keep(
        "policies",
        {"set": "report", "rows": rows, "populations": populations, "equal_evaluations": equal},
    )


def extra_cost(stage: Stage, paid: float) -> float:
    """Evaluations a run of the population beyond plain sampling."""
    return len(stage.chosen) / len(stage.split.runs) * (paid - (STEPS - 12))


def strict_level(bench: Any) -> float:
    """The median score: new draws are kept when foretold to be in the better half."""
    tune = bench.sets["tune"]
    ranked, _ = bench.detectors().ranked(MAIN, WINDOW, tune.dataset, "tune")
    return float(np.median(ranked.scores))


def population(stage: Stage, ends: NDArray[np.float32]) -> dict[str, Any]:
    """Frechet distance, precision and recall of all runs, the flagged ones replaced."""
    model = judge_of()
    real = neighbour_radii(model.vectors, 3)
    before = stage.split.samples
    after = before.copy()
    after[stage.chosen] = ends
    qualities = [
        quality_of(features(one, model), mean_distance(local_realism(one, model)), model, real, 3)
        for one in (before, after)
    ]
    return compare(*qualities, model)


def equal_evaluations(stage: Stage, pool: Pool) -> dict[str, Any]:
    """Precision and recall of restarting against plain sampling for the same evaluations.

    Plain sampling spends the same on more images: as many more as the restarts cost. Its precision
    does not depend on their number, its recall does.
    """
    from asced_analysis.realism import precision_recall

    model = judge_of()
    ends, paid = restarted(stage, pool, 4, seed=1)
    spent = len(stage.split.runs) * STEPS + len(stage.chosen) * (paid - (STEPS - 12))
    more = round(spent / STEPS) - len(stage.split.runs)
    replaced = stage.split.samples.copy()
    replaced[stage.chosen] = ends
    rng = np.random.default_rng(9)
    extra = pool.samples[rng.choice(len(pool.samples), more, replace=False)]
    plain = np.concatenate([stage.split.samples, extra])
    found = {"evaluations": float(spent)}
    for name, images in (("restart", replaced), ("plain, equal evaluations", plain)):
        precision, recall = precision_recall(features(images, model), model.vectors)
        found[name] = {"images": len(images), "precision": precision, "recall": recall}
    return found

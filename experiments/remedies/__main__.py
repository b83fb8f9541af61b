"""Fewer broken images for the same evaluations: every remedy, at 25, 50 and 100 a delivered image.

    python -m experiments.remedies.drawing shapes   # ways to sample; may run beside
    python -m experiments.remedies.correcting shapes  # corrections, after the plain runs are there
    python -m experiments.remedies shapes           # pruning, best of N, and the tables
    python -m experiments.remedies grid

Plain runs of 25 steps are recorded once. On their first half predictors learn from self-consistency
alone, and the step to look at and the number of draws are chosen by the same teacher; one predictor
learns from the truth of that half instead, and chooses by it. Figures come from the second half.
Ways to sample have seeds of their own, and what was not drawn yet is left out. Results and tables
go to ``docs/results/remedies``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from asced_analysis.evaluation.intervals import Estimate, share_estimate
from asced_analysis.realism import features
from asced_analysis.realism.content import auroc, content_of, shown
from asced_analysis.realism.self_consistency import DRAWS
from experiments.remedies import grid
from experiments.remedies.choosing import (
    LOOKS,
    PARTITIONS,
    Plan,
    brightness,
    chosen_plan,
    finished,
    forest,
    generic,
    less_content,
    partitions,
)
from experiments.remedies.correcting import CORRECTIONS, broken_after, corrected
from experiments.remedies.drawing import WAYS, drawn
from experiments.remedies.learnt import outcome_scores
from experiments.remedies.measuring import Images, Real, content_kept
from experiments.remedies.pool import STEPS, Floats, Pool, RecordedPool, recorded_pool
from experiments.remedies.subjects import SUBJECTS, Subject, seen_by_eye
from experiments.remedies.tables import looks_table, remedies_table
from experiments.tables.comparisons import note_adjusted
from experiments.tables.files import RESULTS, write_tables

BUDGETS = (50, 25, 100)
COMPARED = 50  # where `outcome` learns beside the forest
DRAWN = 4096  # at most, of each way to sample
SIZE = 128  # images of a set, by default, whose Frechet distance, precision, recall are compared
MEASURED = 16  # partitions of which these are averaged
TOLD = "forest taught by the truth, step and draws chosen by it, less content's share"
LABELLED = "`outcome` taught by the truth, the same step and draws"
Draws = Callable[[str, int], Images | None]


class Bench:
    """One model: its plain runs, its real images, and what was drawn otherwise."""

    def __init__(
        self,
        pool: Pool,
        plain: Images,
        real: Real,
        draws: Draws,
        pipe: Any = None,
        corrected: Mapping[str, tuple[Images, float]] | None = None,
        size: int = SIZE,
    ) -> None:
        self.pool, self.plain, self.real, self.draws, self.pipe = pool, plain, real, draws, pipe
        self.corrected, self.size = corrected or {}, size
        self.report = np.flatnonzero(~pool.first)
        self.views = {look: predicted(pool, look, pool.taught, "self") for look in LOOKS}

    @cached_property
    def told_by_truth(self) -> dict[int, Floats]:
        """What the forest taught by the truth says at each step, less content's share."""
        pool = self.pool
        return {
            look: less_content(predicted(pool, look, pool.severity, "truth"), pool, look)
            for look in LOOKS
        }

    def chosen(
        self, scores: Floats, content: Floats | None, plan: Plan, evaluations: float
    ) -> dict[str, Any]:
        """A row of runs finished among recorded ones."""
        plain, broken = self.plain, self.pool.broken
        classes = None if content is None else self.pool.classes
        each = partitions(content, self.report, plan, count=PARTITIONS, classes=classes)
        sets = [finished(scores, groups, plan) for groups in each]
        shares = [float(broken[one].mean()) for one in sets]
        size, rng = min(len(sets[0]), self.size), np.random.default_rng(1)
        measured = [
            self.real.figures(plain.only(rng.choice(one, size, replace=False)))
            for one in sets[:MEASURED]
        ]
        beside = [
            self.real.figures(plain.only(rng.choice(self.report, size, replace=False)))["recall"]
            for _ in measured
        ]
        change = np.array([one["recall"] for one in measured]) - beside
        reach = float(norm.ppf(0.975) * change.std(ddof=1))
        moved = float(change.mean())
        kept = [content_kept(plain.only(self.report), plain.only(one)) for one in sets[:MEASURED]]
        value = float(np.mean(shares))
        row: dict[str, Any] = {
            name: float(np.mean([one[name] for one in measured])) for name in measured[0]
        }
        return row | {
            "evaluations": evaluations,
            "broken": self._interval(scores, content, plan, value).to_dict(),
            "recall_change": Estimate(moved, moved - reach, moved + reach).to_dict(),
            "content": float(np.median(kept)),
            "size": size,
        }

    def _interval(
        self, scores: Floats, content: Floats | None, plan: Plan, value: float
    ) -> Estimate:
        """Of the mean over partitions, by runs drawn with replacement; one partition of each."""
        rng = np.random.default_rng(3)
        broken, found = self.pool.broken, []
        classes = None if content is None else self.pool.classes
        for seed in range(400):
            runs = rng.choice(self.report, len(self.report))
            groups = next(partitions(content, runs, plan, count=1, seed=seed, classes=classes))
            found.append(broken[finished(scores, groups, plan)].mean())
        low, middle, high = np.quantile(found, [0.025, 0.5, 0.975])
        return Estimate(value, max(0.0, float(low + value - middle)), float(high + value - middle))

    def sampled(self, images: Images, steps: float) -> dict[str, Any]:
        """A row of images that were drawn on their own."""
        size = min(self.size, len(images))
        return self.real.at_size(images, size, MEASURED) | {
            "evaluations": float(steps),
            "broken": share_estimate(images.broken).to_dict(),
            "content": content_kept(self.plain.only(self.report), images),
            "size": size,
            "images": len(images),
        }


def rows_of(bench: Bench, budget: int) -> dict[str, dict[str, Any]]:
    """All remedies at one budget; plain sampling at equal evaluations first."""
    rows: dict[str, dict[str, Any]] = {}
    own = bench.plain.only(bench.report)
    equal = own if budget == STEPS else bench.draws("plain", budget)
    if equal is not None:
        rows[f"plain, {budget} steps"] = bench.sampled(equal, budget)
    if budget > STEPS:
        rows[f"plain, {STEPS} steps"] = bench.sampled(own, STEPS)
    for way, one in WAYS.items():
        images = None if way == "plain" else bench.draws(way, budget)
        if images is not None:
            rows[f"{one.title}, {budget} steps"] = bench.sampled(images, budget)
    for title, (images, paid) in bench.corrected.items():
        if min(one for one in BUDGETS if one >= paid - STEPS / 10) == budget:
            rows[f"{title}, {STEPS} steps"] = bench.sampled(images, paid)
    if budget > STEPS:
        rows |= _chosen_rows(bench, budget)
    if equal is not None:
        compare(rows)
    return rows


def _chosen_rows(bench: Bench, budget: int) -> dict[str, dict[str, Any]]:
    """Best of N, and pruning by each predictor."""
    pool, views = bench.pool, bench.views
    best = budget // (STEPS + DRAWS)
    rows = {}
    if best > 1:
        rows[f"best of {best} at the end, by self-consistency"] = bench.chosen(
            pool.taught,
            brightness(pool, STEPS - 1),
            Plan(STEPS - 1, best),
            best * float(STEPS + DRAWS),
        )
    plan = chosen_plan(pool, views, budget)
    content = brightness(pool, plan.look)
    for name, scores, within in (
        ("forest", views[plan.look], content),
        ("forest, draws of any content", views[plan.look], None),
        (
            "`outcome`",
            outcome_scores(pool, plan.look, bench.pipe) if budget == COMPARED else None,
            content,
        ),
        (
            "forest taught by the truth",
            predicted(pool, plan.look, pool.severity, "truth"),
            content,
        ),
        ("a perfect choice", pool.broken.astype(float), content),
        ("chance", np.random.default_rng(5).random(len(content)), content),
    ):
        if scores is not None:
            rows[f"pruning, {plan.title}, {name}"] = bench.chosen(
                scores, within, plan, float(plan.evaluations)
            )
    told = bench.told_by_truth
    own = chosen_plan(pool, told, budget, pool.broken)
    for name, scores in (
        (TOLD, told[own.look]),
        (LABELLED, outcome_scores(pool, own.look, told=True) if budget == COMPARED else None),
    ):
        if scores is not None:
            rows[f"pruning, {own.title}, {name}"] = bench.chosen(
                scores, brightness(pool, own.look), own, float(own.evaluations)
            )
    return rows


def compare(rows: dict[str, dict[str, Any]]) -> None:
    """Ratio and p of each row against the first, adjusted for all of them."""
    names = list(rows)
    base = rows[names[0]]["broken"]
    tests = []
    for name in names[1:]:
        one = rows[name]["broken"]
        error = np.hypot(*((b["high"] - b["low"]) / 2 / norm.ppf(0.975) for b in (one, base)))
        p = float(2 * norm.sf(abs(one["value"] - base["value"]) / max(error, 1e-9)))
        rows[name]["ratio"] = one["value"] / base["value"] if base["value"] else None
        tests.append((rows[name], "p", p))
    note_adjusted(tests)


def looks_of(bench: Bench) -> dict[str, dict[str, float | None]]:
    """AUROC on the truth, second half, by the step that is looked at."""
    pool, report = bench.pool, bench.report
    found = {}
    for look, scores in bench.views.items():
        truth = predicted(pool, look, pool.severity, "truth")
        found[str(look)] = {
            "forest, taught by self-consistency": auroc(scores[report], pool.broken[report]),
            "the same, taught by the truth": auroc(truth[report], pool.broken[report]),
            "brightness alone": auroc(brightness(pool, look)[report], pool.broken[report]),
        }
        if pool.classes is not None:
            own = pool.classes[report]
            within = auroc_within(scores[report], pool.broken[report], own)
            found[str(look)]["the first, within a class"] = within
    return found


def auroc_within(
    scores: Floats, broken: NDArray[np.bool_], classes: NDArray[np.int64]
) -> float | None:
    """AUROC over the pairs of one class each."""
    right = pairs = 0.0
    for one in np.unique(classes):
        bad, good = scores[(classes == one) & broken], scores[(classes == one) & ~broken]
        right += float((bad[:, None] > good).sum() + (bad[:, None] == good).sum() / 2)
        pairs += len(bad) * len(good)
    return right / pairs if pairs else None


def predicted(pool: Pool, look: int, taught: Floats, teacher: str) -> Floats:
    """What the forest says of all runs at a step; kept beside the store, where there is one."""
    path = pool.folder / f"forest-{teacher}-{look}.npy" if pool.folder is not None else None
    if path is not None and path.exists():
        return np.asarray(np.load(path), np.float64)
    found = forest(generic(pool.x0(look)), taught, pool.first)
    if path is not None:
        np.save(path, found)
    return found


def bench_of(name: str, runs: int, size: int = SIZE) -> tuple[Bench, dict[str, Any]]:
    """A model by its name, and what is said of it."""
    if name == "grid":
        points, seen, real, ways = grid.parts()
        return Bench(points, seen, real, ways, size=size), {"truth": "exact", "runs": len(seen)}
    subject = SUBJECTS[name]()
    pool = recorded_pool(subject, runs)
    plain = _seen(subject, pool.ends, pool.broken)

    def draws(way: str, steps: int) -> Images | None:
        ends = drawn(subject, way, steps, DRAWN)
        if ends is None or len(ends) < SIZE:
            return None
        if subject.eyes is not None:
            known, broken = seen_by_eye(subject.eyes, f"{way}-{steps}", len(ends))
            return _seen(subject, ends[known], broken[known]) if known.any() else None
        return _seen(subject, ends, _broken(subject, pool, ends))

    facts = {"truth": subject.truth, "judge": subject.model.name, "runs": len(plain)}
    edited = corrected_runs(subject, pool)
    real = Real(subject.model.vectors)
    return Bench(pool, plain, real, draws, subject.pipe, edited, size), facts


def corrected_runs(subject: Subject, pool: RecordedPool) -> dict[str, tuple[Images, float]]:
    """The second half with each correction that was made so far, and evaluations a run."""
    found = {}
    for strategy, title in CORRECTIONS.items():
        one = corrected(subject, strategy)
        if one is None:
            continue
        known, broken = np.ones(len(one.ends), np.bool_), None
        if subject.eyes is not None:
            before = seen_by_eye(subject.eyes, "pool", len(pool.known))
            after = broken_after(subject, strategy, one, before)
            if after is None:
                continue
            known, broken = after
        else:
            broken = _broken(subject, pool, one.ends)
        found[title] = _seen(subject, one.ends[known], broken[known]), one.evaluations
    return found


def _seen(subject: Subject, ends: NDArray[np.float32], broken: NDArray[np.bool_]) -> Images:
    return Images(features(ends, subject.model), shown(content_of(ends)), broken)


def _broken(subject: Subject, pool: Pool, ends: NDArray[np.float32]) -> NDArray[np.bool_]:
    if subject.counted is not None:
        return subject.counted(ends)
    assert pool.limit is not None
    return subject.distances(ends) > pool.limit


def main() -> None:
    """Measure one model, and write its results and tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=(*SUBJECTS, "grid"))
    parser.add_argument("--runs", type=int, default=1024, help="plain runs to record")
    parser.add_argument("--size", type=int, default=SIZE, help="images that sets are compared by")
    parser.add_argument("--out", type=Path, default=RESULTS / "remedies")
    arguments = parser.parse_args()
    name, out = arguments.subject, arguments.out
    bench, facts = bench_of(name, arguments.runs, arguments.size)
    found: dict[str, Any] = {
        **facts,
        "broken": share_estimate(bench.pool.broken[bench.report]).to_dict(),
        "teacher_auroc": auroc(bench.pool.taught, bench.pool.broken),
        "budgets": {},
    }
    out.mkdir(parents=True, exist_ok=True)
    for budget in BUDGETS:
        found["budgets"][str(budget)] = rows_of(bench, budget)
        (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(remedies_table(found, str(budget)), flush=True)
    found["looks"] = looks_of(bench)
    (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    tables = {f"{name}-{budget}": remedies_table(found, str(budget)) for budget in BUDGETS}
    write_tables(out, tables | {f"{name}-looks": looks_table(found)})


if __name__ == "__main__":
    main()

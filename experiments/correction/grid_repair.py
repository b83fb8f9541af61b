"""Repair on the 25-Gaussian grid: truth is exact, nobody judges.

    python -m experiments.correction.grid_repair

Points predicted to break are corrected: by what is learnt from the ends of other points, by the
best fixed statistic (chosen, with its direction, on a third set of points), by chance, by
hindsight, or everybody is. As many are flagged as break, so that all ways to flag cost alike,
everybody excepted; where a correction costs evaluations, plain sampling in as many more steps
stands beside it. Points of all seeds are resampled together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from experiments.datasets.gaussian_grid import (
    MEANS,
    STEPS,
    Floats,
    away_from_modes,
    known,
    sample,
    sample_on,
    schedule,
    statistics,
)
from experiments.tables.comparisons import note_adjusted

DIALS = {
    "mixture, 0": (0.0, False),
    "score, 0.02": (0.02, True),
    "score, 0.05": (0.05, True),
    "score, 0.1": (0.10, True),
}
SEEDS = (0, 1, 2)
LATE, BACK = 48, 44  # known up to; where corrections that go back begin
TRIES = 4
RESAMPLES = 1000
Bools = NDArray[np.bool_]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Points:
    """Sampled points: ends (n, 2), eps and predicted x0 (n, step, 2) from step `first` on."""

    ends: Floats
    eps: Floats
    x0: Floats
    first: int = 0

    @property
    def broken(self) -> Bools:
        """Between the modes."""
        return away_from_modes(self.ends)

    def snapshot(self, last: int) -> Floats:
        """What is seen of each point right before a step."""
        at = last - 1 - self.first
        return np.concatenate([self.x0[:, at], self.eps[:, at]], axis=1)


class Grid:
    """One dial, one seed: points to learn from, to set levels on, to report, and new draws."""

    def __init__(self, smoothing: float, neighbours: bool, points: int, seed: int) -> None:
        self.smoothing, self.seed = smoothing, seed
        self.neighbours = neighbours and smoothing > 0
        self.fit, self.level, self.report, self.pool = (
            Points(*sample(points, smoothing, 1000 * seed + 10 * part, neighbours=neighbours))
            for part in range(4)
        )
        self._models: dict[Any, Any] = {}

    def random(self, *name: int) -> np.random.Generator:
        """A generator of its own for each use."""
        return np.random.default_rng([self.seed, *name])

    def go_on(self, x: Floats, first: int, draw: int, until: int | None = None) -> Points:
        """Sample points entering a step on."""
        rng = self.random(7, first, draw) if self.neighbours else None
        return Points(*sample_on(x, first, self.smoothing, rng=rng, until=until), first)

    def renoised(self, rows: NDArray[np.intp], step: int, draw: int) -> Floats:
        """Points entering a step, noised afresh from the x0 predicted right before."""
        alpha, sigma = schedule()
        noise = self.random(8, step, draw).standard_normal(self.report.ends.shape)
        return np.asarray(alpha[step] * self.report.x0[rows, step - 1] + sigma[step] * noise[rows])

    def predicted(self, kind: str, last: int) -> tuple[Floats, str]:
        """Scores of `report` by what is known up to a step, and what gave them."""
        if kind != "fixed":
            return self.chance(kind, last, self.report), kind
        here, there = (
            statistics(one.eps[:, :last], one.x0[:, :last]) for one in (self.report, self.level)
        )
        areas = {name: roc_auc_score(self.level.broken, one) - 0.5 for name, one in there.items()}
        best = max(areas, key=lambda name: abs(areas[name]))
        inverted = areas[best] < 0
        return (-here[best] if inverted else here[best]), f"{best}{', low' * inverted}"

    def chance(self, kind: str, last: int, points: Points) -> Floats:
        """Learnt chance to be broken: by `dynamics` and snapshot, or by `snapshot` alone."""

        def values(of: Points) -> Floats:
            return known(of.eps, of.x0, last) if kind == "dynamics" else of.snapshot(last)

        if (kind, last) not in self._models:
            model = HistGradientBoostingClassifier(max_iter=80, random_state=0)
            self._models[kind, last] = model.fit(values(self.fit), self.fit.broken)
        return np.asarray(self._models[kind, last].predict_proba(values(points))[:, 1])

    def strict(self, last: int) -> float:
        """Chance, by the snapshot, below which as many are kept as do not break."""
        scores = self.chance("snapshot", last, self.level)
        return float(np.quantile(scores, 1 - self.level.broken.mean()))


Corrected = tuple[Floats, Floats]
"""Ends of the flagged points, and evaluations beyond plain sampling of each."""


def renoise(step: int) -> Callable[[Grid, NDArray[np.intp]], Corrected]:
    """Noise afresh where a point stands: no evaluation more."""

    def run(grid: Grid, rows: NDArray[np.intp]) -> Corrected:
        return grid.go_on(grid.renoised(rows, step, 0), step, 0).ends, np.zeros(len(rows))

    return run


def go_back(grid: Grid, rows: NDArray[np.intp]) -> Corrected:
    """Go back from the later step to the earlier one, once."""
    ends = grid.go_on(grid.renoised(rows, BACK, 1), BACK, 1).ends
    return ends, np.full(len(rows), float(LATE - BACK))


def best_of_two(grid: Grid, rows: NDArray[np.intp]) -> Corrected:
    """Two renewals at the earlier step; the one predicted better at the later step is finished."""
    tried = [grid.go_on(grid.renoised(rows, BACK, k), BACK, k, LATE) for k in (2, 3)]
    views = [grid.chance("snapshot", LATE, one) for one in tried]
    chosen = np.where((views[1] < views[0])[:, None], tried[1].ends, tried[0].ends)
    return grid.go_on(chosen, LATE, 4).ends, np.full(len(rows), float(LATE - BACK))


def again(grid: Grid, rows: NDArray[np.intp]) -> Corrected:
    """From the later step back to the earlier one until predicted whole, at most `TRIES` times."""
    best = np.full(len(rows), np.inf)
    entering = np.empty((len(rows), 2))
    paid, strict = np.zeros(len(rows)), grid.strict(LATE)
    for draw in range(TRIES):
        open_ = np.flatnonzero(best > strict)
        if not len(open_):
            break
        new = grid.go_on(grid.renoised(rows[open_], BACK, 5 + draw), BACK, 5 + draw, LATE)
        view = grid.chance("snapshot", LATE, new)
        better = view < best[open_]
        entering[open_[better]], best[open_[better]] = new.ends[better], view[better]
        paid[open_] += LATE - BACK
    return grid.go_on(entering, LATE, 9).ends, paid


def restart(grid: Grid, rows: NDArray[np.intp]) -> Corrected:
    """Draw anew, judged at the earlier step, until predicted whole, at most `TRIES` times."""
    views, strict = grid.chance("snapshot", BACK, grid.pool), grid.strict(BACK)
    order = grid.random(10).permutation(len(views))
    ends, paid, at = np.empty((len(rows), 2)), np.empty(len(rows)), 0
    for i in range(len(rows)):
        tried = []
        while len(tried) < TRIES:
            tried.append(order[at % len(order)])
            at += 1
            if views[tried[-1]] <= strict:
                break
        ends[i] = grid.pool.ends[min(tried, key=lambda j: views[j])]
        paid[i] = BACK * len(tried)
    return ends, paid


CORRECTIONS: dict[str, tuple[int, Callable[[Grid, NDArray[np.intp]], Corrected]]] = {
    "re-noise at step 40": (40, renoise(40)),
    "re-noise at step 44": (44, renoise(44)),
    "re-noise at step 48": (48, renoise(48)),
    "from step 48 back to 44": (LATE, go_back),
    "best of two from step 44, chosen at 48": (LATE, best_of_two),
    "from step 48 back to 44, until predicted whole": (LATE, again),
    "restart, judged at step 44": (BACK, restart),
}
"""Name, step up to which points are known when they are flagged, how they are corrected."""
WHOM = ("learnt", "fixed", "hindsight", "chance", "everybody")


@dataclass
class Cell:
    """What one correction made of the points of one seed."""

    before: Bools
    after: Bools
    flagged: Bools
    modes_before: NDArray[np.intp]
    modes_after: NDArray[np.intp]
    extra: Floats
    by: str


def correct(grid: Grid, name: str, whom: str) -> Cell:
    """Flag and correct."""
    last, run = CORRECTIONS[name]
    before = grid.report.broken
    by, scores = whom, grid.random(11).random(len(before))
    if whom in ("learnt", "fixed"):
        scores, by = grid.predicted("dynamics" if whom == "learnt" else whom, last)
    elif whom == "hindsight":
        scores += before
    count = round(float(grid.level.broken.mean()) * len(before))
    rows = np.argsort(-scores, kind="stable")[: len(before) if whom == "everybody" else count]
    flagged = np.isin(np.arange(len(before)), rows)
    rows = np.flatnonzero(flagged)
    ends, extra = grid.report.ends.copy(), np.zeros(len(before))
    ends[rows], extra[rows] = run(grid, rows)
    modes = [_mode(one) for one in (grid.report.ends, ends)]
    return Cell(before, away_from_modes(ends), flagged, *modes, extra, by)


def _mode(ends: Floats) -> NDArray[np.intp]:
    """Nearest mode of each point, -1 where it is broken."""
    near = np.linalg.norm(ends[:, None] - MEANS, axis=-1).argmin(1)
    return np.where(away_from_modes(ends), -1, near)


def figures(cells: list[Cell], chance: list[Cell], everybody: list[Cell]) -> dict[str, Any]:
    """Repair, harm, coverage of the modes and cost, over the points of all seeds."""

    def pooled(of: list[Cell], name: str) -> NDArray[Any]:
        return np.concatenate([getattr(one, name) for one in of])

    was, now, flagged = (pooled(cells, name) for name in ("before", "after", "flagged"))
    first, second = (pooled(cells, f"modes_{when}") for when in ("before", "after"))
    against = {
        "change": now.astype(int) - was,
        "against_chance": now.astype(int) - pooled(chance, "after"),
        "against_everybody": now.astype(int) - pooled(everybody, "after"),
    }
    return {
        "flagged_by": sorted({one.by for one in cells}),
        "flagged": float(flagged.mean()),
        "flagged_broken": mean(was[flagged]),
        "repaired": mean(~now[flagged & was]),
        "repaired_of_all_broken": mean(~now[was]),
        "harmed": mean(now[~was]),
        "broken": mean(now),
        "broken_by_seed": [float(one.after.mean()) for one in cells],
        **{name: mean(values) for name, values in against.items()},
        "p_against_chance": _p(against["against_chance"]),
        "modes": len(np.unique(second[second >= 0])),
        "recall": recall(second)["value"],
        "recall_change": recall(second, first),
        "evaluations": STEPS + float(pooled(cells, "extra").mean()),
    }


def mean(values: NDArray[Any]) -> dict[str, float | None]:
    """Mean over points with its bootstrap interval: points of one value are drawn together."""
    if not len(values):
        return {"value": None, "low": None, "high": None}
    kinds, counts = np.unique(values, return_counts=True)
    drawn = _resampled(counts) @ kinds.astype(float) / len(values)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high)}


def _resampled(counts: NDArray[np.intp]) -> NDArray[np.int64]:
    """How many points of each kind each resample holds."""
    total = counts.sum()
    return np.random.default_rng(0).multinomial(total, counts / total, RESAMPLES)


def _p(values: NDArray[np.int64]) -> float:
    """Of a paired t test against no difference."""
    return float(stats.ttest_1samp(values, 0).pvalue) if values.any() else 1.0


def recall(
    after: NDArray[np.intp], before: NDArray[np.intp] | None = None
) -> dict[str, float | None]:
    """Share of the mixture that whole points cover: the sum over modes of min(their share, 1/25).

    It is 1 where every mode holds its 25th of the whole points. With `before`, the paired
    difference; intervals are shifted by the distance of the resamples' median from the value.
    """
    both = np.stack([after, after if before is None else before])
    pairs, counts = np.unique(both, axis=1, return_counts=True)

    def covered(modes: NDArray[np.intp], weights: NDArray[np.int64]) -> Floats:
        held = weights @ (modes[:, None] == np.arange(len(MEANS)))
        shares = held / np.maximum(held.sum(1, keepdims=True), 1)
        return np.asarray(np.minimum(shares, 1 / len(MEANS)).sum(1))

    def figure(weights: NDArray[np.int64]) -> Floats:
        found = covered(pairs[0], weights)
        return found if before is None else found - covered(pairs[1], weights)

    value = float(figure(counts[None])[0])
    low, middle, high = np.quantile(figure(_resampled(counts)), [0.025, 0.5, 0.975])
    return {"value": value, "low": low + value - middle, "high": high + value - middle}


def measure(points: int, cache: Path, say: Say = print) -> dict[str, Any]:
    """Every correction with every way to flag, at every dial; dials are kept in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    dials: dict[str, Any] = {}
    for label in DIALS:
        path = cache / f"{label.replace(', ', '-')}-{points}-{len(SEEDS)}.json"
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_text(json.dumps(measure_dial(label, points, say), indent=1) + "\n")
            part.replace(path)
        dials[label] = json.loads(path.read_text())
    compared = [
        row[whom] for one in dials.values() for row in one["rows"].values() for whom in WHOM[:3]
    ]
    note_adjusted([(row, "p_against_chance", row["p_against_chance"]) for row in compared])
    return {"points": points, "seeds": len(SEEDS), "dials": dials}


def measure_dial(label: str, points: int, say: Say) -> dict[str, Any]:
    """Every correction with every way to flag, at one dial."""
    smoothing, neighbours = DIALS[label]
    grids = [Grid(smoothing, neighbours, points, seed) for seed in SEEDS]
    rows: dict[str, Any] = {}
    for name in CORRECTIONS:
        cells = {whom: [correct(grid, name, whom) for grid in grids] for whom in WHOM}
        rows[name] = {
            whom: figures(one, cells["chance"], cells["everybody"]) for whom, one in cells.items()
        }
        now = rows[name]["learnt"]["broken"]["value"]
        say(f"grid, {label}, {name}: {now:.3f} broken")
    before = mean(np.concatenate([grid.report.broken for grid in grids]))
    plain = plain_sampling(smoothing, neighbours, points, rows)
    return {"broken": before, "rows": rows, "plain": plain}


def plain_sampling(
    smoothing: float, neighbours: bool, points: int, rows: Mapping[str, Any]
) -> dict[str, Any]:
    """Points broken by plain sampling in as many evaluations as each correction took."""
    asked = sorted({round(row["learnt"]["evaluations"]) for row in rows.values()} - {STEPS})
    found = {}
    for steps in asked:
        broken = [
            away_from_modes(
                sample(points, smoothing, 1000 * seed + 20, neighbours=neighbours, steps=steps)[0]
            )
            for seed in SEEDS
        ]
        found[str(steps)] = mean(np.concatenate(broken))
    return found


def main() -> None:
    """Print what `measure` finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=3_000)
    parser.add_argument("--cache", type=Path, default=Path("build/truth/grid-repair"))
    arguments = parser.parse_args()
    found = measure(arguments.points, arguments.cache, lambda text: None)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Whom, where, when and how to correct: policies made of the ideas of `ideas.py`, on `report`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import control_masks
from asced_analysis.correction.renoise import Renoise
from asced_analysis.correction.ttc import TargetedCorrection
from asced_analysis.evaluation.intervals import bootstrap
from asced_analysis.evaluation.populations import OF_SETS, Quality, compare
from experiments.correction.ideas import differences
from experiments.correction.masks import top_share
from experiments.correction.placing import placed
from experiments.correction.redrawing import WATCHED, draws, pick, pool_of, restarted
from experiments.correction.stages import WINDOW, Stage, figures, stage_of
from experiments.datasets.sets import STEPS, judge_of
from experiments.detection.detectors import MAIN
from experiments.tables.comparisons import note_changes, note_intervals

CHANGES = ("frechet_distance", "precision", "recall", "local_realism")
RESAMPLES = 200  # the Frechet distance of each costs an eigenvalue decomposition


def measure_uplift(bench: Any) -> None:
    """A map learnt from where renewal helped, not from where the end is bad."""
    report = stage_of(bench, "report")
    from experiments.correction.uplift import learn_uplift

    maps = learn_uplift(bench, report)
    rows = {}
    for name, one in maps.items():
        for step in (12,):
            ends, _ = report.sample(f"{name}-{step}", TargetedCorrection(), step, top_share(one))
            rows[f"{name}, 12% of the area, step {step}"] = figures(report, ends, STEPS - step)
    masks = top_share(report.maps)
    every = np.ones(len(masks), np.bool_)
    ends, _ = report.sample("learnt map, 12%-12", TargetedCorrection(), 12, masks)
    rows["learnt from ends, 12% of the area, step 12"] = figures(report, ends, STEPS - 12)
    wrong = control_masks("foreground", masks, every, report.images, runs=report.runs)
    ends, _ = report.sample("random foreground, 12%-12", TargetedCorrection(), 12, wrong)
    rows["random foreground, 12% of the area, step 12"] = figures(report, ends, STEPS - 12)
    note_changes(rows)
    one, other, third = rows
    against = {
        f"{name} minus {control}": (name, control)
        for name, control in ((one, other), (one, third), (other, third))
    }
    bench.keep(
        "uplift", {"set": "report", "rows": rows, "against_controls": differences(rows, against)}
    )


def measure_policies(bench: Any) -> None:
    """Policies over the whole population: repair, harm, precision, recall, cost."""
    stage = stage_of(bench, "report")
    pool = pool_of(bench)
    ends, views = draws(stage, 12, 2, WATCHED)
    every12, _ = stage.sample("everywhere-12", Renoise(), 12)
    mask12, _ = stage.sample("learnt map, 12%-12", TargetedCorrection(), 12, top_share(stage.maps))
    twice, _ = stage.sample(
        "the whole foreground-again", Renoise(renoise_steps=(16,), where="foreground"), 12
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
    note_changes(rows)
    bench.keep("policies", {"set": "report", "rows": rows, "populations": {}})
    populations = {}
    for name, (one, paid) in policies.items():
        populations[name] = population(stage, one) | {
            "evaluations_per_run": STEPS + extra_cost(stage, paid)
        }
        note_intervals(
            [populations[policy][figure]["change"] for policy in populations for figure in CHANGES]
        )
        bench.say(f"population: {name}")
        bench.keep("policies", {"set": "report", "rows": rows, "populations": populations})


def extra_cost(stage: Stage, paid: float) -> float:
    """Evaluations a run of the population beyond plain sampling."""
    return len(stage.chosen) / len(stage.split.runs) * (paid - (STEPS - 12))


def strict_level(bench: Any) -> float:
    """The median score: new draws are kept when predicted to be in the better half."""
    tune = bench.sets["tune"]
    ranked, _ = bench.detectors().ranked(MAIN, WINDOW, tune.dataset, "tune")
    return float(np.median(ranked.scores))


def population(stage: Stage, ends: NDArray[np.float32]) -> dict[str, Any]:
    """Frechet distance, precision and recall of all runs, the flagged ones replaced."""
    before = stage.split.samples
    after = before.copy()
    after[stage.chosen] = ends
    changes = compare(placed(before), placed(after), judge_of())
    return {name: asdict(one) for name, one in changes.items()}


def measure_equal(bench: Any) -> None:
    """Restart against plain sampling of more images for the same number of evaluations.

    Runs are resampled once for both: those of the population, paired, and the additional images.
    """
    stage, pool = stage_of(bench, "report"), pool_of(bench)
    runs = len(stage.split.runs)
    found = {}
    for name, tries, level, seed in (
        ("restart, at most 4 tries", 4, None, 1),
        ("restart, at most 8 tries, until in the better half", 8, strict_level(bench), 2),
    ):
        ends, paid = restarted(stage, pool, tries, level=level, seed=seed)
        more = round(runs * extra_cost(stage, paid) / STEPS)
        extra = np.random.default_rng(9).choice(len(pool.samples), more, replace=False)
        replaced = stage.split.samples.copy()
        replaced[stage.chosen] = ends
        plain = np.concatenate([stage.split.samples, pool.samples[extra]])
        found[name] = beside_plain(placed(replaced), placed(plain)) | {
            "evaluations_per_run": STEPS + extra_cost(stage, paid)
        }
        note_intervals([one for row in found.values() for one in row["difference"].values()])
        bench.say(f"equal evaluations: {name}")
    bench.keep("equal", {"set": "report", "rows": found, "judge": judge_of().name})


FIGURES = {
    "precision": lambda of, counts: float((counts @ of.realistic) / counts.sum()),
    "recall": lambda of, counts: OF_SETS["recall"](of, judge_of(), counts),
    "frechet_distance": lambda of, counts: OF_SETS["frechet_distance"](of, judge_of(), counts),
    "local_distance": lambda of, counts: float((counts @ of.realism) / counts.sum()),
}


def beside_plain(restart: Quality, plain: Quality) -> dict[str, Any]:
    """Figures of both and their difference; the first images of both are pairs."""
    runs, all_ = len(restart.vectors), len(plain.vectors)
    found: dict[str, Any] = {"images": [runs, all_], "restart": {}, "plain": {}, "difference": {}}
    for name, figure in FIGURES.items():
        of = {
            "restart": lambda counts, f=figure: f(restart, counts[:runs]),
            "plain": lambda counts, f=figure: f(plain, counts),
            "difference": lambda counts, f=figure: f(restart, counts[:runs]) - f(plain, counts),
        }
        for which, statistic in of.items():
            found[which][name] = bootstrap(statistic, all_, resamples=RESAMPLES).to_dict()
    return found

"""Another sampler and pruning together: draws of the ancestral sampler compete.

    python -m experiments.remedies shapes         # plain runs and ways to sample, first
    python -m experiments.remedies.both shapes

Runs of 25 steps of the ancestral sampler (DDPM) are recorded. As in `experiments.remedies`, a
predictor learns on their first half, from self-consistency or from the truth, and chooses the step
and the draws there; figures are of the second half, as means over random ways to put the same runs
into groups. Content *as drawn* and recall are against the ancestral runs themselves.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.realism import features
from asced_analysis.realism.content import content_of, shown
from experiments.remedies.__main__ import SIZE, TOLD, Bench, bench_of, compare
from experiments.remedies.choosing import brightness, chosen_plan, less_content
from experiments.remedies.drawing import WAYS
from experiments.remedies.measuring import Images
from experiments.remedies.pool import STEPS, Floats, recorded_pool
from experiments.remedies.subjects import SUBJECTS
from experiments.remedies.tables import remedies_table
from experiments.tables.files import RESULTS, write_tables

BUDGET = 50
WAY = "ancestral"
SAMPLER, NAME = WAYS[WAY].scheduler, WAYS[WAY].title
LEAN = "forest, less content's share"


def rows_of(plain: Bench, fresh: Bench) -> dict[str, dict[str, Any]]:
    """Plain sampling, the sampler alone, and what is finished of its draws."""
    pool, content = fresh.pool, {look: brightness(fresh.pool, look) for look in fresh.views}
    own = fresh.plain.only(fresh.report)
    rows: dict[str, dict[str, Any]] = {}
    for title, images, bench in (
        (f"plain, {BUDGET} steps", plain.draws("plain", BUDGET), plain),
        (f"{NAME}, {BUDGET} steps", plain.draws(WAY, BUDGET), fresh),
        (f"{NAME}, {STEPS} steps", own, fresh),
    ):
        if images is not None:
            steps = STEPS if images is own else BUDGET
            rows[title] = bench.sampled(images, steps)
    told = fresh.told_by_truth
    chance = np.random.default_rng(5).random(len(pool.ends))
    kinds: tuple[tuple[str, dict[int, Floats], Any], ...] = (
        ("forest", fresh.views, None),
        (LEAN, {look: less_content(one, pool, look) for look, one in fresh.views.items()}, None),
        (TOLD, told, pool.broken),
    )
    for title, views, worst in kinds:
        plan = chosen_plan(pool, views, BUDGET, worst)
        each = [(title, views[plan.look])]
        each += [("chance", chance)] if title == "forest" else []
        for what, scores in each:
            rows[f"{NAME}, pruning, {plan.title}, {what}"] = fresh.chosen(
                scores, content[plan.look], plan, float(plan.evaluations)
            )
    compare(rows)
    return rows


def main() -> None:
    """Measure one model, and write its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=tuple(SUBJECTS))
    parser.add_argument("--runs", type=int, default=1024, help="of each sampler")
    parser.add_argument("--size", type=int, default=SIZE, help="images that sets are compared by")
    parser.add_argument("--out", type=Path, default=RESULTS / "remedies")
    arguments = parser.parse_args()
    name, runs = arguments.subject, arguments.runs
    plain, facts = bench_of(name, runs, arguments.size)
    subject = replace(SUBJECTS[name](), sampler=SAMPLER)
    pool = recorded_pool(subject, runs, plain.pool.limit)
    seen = Images(features(pool.ends, subject.model), shown(content_of(pool.ends)), pool.broken)
    fresh = Bench(pool, seen, plain.real, plain.draws, subject.pipe, size=arguments.size)
    found = facts | {"budgets": {str(BUDGET): rows_of(plain, fresh)}}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{name}-both.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    table = remedies_table(found, str(BUDGET))
    write_tables(arguments.out, {f"{name}-both": table})
    print(table)


if __name__ == "__main__":
    main()

"""What else was tried for pruning at 37 and 50 evaluations: step, draws, teacher, and content.

    python -m experiments.remedies.ideas shapes

Every plan that a budget pays for, on the second half of the plain runs of
`experiments.remedies`: with the forest taught by self-consistency, by the same without content's
share taken off (`no slope`), and by the truth; what a perfect choice and chance leave; and the
first with draws that compete within equal area of predicted x0 (in a class, where there are
classes), and with any.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.calibration.labelling import choose_teacher
from asced_analysis.calibration.teachers import SelfConsistencyTeacher
from asced_analysis.compute.source import open_source
from asced_analysis.realism.content import auroc, content_of
from experiments.remedies.choosing import (
    Plan,
    brightness,
    finished,
    partitions,
    plans,
)
from experiments.remedies.measuring import content_kept
from experiments.remedies.pool import Floats, Pool, RecordedPool
from experiments.tables.cells import number, share, table
from experiments.tables.files import RESULTS, write_tables

BUDGETS = (37, 50)
PARTITIONS = 100


def rows_of(bench: Any) -> list[dict[str, Any]]:
    """One row a plan and idea."""
    from experiments.remedies.__main__ import predicted

    pool, rows = bench.pool, []
    plain = without_slope(pool, bench.pipe)
    each = [plan for budget in BUDGETS for plan in plans(budget) if plan.finish == 4]
    for plan in dict.fromkeys(each):
        own = bench.views[plan.look]
        light = brightness(pool, plan.look)
        ideas = [
            ("self-consistency", own, light),
            ("any content", own, None),
            ("the truth", predicted(pool, plan.look, pool.severity, "truth"), light),
            ("a perfect choice", pool.broken.astype(float), light),
            ("chance", np.random.default_rng(5).random(len(light)), light),
        ]
        if plain is not None:
            lean = predicted(pool, plan.look, plain, "no-slope")
            ideas.append(("no slope", lean, light))
            ideas.append(("equal area", own, content_of(pool.x0(plan.look))["area"]))
        rows += [_row(bench, plan, name, scores, content) for name, scores, content in ideas]
    return rows


def without_slope(pool: Pool, pipe: Any) -> Floats | None:
    """Self-consistency of the first half as it is, content's share left in."""
    if not isinstance(pool, RecordedPool):
        return None
    source = open_source(pool.dataset)
    teacher = choose_teacher(source, pool.first, store=pool.store, pipeline=pipe)
    assert isinstance(teacher, SelfConsistencyTeacher)
    teacher.slope = 0.0
    found = np.zeros(len(pool.ends))
    rows = np.flatnonzero(pool.first)
    found[rows] = teacher.outcomes(source, rows, pool.ends.shape[-2:])[1]
    return found


def _row(
    bench: Any, plan: Plan, name: str, scores: Floats, content: Floats | None
) -> dict[str, Any]:
    pool, report = bench.pool, bench.report
    classes = None if content is None else pool.classes
    each = partitions(content, report, plan, count=PARTITIONS, classes=classes)
    sets = [finished(scores, groups, plan) for groups in each]
    kept = [content_kept(bench.plain.only(report), bench.plain.only(one)) for one in sets[:10]]
    return {
        "plan": plan.title,
        "evaluations": plan.evaluations,
        "idea": name,
        "auroc": auroc(scores[report], pool.broken[report]),
        "broken": float(np.mean([pool.broken[one].mean() for one in sets])),
        "content": float(np.median(kept)),
    }


def ideas_table(rows: list[dict[str, Any]]) -> str:
    """Plans down, ideas across: share broken, and p that content is as drawn."""
    names = list(dict.fromkeys(row["idea"] for row in rows))
    found = []
    for plan in dict.fromkeys(row["plan"] for row in rows):
        own = {row["idea"]: row for row in rows if row["plan"] == plan}
        cells = [
            f"{share(own[name]['broken'])} (p {number(own[name]['content'], 2)})" for name in names
        ]
        found.append([plan, str(next(iter(own.values()))["evaluations"]), *cells])
    return table(("plan", "evaluations", *names), found)


def main() -> None:
    """Measure one model, and write its table."""
    from experiments.remedies.__main__ import bench_of

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject")
    parser.add_argument("--runs", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=RESULTS / "remedies")
    arguments = parser.parse_args()
    bench, _ = bench_of(arguments.subject, arguments.runs)
    rows = rows_of(bench)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.subject}-ideas.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")
    write_tables(arguments.out, {f"{arguments.subject}-ideas": ideas_table(rows)})
    print(ideas_table(rows))


if __name__ == "__main__":
    main()

"""What else could teach who is broken: levels, guidance, the worst places, changes on the way.

    python -m experiments.remedies.asking

Over the plain runs of `experiments.remedies` (fashion, shapes, emoji). *Self-consistency* is asked
at several levels, under the runs' own guidance and without, and read as the mean of all places or
of the worst tenth (after a mean over five by five). *Changes of predicted x0* is its variance over
the second half of the steps (arXiv 2406.09358). AUROC against the truth, over all runs and within
equal content: a class of `emoji`, else like area, brightness, contrast and colours.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

from asced_analysis.realism.content import auroc, content_of, matched_auroc
from asced_analysis.realism.self_consistency import (
    SMOOTH,
    content_energy,
    content_slope,
    level_step,
    mean_residual,
)
from asced_analysis.replay.recorded_network import recorded_network
from asced_stores import open_runs
from experiments.judges.writing import told
from experiments.remedies.__main__ import auroc_within
from experiments.remedies.pool import STEPS, Floats, RecordedPool, recorded_pool
from experiments.remedies.subjects import SUBJECTS, Subject
from experiments.tables.cells import number, table
from experiments.tables.files import RESULTS, write_tables

LEVELS = (-3.1, -2.2, -1.4, -0.4, 0.5)
WORST = 0.1  # of all places
AT_ONCE = 64


def readings(residual: Any, energy: Floats, first: Any) -> dict[str, Floats]:
    """Scores of runs, less the content's share, by how the map is read.

    Parameters
    ----------
    residual : array, shape (n, y, x)
        Of `mean_residual`.
    energy : array, shape (n,)
    first : bool array, shape (n,)
        Runs that the slope is found on.
    """
    smooth = uniform_filter(residual, (0, SMOOTH, SMOOTH)).reshape(len(residual), -1)
    worst = np.sort(smooth, axis=1)[:, -max(1, int(WORST * smooth.shape[1])) :]
    found = {"mean": residual.mean((1, 2)), "worst tenth": worst.mean(1)}
    return {
        name: np.log(value + 1e-12)
        - content_slope(value[first], energy[first]) * np.log(energy + 1e-8)
        for name, value in found.items()
    }


def rows_of(subject: Subject, pool: RecordedPool) -> Iterator[dict[str, Any]]:
    """One row a level, guidance and reading."""
    ds = open_runs(pool.store)
    runs = ds["run"].values[pool.known]
    log_snr, alpha, sigma = (ds[name].values for name in ("log_snr", "alpha", "sigma"))
    energy, content = content_energy(pool.ends), content_of(pool.ends)

    def row(**given: Any) -> dict[str, Any]:
        score = given.pop("score")
        within = (
            matched_auroc(score, pool.broken, content)
            if pool.classes is None
            else auroc_within(score, pool.broken, pool.classes)
        )
        return {
            "subject": subject.name,
            **given,
            "auroc": auroc(score, pool.broken),
            "within": within,
        }

    late = np.stack([pool.x0(step) for step in range(STEPS // 2, STEPS)])
    change = np.log(late.var(0).mean((1, 2, 3)) + 1e-12)
    yield row(asked="changes of predicted x0", score=change)
    for level in LEVELS:
        step = level_step(log_snr, level)
        for guidance in (subject.guidance,) if subject.guidance == 1 else (subject.guidance, 1.0):
            told = {"guidance_scale": guidance} if subject.classes else None
            ask = recorded_network(pool.store, subject.pipe, step, told)
            parts = []
            for begin in range(0, len(runs), AT_ONCE):
                some = slice(begin, begin + AT_ONCE)
                parts.append(
                    mean_residual(
                        pool.ends[some],
                        lambda noised, which, own=runs[some], ask=ask: ask(noised, own[which]),
                        alpha=float(alpha[step]),
                        sigma=float(sigma[step]),
                        runs=runs[some],
                    )
                )
            for name, score in readings(np.concatenate(parts), energy, pool.first).items():
                yield row(
                    asked=f"log-SNR {log_snr[step]:.1f}", guidance=guidance, read=name, score=score
                )


def asking_table(rows: list[dict[str, Any]]) -> str:
    """Levels down, models and readings across."""
    columns = dict.fromkeys(
        (one["subject"], one.get("guidance"), one.get("read")) for one in rows if "read" in one
    )
    names = [
        ", ".join([subject, *([f"guidance {guidance:g}"] if subject == "emoji" else []), read])
        for subject, guidance, read in columns
    ]
    found = []
    for asked in dict.fromkeys(one["asked"] for one in rows):
        cells = []
        for subject, guidance, read in columns:
            own = [
                one
                for one in rows
                if one["asked"] == asked
                and one["subject"] == subject
                and one.get("guidance", guidance) == guidance
                and one.get("read", read) == read
            ]
            cells.append(
                f"{number(own[0]['auroc'], 2)}, {number(own[0]['within'], 2)}" if own else "-"
            )
        found.append([asked, *cells])
    return table(("asked at", *names), found)


def main() -> None:
    """Print and write one row a line, after those of models not asked now; and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=["fashion", "shapes", "emoji"])
    parser.add_argument("--runs", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=RESULTS / "remedies")
    arguments = parser.parse_args()

    def every() -> Iterator[dict[str, Any]]:
        for name in arguments.subjects:
            subject = SUBJECTS[name]()
            yield from rows_of(subject, recorded_pool(subject, arguments.runs))

    path = arguments.out / "asking.jsonl"
    before = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    kept = [row for row in before if row["subject"] not in arguments.subjects]
    rows = list(told(itertools.chain(kept, every()), path))
    write_tables(arguments.out, {"asking": asking_table(rows)})


if __name__ == "__main__":
    main()

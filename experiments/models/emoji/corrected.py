r"""Corrected samples, looked at blindly: how many come out whole, by where they were corrected.

::

    python -m experiments.models.emoji.corrected docs/results/emoji/corrected-labels.csv
    python -m experiments.models.emoji.corrected experiments/models/emoji/drawn-labels.csv \
        --sets arm- --against box-shuffled

The labels are those of `experiments.remedies.blind`; ``--sets`` says how the names of the
corrections begin. All runs were broken as they were recorded.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RECORDED = "recorded"
RESAMPLES = 2000


def read(path: Path, prefix: str) -> list[dict[str, str]]:
    """First looks at the corrections' sets, under names without their common beginning."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        row | {"set": row["set"].removeprefix(prefix)}
        for row in rows
        if row["set"].startswith(prefix) and row.get("pass", "0") == "0"
    ]


def whole(rows: list[dict[str, str]]) -> dict[str, NDArray[np.bool_]]:
    """Whether each run came out whole, by arm, runs in one order."""
    runs = sorted({int(row["run"]) for row in rows})
    said = {(row["set"], int(row["run"])): row["label"] == "whole" for row in rows}
    arms = dict.fromkeys(row["set"] for row in rows)
    return {arm: np.array([said[arm, run] for run in runs]) for arm in arms}


def compared(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, float]:
    """Difference of two paired shares with its interval, and McNemar's exact p."""
    from scipy.stats import binomtest

    rng = np.random.default_rng(0)
    change = first.astype(float) - second
    drawn = change[rng.integers(0, len(change), (RESAMPLES, len(change)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    more, fewer = int((change > 0).sum()), int((change < 0).sum())
    p = float(binomtest(more, more + fewer).pvalue) if more + fewer else 1.0
    return {"value": float(change.mean()), "low": float(low), "high": float(high), "p": p}


def result(rows: list[dict[str, str]], against: str = "shuffled") -> str:
    """One line a correction, in Markdown."""
    from experiments.tables.cells import likely, percent, share, table

    found = whole(rows)
    lines = []
    for arm, here in found.items():
        words = [row["label"] for row in rows if row["set"] == arm]
        line = [arm, share(float(here.mean())), share(words.count("unsure") / len(words))]
        if arm in (against, RECORDED):
            lines.append([*line, "-", "-"])
            continue
        other = compared(here, found[against])
        lines.append([*line, percent(other, signed=True), likely(other["p"])])
    head = (
        "sampled again in",
        "whole",
        "unsure",
        f"more whole than {against}, points",
        "p (McNemar)",
    )
    return table(head, lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("--sets", default="", help="how the names of the corrections' sets begin")
    parser.add_argument("--against", default="shuffled", help="the control")
    arguments = parser.parse_args()
    print(result(read(arguments.labels, arguments.sets), arguments.against))


if __name__ == "__main__":
    main()

r"""Corrected samples, looked at blindly: how many come out whole, by where they were corrected.

::

    python -m experiments.models.emoji.corrected sheets runs.zarr build/emoji/blind \
        --arm box=box.zarr --arm shuffled=shuffled.zarr --arm everywhere=everywhere.zarr
    python -m experiments.models.emoji.corrected table docs/results/emoji/corrected-labels.csv

The same runs of each store, and as they were recorded, in random order under numbers of their own.
``key.json`` says which cell is which; it is not looked at before all labels are there.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.models.emoji.labelling import write_sheets

RECORDED = "recorded"
RESAMPLES = 2000


def write(runs: Any, arms: Mapping[str, Any], count: int, folder: Path, titles: list[str]) -> None:
    """Sheets of `count` flagged runs in every arm, in random order, and the key.

    Parameters
    ----------
    runs : xarray.Dataset
    arms : mapping of str to xarray.Dataset
        Replays.
    count : int
    folder : Path
    titles : list of str
        What each run of `runs` was asked to show.
    """
    first = next(iter(arms.values()))
    flagged = first["run"].values[first["flagged"].values]
    chosen = np.random.default_rng(5).permutation(flagged)[:count]
    where = {int(run): place for place, run in enumerate(runs["run"].values)}
    images, names, key = [], [], []
    for arm, ds in {RECORDED: runs, **arms}.items():
        at = {int(run): place for place, run in enumerate(ds["run"].values)}
        pictures = ds["image"].values
        images += [pictures[at[int(run)]] for run in chosen]
        names += [titles[where[int(run)]] for run in chosen]
        key += [(arm, int(run)) for run in chosen]
    write_sheets(np.stack(images), names, folder, 0)
    (folder / "key.json").write_text(json.dumps(key))


def whole(rows: list[dict[str, str]]) -> dict[str, NDArray[np.bool_]]:
    """Whether each run came out whole, by arm, runs in one order."""
    runs = sorted({int(row["run"]) for row in rows})
    said = {(row["correction"], int(row["run"])): row["label"] == "whole" for row in rows}
    arms = dict.fromkeys(row["correction"] for row in rows)
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
        words = [row["label"] for row in rows if row["correction"] == arm]
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
    """Sheets or the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sheets = commands.add_parser("sheets")
    sheets.add_argument("store")
    sheets.add_argument("folder", type=Path)
    sheets.add_argument("--arm", action="append", required=True, help="NAME=STORE")
    sheets.add_argument("--runs", type=int, default=120)
    shown = commands.add_parser("table")
    shown.add_argument("labels", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "table":
        with arguments.labels.open(newline="") as file:
            print(result(list(csv.DictReader(file))))
        return
    from asced_stores import open_runs
    from experiments.models.emoji.network import FOLDER

    known = json.loads((FOLDER / "classes.json").read_text())
    names = {one["label"]: one["name"] for one in known}
    runs = open_runs(arguments.store)
    arms = {name: open_runs(path) for name, path in (one.split("=", 1) for one in arguments.arm)}
    titles = [names.get(int(label), "any") for label in runs["label"].values]
    write(runs, arms, arguments.runs, arguments.folder, titles)


if __name__ == "__main__":
    main()

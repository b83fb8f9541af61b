r"""Grades of images by eye, by several viewers each: the middle grade says what is broken.

::

    python -m experiments.remedies.blind sheets build/emoji/graded --set pool=pool.zarr
    python -m experiments.models.emoji.grading collect build/emoji/graded graded.csv notes/*.txt
    python -m experiments.models.emoji.grading summary graded.csv --out docs/results/emoji/graded.md

Viewers follow ``grading.md`` and write one line a cell: ``number grade``, from 0 (whole) to 3
(wrecked). An image is *broken* if the middle of its grades is 2 or more. The table has one row an
image, and the columns of `experiments.remedies.blind`, so that whatever reads those reads
these.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.intervals import share_estimate
from experiments.models.emoji.labelling import print_summary
from experiments.tables.cells import number, table
from experiments.tables.cells import shares as in_words

GRADES = ("whole", "flawed", "broken", "wrecked")
BROKEN = 2  # the lowest grade of what is broken
COLUMNS = ("set", "run", "pass", "label", "grades")


def read_notes(text: str, cells: int) -> dict[int, int]:
    """Grade of each cell.

    Raises
    ------
    ValueError
        A line that names no cell, or another grade.
    """
    said = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        words = line.split()
        if len(words) != 2 or not all(word.isdigit() for word in words):
            raise ValueError(f"{line!r}: expected 'number grade'")
        cell, grade = map(int, words)
        if cell >= cells or grade >= len(GRADES):
            raise ValueError(f"{line!r}: expected a cell below {cells}, a grade of 0 to 3")
        said[cell] = grade
    return said


def collect(key: Sequence[tuple[str, int]], notes: Sequence[str]) -> list[dict[str, Any]]:
    """One row an image, with all its grades in the order of the notes.

    Parameters
    ----------
    key : sequence of (str, int)
        Set and run of each cell.
    notes : sequence of str
        What the viewers wrote.
    """
    grades: dict[int, list[int]] = {}
    for text in notes:
        for cell, grade in read_notes(text, len(key)).items():
            grades.setdefault(cell, []).append(grade)
    rows = []
    for cell, given in grades.items():
        name, run = key[cell]
        label = "broken" if np.median(given) >= BROKEN else "whole"
        said = " ".join(map(str, given))
        rows.append({"set": name, "run": run, "pass": 0, "label": label, "grades": said})
    return sorted(rows, key=lambda row: (row["set"], row["run"]))


def mean_grades(
    path: Path, name: str | None, runs: NDArray[np.integer[Any]]
) -> NDArray[np.float64] | None:
    """Mean grades of some runs of a set; None for a table without grades."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("grades")]
    grades = {
        int(row["run"]): np.mean(list(map(int, row["grades"].split())))
        for row in rows
        if row["set"] == name
    }
    return np.array([grades[int(run)] for run in runs]) if grades else None


def agreement(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """How well two viewers of one image agree, over all pairs, and all viewers with one another.

    Returns
    -------
    dict
        ``images``; ``same word``, the share of pairs that agree on broken or not, and their
        ``kappa``; ``same grade``; ``reliability`` of the mean of all grades of an image
        (intraclass correlation by one-way analysis of variance; Shrout and Fleiss 1979, ICC(1, k)).
    """
    from sklearn.metrics import cohen_kappa_score

    each = [list(map(int, row["grades"].split())) for row in rows]
    pairs = np.array([pair for one in each for pair in itertools.permutations(one, 2)])
    counts = {len(one) for one in each}
    if len(counts) != 1 or (viewers := counts.pop()) < 2:
        raise ValueError(f"{sorted(counts)} grades an image; expected as many of each, at least 2")
    grades = np.array(each, np.float64)
    between = viewers * grades.mean(1).var(ddof=1)
    within = grades.var(axis=1, ddof=1).mean()
    first, second = (pairs >= BROKEN).T
    return {
        "images": len(rows),
        "viewers of each": viewers,
        "same word": float((first == second).mean()),
        "kappa": float(cohen_kappa_score(first, second)),
        "same grade": float((pairs[:, 0] == pairs[:, 1]).mean()),
        "reliability": float((between - within) / between),
    }


def shares(rows: Sequence[dict[str, str]]) -> str:
    """Share broken of each set, and its mean grade, in Markdown."""
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        broken = np.array([row["label"] == "broken" for row in own])
        mean = np.mean([np.mean(list(map(int, row["grades"].split()))) for row in own])
        words = in_words(share_estimate(broken).to_dict())
        found.append([f"`{name}`", str(len(own)), words, number(float(mean))])
    return table(("set", "images", "broken", "mean grade"), found)


def main() -> None:
    """Collect what was seen, or sum it up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    collected = commands.add_parser("collect")
    collected.add_argument("folder", type=Path)
    collected.add_argument("out", type=Path)
    collected.add_argument("notes", type=Path, nargs="+")
    summary = commands.add_parser("summary")
    summary.add_argument("labels", type=Path)
    summary.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    if arguments.command == "summary":
        print_summary(arguments.labels, agreement, shares, arguments.out)
        return
    key = json.loads((arguments.folder / "key.json").read_text())
    rows = collect(key, [path.read_text() for path in arguments.notes])
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} images, {sum(len(row['grades'].split()) for row in rows)} grades")


if __name__ == "__main__":
    main()

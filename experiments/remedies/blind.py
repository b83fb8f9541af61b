r"""Images of several sets, looked at without knowing which set each is of.

::

    python -m experiments.remedies.blind sheets build/emoji/blind \
        --set pool=build/remedies/emoji/pool.zarr --drawn 50
    python -m experiments.remedies.blind sheets build/emoji/blind --set box=box.zarr \
        --set shuffled=shuffled.zarr
    python -m experiments.remedies.blind collect build/emoji/blind labels.csv one.txt two.txt
    python -m experiments.remedies.blind summary labels.csv --out docs/results/emoji/shares.md

All images in random order under numbers of their own. ``key.json`` says which cell is which; it
is not looked at before all labels are there. Each viewer writes a file of notes, one line a cell
that was looked at: ``number broken|whole|unsure [x y width height]``. Of a cell that several
viewers looked at, the file that is named first counts; the others are second looks (``pass`` 1
and more), as are those of a later round, whose rows are added to an existing table. ``--drawn``
takes what `experiments.remedies.drawing` drew in so many steps.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.intervals import share_estimate
from experiments.models.emoji.labelling import BOX, agreement, draw_sheets, print_summary, said_of
from experiments.models.emoji.network import FOLDER
from experiments.tables.cells import shares as in_words
from experiments.tables.cells import table

SEED = 5


@dataclass(frozen=True)
class Shown:
    """Images of one set.

    Attributes
    ----------
    name : str
    images : array of uint8, shape (n, row, column, 3)
    runs : int array, shape (n,)
    labels : int array, shape (n,)
        Classes that the runs were asked for.
    """

    name: str
    images: NDArray[np.uint8]
    runs: NDArray[np.int64]
    labels: NDArray[np.int64]


def of_store(name: str, store: Any) -> Shown:
    """Runs of a store; of a replay those that it corrected."""
    from asced_stores import open_runs

    ds = open_runs(store)
    if "flagged" in ds:
        ds = ds.isel(run=np.flatnonzero(ds["flagged"].values))
    return Shown(name, ds["image"].values, ds["run"].values, ds["label"].values)


def of_remedies(budgets: Sequence[int]) -> Iterator[Shown]:
    """What was drawn with each way to sample so far, in so many steps."""
    from experiments.remedies.drawing import FIRST_SEED, WAYS, drawn
    from experiments.remedies.subjects import SUBJECTS

    subject = SUBJECTS["emoji"]()
    for way, steps in itertools.product(WAYS, budgets):
        ends = drawn(subject, way, steps, 256)
        if ends is not None:
            labels = subject.labels(range(FIRST_SEED, FIRST_SEED + len(ends)))
            shown = ((np.moveaxis(ends, 1, -1) + 1) * 127.5).round().clip(0, 255)
            runs = np.arange(len(ends))
            yield Shown(f"{way}-{steps}", shown.astype(np.uint8), runs, np.array(labels))


def paired(sets: Sequence[Shown], count: int) -> list[Shown]:
    """So many runs that all sets hold, the same of each."""
    common = sorted(set.intersection(*(set(one.runs.tolist()) for one in sets)))
    chosen = np.random.default_rng(SEED).permutation(common)[:count]
    return [
        Shown(one.name, one.images[rows], one.runs[rows], one.labels[rows])
        for one in sets
        for rows in [np.flatnonzero(np.isin(one.runs, chosen))]
    ]


def write(sets: Sequence[Shown], folder: Path) -> list[Path]:
    """Sheets of all images in random order, and the key."""
    known = json.loads((FOLDER / "classes.json").read_text())
    names = {one["label"]: one["name"] for one in known}
    cells = [
        (one.name, int(run), image, names.get(int(label), "any"))
        for one in sets
        for run, image, label in zip(one.runs, one.images, one.labels, strict=True)
    ]
    order = np.random.default_rng(SEED).permutation(len(cells))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key.json").write_text(json.dumps([cells[place][:2] for place in order]))
    return draw_sheets([cells[place][2:] for place in order], folder)


def collect(
    key: Sequence[tuple[str, int]],
    notes: Sequence[tuple[str, str]],
    earlier: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """One row a look: set, run, pass, viewer, label, box.

    Parameters
    ----------
    key : sequence of (str, int)
        Set and run of each cell.
    notes : sequence of (str, str)
        Viewer, and what was written; the first that names a cell counts.
    earlier : sequence of dict, optional
        Rows of earlier rounds.
    """
    rows = list(earlier)
    looks = Counter((row["set"], int(row["run"])) for row in rows)
    for viewer, text in notes:
        for cell, (word, *box) in said_of(text, len(key)).items():
            name, run = key[cell]
            turn = looks[name, run]
            rows.append(
                {"set": name, "run": run, "pass": turn, "viewer": viewer, "label": word}
                | dict(zip(BOX, box, strict=False))
            )
            looks[name, run] += 1
    return sorted(rows, key=lambda row: (row["set"], int(row["run"]), int(row["pass"])))


def shares(rows: Sequence[dict[str, str]]) -> str:
    """Share broken of each set at the first look, unsure ones left out, in Markdown."""
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        words = Counter(row["label"] for row in rows if row["set"] == name and row["pass"] == "0")
        sure = np.repeat([True, False], [words["broken"], words["whole"]])
        cells = [str(words.total()), str(words["unsure"]), in_words(share_estimate(sure).to_dict())]
        found.append([f"`{name}`", *cells])
    return table(("set", "images", "unsure", "broken"), found)


def steadiness(rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """How well viewers agree: of pictures that two of them saw, and each one's share broken."""
    second = {(row["set"], row["run"]): row["label"] for row in rows if row["pass"] == "1"}
    again = [
        second[row["set"], row["run"]]
        for row in rows
        if row["pass"] == "0" and row["x"] and (row["set"], row["run"]) in second
    ]
    viewers = {}
    for viewer in dict.fromkeys(row["viewer"] for row in rows):
        words = Counter(row["label"] for row in rows if row["viewer"] == viewer)
        viewers[viewer] = round(words["broken"] / words.total(), 3)
    return {
        **agreement(list(rows)),
        "with a box, whole to the second": again.count("whole") / len(again),
        "broken by viewer": viewers,
    }


def main() -> None:
    """Sheets, or what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sheets = commands.add_parser("sheets")
    sheets.add_argument("folder", type=Path)
    sheets.add_argument("--set", action="append", default=[], help="NAME=STORE")
    sheets.add_argument("--paired", type=int, help="so many runs that all sets hold")
    sheets.add_argument("--drawn", type=int, nargs="*", default=[], help="ways to sample, by steps")
    collected = commands.add_parser("collect")
    collected.add_argument("folder", type=Path)
    collected.add_argument("out", type=Path)
    collected.add_argument("notes", type=Path, nargs="+")
    summary = commands.add_parser("summary")
    summary.add_argument("labels", type=Path)
    summary.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    if arguments.command == "summary":
        print_summary(arguments.labels, steadiness, shares, arguments.out)
        return
    if arguments.command == "sheets":
        named = [one.split("=", 1) for one in arguments.set]
        sets = [of_store(name, store) for name, store in named]
        if arguments.paired is not None:
            sets = paired(sets, arguments.paired)
        sets += of_remedies(arguments.drawn)
        print(f"{len(write(sets, arguments.folder))} sheets of {sum(len(s.runs) for s in sets)}")
        return
    key = json.loads((arguments.folder / "key.json").read_text())
    notes = [(path.stem, path.read_text()) for path in arguments.notes]
    earlier: list[dict[str, Any]] = []
    if arguments.out.exists():
        with arguments.out.open(newline="") as file:
            earlier = list(csv.DictReader(file))
    rows = collect(key, notes, earlier)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ("set", "run", "pass", "viewer", "label", *BOX), restval="", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} looks at {len({(row['set'], int(row['run'])) for row in rows})} images")


if __name__ == "__main__":
    main()

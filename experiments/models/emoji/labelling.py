r"""Labels by eye: numbered sheets to look at, what was written down, and how well it agrees.

::

    python -m experiments.models.emoji.labelling classes classes.jsonl --runs 600 --only face hand
    asced record --pipeline experiments/models/emoji --trust-remote-code --prompts classes.jsonl \
        --guidance-scale 2 --runs 600 --batch-size 50 --activations mid_block --out runs.zarr
    python -m experiments.models.emoji.labelling sheets runs.zarr build/emoji/sheets --twice 150
    python -m experiments.models.emoji.labelling collect build/emoji/sheets notes.txt labels.csv
    python -m experiments.models.emoji.labelling agreement labels.csv
    python -m experiments.models.emoji.labelling boxes labels.csv boxes/  # masks for asced replay
    python -m experiments.models.emoji.labelling picture runs.zarr labels.csv emoji.webp

The cells of the sheets are in random order and bear numbers of their own; some runs come twice,
the second time under another number, on a later sheet. ``notes.txt`` has one line a cell that is
not whole: ``number broken|unsure [x y width height]``, the box in pixels of the sample. What no
line names is whole.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

WORDS = ("broken", "whole", "unsure")
BOX = ("x", "y", "width", "height")


def shuffled(runs: int, twice: int, seed: int = 0) -> list[tuple[int, int]]:
    """(run, pass) of every cell: all runs once in random order, then `twice` of them again.

    Parameters
    ----------
    runs, twice : int
    seed : int, optional
    """
    draw = np.random.default_rng(seed)
    first = draw.permutation(runs)
    again = draw.permutation(draw.choice(runs, twice, replace=False))
    return [(int(run), 0) for run in first] + [(int(run), 1) for run in again]


def write_sheets(
    images: Any, titles: list[str], folder: Path, twice: int, columns: int = 8, rows: int = 5
) -> list[Path]:
    """Numbered sheets of images, three times as large, and ``order.json`` beside them.

    Parameters
    ----------
    images : array of uint8, shape (run, row, column, 3)
    titles : list of str
        What each run was asked to show.
    folder : Path
    twice : int
        Runs that are looked at a second time.
    columns, rows : int, optional
        Cells of a sheet.
    """
    order = shuffled(len(images), twice)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "order.json").write_text(json.dumps(order))
    cells = [(images[run], titles[run]) for run, _ in order]
    return draw_sheets(cells, folder, columns, rows)


def draw_sheets(
    cells: Sequence[tuple[Any, str]], folder: Path, columns: int = 8, rows: int = 5
) -> list[Path]:
    """Numbered sheets of images (uint8, row, column, 3) and titles, in the order given.

    Parameters
    ----------
    cells : sequence of (array, str)
    folder : Path
    columns, rows : int, optional
        Cells of a sheet.
    """
    side, page, written = 3 * len(cells[0][0]), columns * rows, []
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(cells), page):
        sheet = Image.new("RGB", (columns * (side + 8), rows * (side + 20)), "grey")
        draw = ImageDraw.Draw(sheet)
        for cell, (image, title) in enumerate(cells[start : start + page]):
            left, top = cell % columns * (side + 8) + 4, cell // columns * (side + 20) + 16
            drawn = Image.fromarray(np.asarray(image)).resize(
                (side, side), Image.Resampling.NEAREST
            )
            sheet.paste(drawn, (left, top))
            draw.text((left, top - 14), f"{start + cell}  {title}", fill="white")
        written.append(folder / f"sheet-{start // page:02d}.png")
        sheet.save(written[-1])
    return written


def read_notes(notes: str, order: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """One row a cell, from the lines that were written while looking (see `said_of`)."""
    said = said_of(notes, len(order))
    rows = []
    for number, (run, turn) in enumerate(order):
        word, *box = said.get(number, ["whole"])
        rows.append({"run": run, "pass": turn, "label": word, **dict(zip(BOX, box, strict=False))})
    return sorted(rows, key=lambda row: (row["pass"], row["run"]))


def said_of(notes: str, cells: int) -> dict[int, list[str]]:
    """What the lines of some notes say, by the number of the cell: a word, and a box if any.

    Raises
    ------
    ValueError
        A line that names no cell, says another word, or holds half a box.
    """
    said = {}
    for line in notes.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        number = int(words[0])
        if number >= cells or len(words) not in (2, 6) or words[1] not in WORDS:
            raise ValueError(f"{line!r}: expected 'number {'|'.join(WORDS)} [x y width height]'")
        said[number] = words[1:]
    return said


def agreement(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Cohen's kappa and the share of equal words, of the runs looked at twice.

    Parameters
    ----------
    rows : list of dict
        With `run`, `pass` and `label`, and `set` where there are several.
    """
    from sklearn.metrics import cohen_kappa_score

    first, second = (
        {
            (row.get("set"), int(row["run"])): row["label"]
            for row in rows
            if int(row["pass"]) == turn
        }
        for turn in (0, 1)
    )
    pairs = [(first[run], word) for run, word in second.items()]
    one, other = zip(*pairs, strict=True)
    return {
        "runs": len(pairs),
        "equal": float(np.mean([a == b for a, b in pairs])),
        "kappa": float(cohen_kappa_score(one, other)),
    }


def print_summary(
    labels: Path,
    figures: Callable[[list[dict[str, str]]], Any],
    shares: Callable[[list[dict[str, str]]], str],
    out: Path | None = None,
) -> None:
    """Print what was seen: figures as JSON, and a table of shares, which is kept where asked.

    Parameters
    ----------
    labels : Path
        A table of looks or grades.
    figures, shares : callable
        Of its rows.
    out : Path, optional
        Markdown file to write.
    """
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    print(json.dumps(figures(rows)))
    print(shares(rows))
    if out is not None:
        out.write_text(shares(rows) + "\n")


def boxes(rows: list[dict[str, Any]]) -> dict[int, tuple[int, int, int, int]]:
    """Left, top, right and bottom of each run that has a box, by the first look."""
    found = {}
    for row in rows:
        if int(row["pass"]) == 0 and row.get("x") not in (None, ""):
            x, y, width, height = (int(row[name]) for name in BOX)
            found[int(row["run"])] = (x, y, x + width, y + height)
    return found


def write_boxes(rows: list[dict[str, Any]], folder: Path, size: int = 64) -> None:
    """One mask a run, ``<run>.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for run, (left, top, right, bottom) in boxes(rows).items():
        mask = np.zeros((size, size), np.uint8)
        mask[top:bottom, left:right] = 255
        Image.fromarray(mask).save(folder / f"{run}.png")


def picture(images: Any, rows: list[dict[str, Any]], each: int = 10, scale: int = 2) -> Image.Image:
    """Rows of samples called whole, broken with a box, and broken without one: the second ten."""
    first = {int(row["run"]): row["label"] for row in rows if int(row["pass"]) == 0}
    where = boxes(rows)
    kinds = [
        [run for run, label in first.items() if label == "whole"],
        list(where),
        [run for run, label in first.items() if label == "broken" and run not in where],
    ]
    side = images.shape[1] * scale
    sheet = Image.new("RGB", (each * side, len(kinds) * side), "white")
    draw = ImageDraw.Draw(sheet)
    for line, runs in enumerate(kinds):
        for place, run in enumerate(runs[each : 2 * each]):
            corner = (place * side, line * side)
            sheet.paste(Image.fromarray(images[run]).resize((side, side)), corner)
            if line == 1:
                left, top, right, bottom = (scale * end for end in where[run])
                box = (corner[0] + left, corner[1] + top, corner[0] + right, corner[1] + bottom)
                draw.rectangle(box, outline=(213, 94, 0), width=2)
    return sheet


def main() -> None:
    """Classes, sheets, collection, agreement, boxes or a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    classes = commands.add_parser("classes")
    classes.add_argument("out", type=Path)
    classes.add_argument("--runs", type=int, default=600)
    classes.add_argument("--only", nargs="*", default=[""], help="words in the classes' names")
    sheets = commands.add_parser("sheets")
    sheets.add_argument("store")
    sheets.add_argument("folder", type=Path)
    sheets.add_argument("--twice", type=int, default=150)
    collect = commands.add_parser("collect")
    collect.add_argument("folder", type=Path)
    collect.add_argument("notes", type=Path)
    collect.add_argument("out", type=Path)
    agree = commands.add_parser("agreement")
    agree.add_argument("labels", type=Path)
    masks = commands.add_parser("boxes")
    masks.add_argument("labels", type=Path)
    masks.add_argument("folder", type=Path)
    shown = commands.add_parser("picture")
    shown.add_argument("store")
    shown.add_argument("labels", type=Path)
    shown.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "classes":
        from experiments.models.emoji.sample import draw_labels

        drawn = draw_labels(arguments.runs, seed=0, only=arguments.only)
        arguments.out.write_text("".join(json.dumps({"label": one}) + "\n" for one in drawn))
    elif arguments.command == "sheets":
        from asced_stores import open_runs
        from experiments.models.emoji.network import FOLDER

        ds = open_runs(arguments.store)
        names = {
            one["label"]: one["name"] for one in json.loads((FOLDER / "classes.json").read_text())
        }
        titles = [names.get(int(label), "any") for label in ds["label"].values]
        for path in write_sheets(ds["image"].values, titles, arguments.folder, arguments.twice):
            print(path)
    elif arguments.command == "collect":
        order = [tuple(cell) for cell in json.loads((arguments.folder / "order.json").read_text())]
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, ("run", "pass", "label", *BOX), restval="")
            writer.writeheader()
            writer.writerows(read_notes(arguments.notes.read_text(), order))
    else:
        with arguments.labels.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if arguments.command == "agreement":
            print(json.dumps(agreement(rows)))
        elif arguments.command == "boxes":
            write_boxes(rows, arguments.folder)
        else:
            from asced_stores import open_runs

            picture(open_runs(arguments.store)["image"].values, rows).save(arguments.out)


if __name__ == "__main__":
    main()

r"""Whether masks of detectors lie where a viewer put a box.

::

    python -m experiments.models.emoji.places runs.zarr labels.csv --set pool \
        --thresholds released=released.json --thresholds learnt=learnt.json \
        --masks build/emoji/masks --out docs/results/emoji/places.md

Only runs with a box are asked, and of each detector those nine tenths that score highest: its
level is lowered to that, so that detectors are compared at equal numbers. *Inside* is the share of
a mask's pixels that lie in its run's box; *another run's box* is the same for the boxes of other
runs (all pairs), so that a mask which only likes the middle of the picture gains nothing. All masks
are made as large as the median box. ``--masks`` writes them for ``asced replay --masks``, of the
same runs for every detector.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from experiments.models.emoji.labelling import boxes
from experiments.tables.cells import percent, share, table

RESAMPLES = 2000
FLAGGED = 0.9  # of the runs with a box
Masks = NDArray[np.bool_]


def box_masks(
    where: Mapping[int, tuple[int, int, int, int]], runs: NDArray[np.int64], side: int
) -> Masks:
    """Boxes as masks, shape (run, y, x)."""
    masks = np.zeros((len(runs), side, side), np.bool_)
    for mask, run in zip(masks, runs, strict=True):
        left, top, right, bottom = where[int(run)]
        mask[top:bottom, left:right] = True
    return masks


def sized(mask: Masks, area: int) -> Masks:
    """A mask grown, or worn away from its edge, to so many pixels; an empty one stays empty."""
    if not mask.any():
        return mask
    inside = distance_transform_edt(mask) if not mask.all() else np.ones(mask.shape)
    depth = inside - distance_transform_edt(~mask)
    kept = np.zeros(mask.size, np.bool_)
    kept[np.argsort(-depth.ravel(), kind="stable")[:area]] = True
    return kept.reshape(mask.shape)


def masks_of(ds: Any, thresholds: Any) -> Masks:
    """Masks of a detector at the level that flags `FLAGGED` of these runs."""
    from asced_analysis.compute.source import open_source
    from asced_analysis.detection.apply import detect
    from asced_analysis.detection.scoring import scores_of

    every = np.ones(ds.sizes["run"], np.bool_)
    _, scores = scores_of(open_source(ds), thresholds, every)
    level = float(np.quantile(scores, 1 - FLAGGED))
    lowered = replace(thresholds, levels=replace(thresholds.levels, level=level))
    found = detect(ds, lowered, override=True)
    return np.asarray((found["mask"] & found["flagged"]).values, np.bool_)


def placed(masks: Masks, given: Masks) -> dict[str, Any]:
    """How much of the masks lies in their own box, and in those of other runs.

    Parameters
    ----------
    masks, given : bool array, shape (run, y, x)
        Of the detector, and the boxes; runs whose mask is empty are left out.
    """
    some = masks.any((1, 2))
    flat, own = masks[some].reshape(some.sum(), -1).astype(float), given[some]
    each = flat / flat.sum(1, keepdims=True) @ own.reshape(len(own), -1).T.astype(float)
    count = len(each)
    mine = np.diag(each)
    others = (each.sum(1) - mine) / max(1, count - 1)
    rng = np.random.default_rng(0)
    drawn = (mine - others)[rng.integers(0, count, (RESAMPLES, count))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "runs": count,
        "area": float(masks[some].mean()),
        "inside": float(mine.mean()),
        "others": float(others.mean()),
        "more": {"value": float((mine - others).mean()), "low": float(low), "high": float(high)},
    }


def result(found: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a detector, in Markdown."""
    head = ("mask", "runs with a mask", "area", "inside the box", "inside another run's", "more")
    lines = [
        [
            name,
            str(one["runs"]),
            share(one["area"]),
            share(one["inside"]),
            share(one["others"]),
            percent(one["more"], signed=True),
        ]
        for name, one in found.items()
    ]
    return table(head, lines)


def main() -> None:
    """Print and write the table, and masks to correct with."""
    from asced_analysis import Thresholds
    from asced_stores import open_runs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("labels", type=Path)
    parser.add_argument("--set", help="of labels, where the table holds several")
    parser.add_argument("--thresholds", action="append", required=True, help="NAME=FILE")
    parser.add_argument("--second-half", action="store_true", help="runs of the second half alone")
    parser.add_argument("--masks", type=Path, help="folder for masks of equal size")
    parser.add_argument("--runs", type=int, default=100, help="that get masks, at most")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    with arguments.labels.open(newline="") as file:
        where = boxes([row for row in csv.DictReader(file) if row.get("set") == arguments.set])
    ds = open_runs(arguments.store)
    numbers = ds["run"].values
    known = np.array([int(run) in where for run in numbers])
    if arguments.second_half:
        known &= np.arange(len(known)) >= len(known) // 2
    ds = ds.isel(run=np.flatnonzero(known))
    runs, side = ds["run"].values, ds.sizes["x"]
    given = box_masks(where, runs, side)
    area = int(np.median(given.sum((1, 2))))
    every = {"box": given}
    for one in arguments.thresholds:
        name, path = one.split("=", 1)
        mask = masks_of(ds, Thresholds.load(path))
        every[name] = np.stack([sized(one, area) for one in mask])
    found = {name: placed(mask, given) for name, mask in every.items() if name != "box"}
    text = result(found)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    if arguments.masks is not None:
        common = np.flatnonzero(np.all([mask.any((1, 2)) for mask in every.values()], axis=0))
        chosen = np.random.default_rng(0).permutation(common)[: arguments.runs]
        for name, masks in every.items():
            folder = arguments.masks / name
            folder.mkdir(parents=True, exist_ok=True)
            for place in chosen:
                picture = Image.fromarray(masks[place].astype(np.uint8) * 255)
                picture.save(folder / f"{runs[place]}.png")


if __name__ == "__main__":
    main()

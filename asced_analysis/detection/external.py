"""Masks and labels from elsewhere, and detections to files.

Masks come as PNG files (one a run, ``17.png``), as COCO annotations (``.json``), as ``.npz``
(arrays ``run`` and ``mask``); labels as CSV (columns ``run`` and ``label``; yes/no, true/false or
1/0), or as masks: a run whose mask has pixels is broken.
"""

from __future__ import annotations

import csv
import itertools
import re
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from asced_analysis.compute.shard_graphs import held_by_cluster
from asced_analysis.detection.coco import read_coco, run_of
from asced_stores.errors import InputError
from asced_stores.files import check_out, csv_separator, whole

if TYPE_CHECKING:
    import xarray as xr

YES = frozenset({"1", "true", "yes", "artifact", "broken"})
DETECTION_FILES = (".csv", ".npz")
"""What a file of detections may end with."""
NO = frozenset({"0", "false", "no", "normal", "clean"})


def read_labels(path: str | PathLike[str], *, column: str = "label") -> dict[int, bool]:
    """Labels by run from a CSV file with a header, or from masks.

    Parameters
    ----------
    path : path
        A CSV file, or masks (a folder, ``.npz`` or ``.json``).
    column : str
        Column of the label; the run's id stands in column ``run``.

    Returns
    -------
    dict of int to bool
        True: has an artifact.

    Raises
    ------
    InputError
        Naming the line that can't be read.
    """
    source = Path(path)
    if source.is_dir() or source.suffix.lower() in (".json", ".npz"):
        return {run: bool(mask.any()) for run, mask in read_masks(source).items()}
    labels: dict[int, bool] = {}
    try:
        with source.open(newline="", encoding="utf-8-sig") as lines:
            between = csv_separator(lines.readline())
            lines.seek(0)
            rows = csv.DictReader(lines, delimiter=between)
            if not rows.fieldnames or not {"run", column} <= set(rows.fieldnames):
                raise InputError(
                    f"{source} has columns {rows.fieldnames}; expected 'run' and {column!r}"
                )
            for row in rows:
                word = str(row[column]).strip().lower()
                if word not in YES | NO or not re.fullmatch(r"\s*\d+\s*", str(row["run"])):
                    raise InputError(
                        f"{source}, line {rows.line_num}: run {row['run']!r} has the label "
                        f"{row[column]!r}; expected a number, and one of {sorted(YES | NO)}"
                    )
                run = int(row["run"])
                if labels.setdefault(run, word in YES) != (word in YES):
                    raise InputError(f"{source}: run {run} is labelled twice, differently")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source} can't be read as CSV: {error}") from error
    if not labels:
        raise InputError(f"{source} holds no label")
    return labels


def read_masks(path: str | PathLike[str]) -> dict[int, npt.NDArray[np.bool_]]:
    """Masks by run from a folder of PNG files, a COCO file or an ``.npz`` file.

    Parameters
    ----------
    path : path
        A folder with one ``<run>.png`` a run (a pixel above 127 is set; digits at the end of the
        name are the run), COCO annotations (``.json``: run lengths or polygons, of all categories),
        or an ``.npz`` with ``run`` (n) and ``mask`` (n, y, x).

    Raises
    ------
    InputError
        Where a name, shape or type is not as expected.
    """
    source = Path(path)
    if source.is_dir():
        return _read_pictures(source)
    if source.suffix.lower() == ".json":
        return read_coco(source)
    try:
        with np.load(source, allow_pickle=False) as content:
            if not {"run", "mask"} <= set(content.files):
                raise InputError(f"{source} holds {content.files}; expected 'run' and 'mask'")
            runs, masks = content["run"], content["mask"]
    except (OSError, ValueError, BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source} can't be read as .npz: {error}") from error
    if masks.ndim != 3 or runs.shape != masks.shape[:1] or not np.isin(masks, (0, 1)).all():
        raise InputError(
            f"{source} holds runs {runs.shape} and masks {masks.shape}; expected (n) and "
            "(n, y, x) of zeros and ones"
        )
    return {int(run): mask.astype(bool) for run, mask in zip(runs, masks, strict=True)}


def write_detections(
    found: xr.Dataset, out: str | PathLike[str] | None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Compute detections shard by shard, write them, and count.

    Parameters
    ----------
    found : xarray.Dataset
        Of `asced_analysis.detection.apply.detect`.
    out : path or None
        ``.csv`` for run, score and flag; ``.npz`` with the masks too.
    overwrite : bool

    Returns
    -------
    dict
        ``runs``, ``flagged``, ``share``, ``level``, ``flagged_runs``.
    """
    target = None
    if out is not None:
        target = check_out(out, overwrite=overwrite, suffixes=DETECTION_FILES)
    with_masks = target is not None and target.suffix == ".npz"
    names = ["score", "flagged", *(["mask"] if with_masks else [])]
    parts: dict[str, list[Any]] = {name: [] for name in names}
    held = held_by_cluster({name: found[name] for name in names})
    edges = np.concatenate(
        [[0], np.cumsum(found["score"].chunksizes.get("run", [found.sizes["run"]]))]
    )
    for start, stop in itertools.pairwise(edges):
        some = found[names].isel(run=slice(int(start), int(stop)))
        block = some.compute() if held else some.compute(scheduler="synchronous")
        for name in names:
            parts[name].append(block[name].values)
    arrays = {name: np.concatenate(values) for name, values in parts.items()}
    arrays["run"] = found["run"].values
    if target is not None:
        with whole(target, overwrite=overwrite) as part:
            _write(part, arrays)
    flagged = arrays["flagged"]
    return {
        "runs": int(flagged.size),
        "flagged": int(flagged.sum()),
        "share": float(flagged.mean()),
        "level": float(found.attrs["level"]),
        "flagged_runs": [int(run) for run in arrays["run"][flagged]],
    }


def _write(target: Path, arrays: dict[str, Any]) -> None:
    """Write a table, or an archive."""
    if target.suffix == ".npz":
        np.savez_compressed(target, **arrays)
        return
    with target.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["run", "score", "flagged"])
        for run, score, flagged in zip(
            arrays["run"], arrays["score"], arrays["flagged"], strict=True
        ):
            writer.writerow([int(run), f"{score:.9g}", int(flagged)])


def _read_pictures(folder: Path) -> dict[int, npt.NDArray[np.bool_]]:
    """Masks from ``<run>.png`` files."""
    from PIL import Image, UnidentifiedImageError

    masks: dict[int, npt.NDArray[np.bool_]] = {}
    for file in sorted(folder.glob("*.png")):
        run = run_of(file.name)
        if run is None or run in masks:
            wrong = "is not named after a run" if run is None else f"is a second mask of run {run}"
            raise InputError(f"{file} {wrong}; expected something like 17.png")
        try:
            with Image.open(file) as picture:
                masks[run] = np.asarray(picture.convert("L")) > 127
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"{file} can't be read as a picture: {error}") from error
    if not masks:
        raise InputError(f"{folder} holds no PNG files")
    return masks

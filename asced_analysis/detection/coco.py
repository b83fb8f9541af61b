"""Masks as COCO annotations, which FiftyOne, CVAT and Label Studio read and write.

A mask is run-length coded down its columns, the number of zeros first. Compressed, each number from
the third on is the difference to the one two before it, in groups of five bits, lowest first; a
sixth bit says that more follow, and 48 is added to make a letter (``maskApi.c`` of pycocotools).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_stores.errors import InputError

Mask = npt.NDArray[np.bool_]
CATEGORY = {"id": 1, "name": "artifact"}
LARGEST_SIDE = 1 << 15


def run_of(name: str) -> int | None:
    """Number of the run that a picture is of: the digits at the end of its name.

    Tools that put something before the name (``3f2a1b4c-17.png``) are understood.
    """
    found = re.search(r"(?:^|\D)(\d+)$", PurePath(name).stem)
    return None if found is None else int(found[1])


def encode(mask: Mask, /) -> str:
    """Run-length code of a mask (y, x), compressed."""
    flat = np.concatenate([[False], np.asarray(mask, np.bool_).ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    letters = []
    for place, count in enumerate(counts.tolist()):
        left = count - (int(counts[place - 2]) if place > 2 else 0)
        more = True
        while more:
            bits, left = left & 31, left >> 5
            more = left != (-1 if bits & 16 else 0)
            letters.append(chr((bits | 32 if more else bits) + 48))
    return "".join(letters)


def decode(counts: str | Sequence[int], shape: tuple[int, int], /) -> Mask:
    """Mask (y, x) of a run-length code, compressed or as numbers.

    Raises
    ------
    InputError
        Where the code does not fill the mask exactly.
    """
    numbers = _numbers(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if min(numbers, default=0) < 0 or sum(numbers) != shape[0] * shape[1]:
        raise InputError(f"a run-length code does not fill its {shape[0]} x {shape[1]} pixels")
    values = np.arange(len(numbers)) % 2 == 1
    return np.repeat(values, numbers).reshape(shape, order="F")


def _numbers(letters: str) -> list[int]:
    numbers: list[int] = []
    value = shift = 0
    for letter in letters:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise InputError("a run-length code holds what is none of its letters")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    if shift:
        raise InputError("a run-length code is cut short")
    return numbers


def fill(polygons: Sequence[Sequence[float]], shape: tuple[int, int], /) -> Mask:
    """Mask (y, x) of polygons ``x1, y1, x2, y2, ...``: pixels whose centre lies inside one."""
    from matplotlib.path import Path as Outline

    rows, columns = np.mgrid[: shape[0], : shape[1]]
    centres = np.column_stack([columns.ravel() + 0.5, rows.ravel() + 0.5])
    mask = np.zeros(len(centres), bool)
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or corners.size < 6 or corners.size % 2:
            raise InputError(f"a polygon has {corners.size} numbers; expected pairs, three or more")
        mask |= Outline(corners.reshape(-1, 2)).contains_points(centres)
    return mask.reshape(shape)


def coco_of(masks: Mapping[int, Mask], name: str = "{run}.png") -> dict[str, Any]:
    """COCO annotations of masks: one picture a run, one annotation where its mask has pixels."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for run, mask in sorted(masks.items()):
        height, width = mask.shape
        images.append(
            {"id": run, "file_name": name.format(run=run), "height": height, "width": width}
        )
        if not mask.any():
            continue
        rows, columns = np.nonzero(mask)
        x, y = int(columns.min()), int(rows.min())
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": run,
                "category_id": CATEGORY["id"],
                "segmentation": {"size": [height, width], "counts": encode(mask)},
                "area": int(mask.sum()),
                "bbox": [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1],
                "iscrowd": 1,
            }
        )
    return {"images": images, "annotations": annotations, "categories": [CATEGORY]}


def read_coco(path: Path) -> dict[int, Mask]:
    """Masks by run of a COCO file; a picture without annotations has an empty mask.

    Raises
    ------
    InputError
        Naming the file, and what in it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        pictures = {one["id"]: one for one in content["images"]}
        marks = [(one["image_id"], one.get("segmentation")) for one in content["annotations"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} can't be read as COCO ({type(error).__name__}: {error}); expected lists "
            "'images' and 'annotations'"
        ) from error
    runs: dict[Any, int] = {}
    masks: dict[int, Mask] = {}
    for key, picture in pictures.items():
        run = run_of(str(picture.get("file_name")))
        shape = (picture.get("height"), picture.get("width"))
        if run is None or run in masks:
            wrong = "names no run" if run is None else f"is a second picture of run {run}"
            raise InputError(
                f"{path}: the picture {picture.get('file_name')!r} {wrong}; expected something "
                "like 17.png"
            )
        if not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in shape):
            raise InputError(f"{path}: the picture of run {run} has height and width {shape}")
        runs[key], masks[run] = run, np.zeros(shape, bool)
    for key, segmentation in marks:
        if key not in runs:
            raise InputError(f"{path}: an annotation is of picture {key!r}, which is not listed")
        run = runs[key]
        try:
            masks[run] |= _mask_of(segmentation, masks[run].shape)
        except (InputError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: an annotation of run {run} is no mask: {error}") from error
    if not masks:
        raise InputError(f"{path} lists no picture")
    return masks


def _mask_of(segmentation: Any, shape: tuple[int, ...]) -> Mask:
    """One annotation: run lengths or polygons."""
    height, width = shape
    if isinstance(segmentation, Mapping):
        if list(segmentation["size"]) != [height, width]:
            raise InputError(
                f"its size is {segmentation['size']}, that of the picture {[height, width]}"
            )
        return decode(segmentation["counts"], (height, width))
    if isinstance(segmentation, list) and segmentation:
        return fill(segmentation, (height, width))
    raise InputError("it has no segmentation, only a box: draw masks or polygons")

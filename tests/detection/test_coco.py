"""Masks as COCO annotations: pycocotools reads ours, and we read its."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as reference
from pycocotools.coco import COCO

from asced_analysis.detection.coco import coco_of, decode, encode, fill, run_of
from asced_analysis.detection.external import read_labels, read_masks
from asced_analysis.export import export_masks
from asced_analysis.replay.planning import at_sample
from asced_cli.main import run
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)


@given(arrays(np.bool_, SHAPES, elements=st.booleans(), fill=st.booleans()))
def test_run_lengths_are_those_of_pycocotools(mask: Any) -> None:
    theirs = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode(mask) == theirs["counts"].decode()
    assert (decode(encode(mask), mask.shape) == mask).all()


def test_long_runs_and_numbers() -> None:
    mask = np.zeros((300, 700), bool)
    mask[17:200, 40:600] = True
    theirs = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode(mask) == theirs["counts"].decode()
    assert (decode([0, 2, 2], (2, 2)) == [[True, False], [True, False]]).all()


def test_polygons_are_filled_as_pycocotools_does() -> None:
    triangle = [[3.2, 4.1, 40.7, 9.3, 11.5, 44.9]]
    theirs = reference.decode(reference.frPyObjects(triangle, 50, 60))[..., 0].astype(bool)
    ours = fill(triangle, (50, 60))
    assert (ours ^ theirs).sum() <= 0.06 * theirs.sum()  # they differ in how edges are rounded


@pytest.mark.parametrize(
    ("name", "expected"),
    [("17.png", 17), ("3f2a1b4c-17.png", 17), ("a/run_0007.jpg", 7), ("17b.png", None)],
)
def test_names_of_runs(name: str, expected: int | None) -> None:
    assert run_of(name) == expected


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coco") / "runs.zarr"
    synthetic_store(path, runs=40, steps=6, shape=(1, 8, 8), batch_size=20)
    return path


@pytest.mark.parametrize("form", ["coco", "png"])
def test_a_round_trip_through_the_command(form: str, store: Path, tmp_path: Path) -> None:
    thresholds, out = tmp_path / "t.json", tmp_path / "labelling"
    assert (
        run(["calibrate", str(store), "--false-alarm-rate", "0.3", "--out", str(thresholds)]) == 0
    )
    found = tmp_path / "found.npz"
    assert run(["detect", str(store), "--thresholds", str(thresholds), "--out", str(found)]) == 0
    before = read_masks(found)
    assert any(mask.any() for mask in before.values())
    command = ["export", str(store), "--thresholds", str(thresholds), "--format", form]
    assert run([*command, "--out", str(out)]) == 0
    assert len(list((out / "data").glob("*.png"))) == 40
    assert run([*command, "--out", str(out), "--overwrite"]) == 0
    written = out / ("labels.json" if form == "coco" else "masks")
    after = read_masks(written)
    assert sorted(after) == sorted(before)
    for number, mask in before.items():
        np.testing.assert_array_equal(after[number], mask)
    assert read_labels(written) == {number: bool(mask.any()) for number, mask in before.items()}
    again = ["export", str(store), "--masks", str(written), "--format", "coco", "--only-flagged"]
    assert run([*again, "--out", str(tmp_path / "again")]) == 0
    flagged = sorted(number for number, mask in before.items() if mask.any())
    assert sorted(read_masks(tmp_path / "again/labels.json")) == flagged


def test_pycocotools_opens_the_file(store: Path, tmp_path: Path, capsys: Any) -> None:
    half = np.zeros((4, 4), bool)  # of latents half as large as their pictures
    half[1:3, 2:] = True
    export_masks(open_runs(store), tmp_path / "out", masks={3: half, 4: np.zeros((4, 4), bool)})
    opened = COCO(tmp_path / "out/labels.json")
    assert sorted(opened.getImgIds()) == [3, 4]
    (mark,) = opened.loadAnns(opened.getAnnIds())
    whole = opened.annToMask(mark).astype(bool)
    assert (whole == np.kron(half, np.ones((2, 2), bool))).all()
    assert mark["area"] == whole.sum() == 16
    assert mark["bbox"] == [4, 2, 4, 4]
    capsys.readouterr()


def test_what_others_write(tmp_path: Path) -> None:
    """Polygons, uncompressed run lengths, two annotations of one picture, names with a prefix."""
    picture = {"id": "x", "file_name": "images/3f2a1b4c-5.png", "height": 4, "width": 4}
    square = [[0, 0, 2, 0, 2, 2, 0, 2]]
    marks = [
        {"image_id": "x", "category_id": 3, "segmentation": square, "iscrowd": 0},
        {
            "image_id": "x",
            "category_id": 4,
            "segmentation": {"size": [4, 4], "counts": [15, 1]},
            "iscrowd": 1,
        },
    ]
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"images": [picture], "annotations": marks, "categories": []}))
    (mask,) = read_masks(path).values()
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [3, 3]]


def test_masks_of_the_picture_fit_the_sample() -> None:
    """A cell of the latents is in where any pixel of the decoded picture is."""
    picture = np.zeros((16, 16), bool)
    picture[3, 9] = True
    assert np.argwhere(at_sample(picture, (8, 8), 5)).tolist() == [[1, 4]]
    with pytest.raises(InputError, match=r"run 5 has shape \(16, 12\)"):
        at_sample(picture[:, :12], (8, 8), 5)


def broken(**changes: Any) -> dict[str, Any]:
    content = coco_of({5: np.eye(4, dtype=bool)})
    content["annotations"][0] |= changes.pop("mark", {})
    content["images"][0] |= changes.pop("picture", {})
    return {**content, **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "can't be read as COCO"),
        ({"images": []}, "can't be read as COCO"),
        ({"images": [], "annotations": []}, "lists no picture"),
        (broken(picture={"file_name": "no.png"}), "names no run"),
        (broken(picture={"height": 0}), "height and width"),
        (broken(mark={"image_id": 8}), "not listed"),
        (broken(mark={"segmentation": {"size": [4, 5], "counts": "0"}}), "its size"),
        (broken(mark={"segmentation": {"size": [4, 4], "counts": "0"}}), "does not fill"),
        (
            broken(mark={"segmentation": {"size": [4, 4], "counts": "\u2603"}}),
            "none of its letters",
        ),
        (broken(mark={"segmentation": [[1, 2, 3]]}), "3 numbers"),
        (broken(mark={"segmentation": []}), "only a box"),
    ],
)
def test_what_cannot_be_read(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_masks(path)

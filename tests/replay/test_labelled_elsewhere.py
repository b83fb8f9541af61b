"""Masks that a labelling tool gives back, from the commands' own files to the judgement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as tool

from asced_analysis import Thresholds
from asced_analysis.detection.external import read_masks
from asced_cli.main import run
from asced_stores import open_runs
from asced_stores.testing import synthetic_store

BROKEN = (2, 5, 11)


def marked(exported: Path, out: Path, form: str, broken: tuple[int, ...], size: int = 6) -> Path:
    """What a tool writes of the pictures that were exported for it: a square in each broken one."""
    pictures = sorted((exported / "data").glob("*.png"), key=lambda path: int(path.stem))
    images, annotations = [], []
    for number, picture in enumerate(pictures, start=1):
        with Image.open(picture) as opened:
            width, height = opened.size
        square = np.zeros((height, width), np.uint8)
        if int(picture.stem) in broken:
            square[2 : 2 + size, 3 : 3 + size] = 1
        images.append({"id": number, "file_name": f"3f2a1b4c-{picture.name}"})
        images[-1] |= {"width": width, "height": height}
        if form == "png":
            out.mkdir(exist_ok=True)
            Image.fromarray(255 * square).save(out / picture.name)
        elif square.any():
            encoded = tool.encode(np.asfortranarray(square))
            encoded["counts"] = encoded["counts"].decode()
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1})
            annotations[-1] |= {"segmentation": encoded, "iscrowd": 1}
    if form == "png":
        return out
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "broken"}]
    out.with_suffix(".json").write_text(json.dumps(content))
    return out.with_suffix(".json")


@pytest.mark.parametrize("form", ["coco", "png"])
def test_they_are_replayed_and_evaluated(
    form: str, tiny_runs: Path, tiny_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    none = tmp_path / "none.npz"
    np.savez(none, run=np.arange(20), mask=np.zeros((20, 16, 16), bool))
    exported, corrected = tmp_path / "exported", tmp_path / "corrected.zarr"
    given = ["--masks", str(none), "--format", "coco", "--out", str(exported)]
    assert run(["export", str(tiny_runs), *given]) == 0
    before = marked(exported, tmp_path / "before", form, BROKEN)
    command = ["replay", str(tiny_runs), "--pipeline", str(tiny_folder), "--strategy", "ttc"]
    assert run([*command, "--masks", str(before), "--out", str(corrected)]) == 0
    found = open_runs(corrected)
    assert found["run"].values[found["flagged"].values].tolist() == list(BROKEN)
    for number, mask in read_masks(before).items():
        edited = found["mask"].sel(run=number).values.astype(bool)
        assert edited.any() == mask.any()
        assert (edited | ~mask).all(), "where it was drawn, it is renewed"
    after = marked(exported, tmp_path / "after", form, (5, 12), size=2)
    out = tmp_path / "evaluation.json"
    judged = ["evaluate", str(tiny_runs), str(corrected), "--outcomes", str(before)]
    assert run([*judged, "--outcomes", str(after), "--out", str(out)]) == 0
    judged = json.loads(out.read_text())["flagged_runs"]
    assert judged["endings"]["broken"] == len(BROKEN), "those with a mask ended badly"
    change = (-36 + 4 - 36 - 36) / 3 / 256  # marked share of the image: gone, but for four pixels
    assert judged["effect"]["all"]["value"] == pytest.approx(change)


@pytest.mark.parametrize("form", ["coco", "png"])
def test_they_teach_calibration(form: str, tmp_path: Path) -> None:
    """As labels, and as outcomes: the larger the mask, the worse."""
    store, exported = tmp_path / "runs.zarr", tmp_path / "exported"
    synthetic_store(store, runs=100, steps=4, shape=(1, 12, 12), batch_size=100)
    none = tmp_path / "none.npz"
    np.savez(none, run=np.arange(100), mask=np.zeros((100, 12, 12), bool))
    given = ["--masks", str(none), "--format", "coco", "--out", str(exported)]
    assert run(["export", str(store), *given]) == 0
    masks = marked(exported, tmp_path / "masks", form, tuple(range(0, 100, 4)))
    labelled, learnt = tmp_path / "labelled.json", tmp_path / "learnt.json"
    command = ["calibrate", str(store), "--false-alarm-rate", "0.2"]
    by_label = ["--method", "labels", "--labels", str(masks), "--out", str(labelled)]
    assert run([*command, *by_label]) == 0
    assert Thresholds.load(labelled).guarantee.population == "runs labelled normal"
    by_outcome = ["--method", "outcome", "--outcomes", str(masks), "--out", str(learnt)]
    assert run([*command, *by_outcome]) == 0
    teacher = Thresholds.load(learnt).teacher
    assert teacher is not None
    assert "masks" in teacher["name"]

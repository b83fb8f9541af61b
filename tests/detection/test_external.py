"""Masks and labels from elsewhere are read, and detections written, with clear errors."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asced_analysis.calibration import calibrate
from asced_analysis.detection.apply import detect
from asced_analysis.detection.external import read_labels, read_masks, write_detections
from asced_analysis.realism.outcomes import read_outcomes
from asced_recorders.pipelines.prompts import Prompt, read_prompts
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store


def test_labels_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("run,label,by\n3,yes,ann\n4,No,ann\n 7 ,artifact,bo\n8,0,bo\n", "utf-8")
    assert read_labels(path) == {3: True, 4: False, 7: True, 8: False}


def test_tables_as_excel_writes_them_in_europe(tmp_path: Path) -> None:
    """Semicolons between columns, decimal commas, a byte order mark."""
    path = tmp_path / "table.csv"
    path.write_text("\ufeffrun;label\n3;yes\n4;no\n", "utf-8")
    assert read_labels(path) == {3: True, 4: False}
    path.write_text("\ufeffrun;score;by\n3;0,25;ann, bo\n4;-1,5;ann\n5;2;bo\n", "utf-8")
    assert read_outcomes(path, better="lower").scores == {3: 0.25, 4: -1.5, 5: 2.0}
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_outcomes(packed, better="lower").scores == {3: 0.25, 4: -1.5, 5: 2.0}
    path.write_text("prompt;label\na cat, red;3\n", "utf-8")
    assert read_prompts(path) == (Prompt("a cat, red", label=3),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns None"),
        ("run,other\n1,yes\n", "expected 'run' and 'label'"),
        ("run,label\n1,maybe\n", "line 2"),
        ("run,label\nx,yes\n", "line 2"),
        ("run,label\n", "holds no label"),
        ("run,label\n1,yes\n1,no\n", "labelled twice"),
    ],
)
def test_labels_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        read_labels(path)


def test_masks_from_npz_and_pictures(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).uniform(size=(3, 6, 5)) > 0.5
    np.savez(tmp_path / "masks.npz", run=np.array([2, 5, 9]), mask=masks)
    (tmp_path / "pictures").mkdir()
    for run, mask in zip((2, 5, 9), masks, strict=True):
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "pictures" / f"{run}.png")
    for source in (tmp_path / "masks.npz", tmp_path / "pictures"):
        found = read_masks(source)
        assert sorted(found) == [2, 5, 9]
        np.testing.assert_array_equal(np.stack([found[run] for run in (2, 5, 9)]), masks)


def test_masks_that_cannot_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "names.npz", masks=np.zeros((1, 2, 2)))
    np.savez(tmp_path / "shape.npz", run=np.array([1, 2]), mask=np.zeros((1, 2, 2)))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "a.png").write_bytes(b"")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.png").write_bytes(b"no picture")
    names = ("names.npz", "shape.npz", "text.npz", "none.npz", "pictures", "named", "broken")
    for name in names:
        with pytest.raises(InputError, match=name.split(".")[0]):
            read_masks(tmp_path / name)


def test_detections_are_written_whole(tmp_path: Path) -> None:
    synthetic_store(tmp_path / "runs.zarr", runs=64, steps=12, batch_size=16)
    runs = open_runs(tmp_path / "runs.zarr")
    found = detect(runs, calibrate(runs, false_alarm_rate=0.2))
    result = write_detections(found, tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == result["runs"] == 64
    assert [int(row["run"]) for row in rows if row["flagged"] == "1"] == result["flagged_runs"]
    write_detections(found, tmp_path / "found.npz")
    masks = read_masks(tmp_path / "found.npz")
    assert [run for run, mask in masks.items() if mask.any()] == result["flagged_runs"]
    with pytest.raises(InputError, match="exists"):
        write_detections(found, tmp_path / "found.csv")
    with pytest.raises(InputError, match=r"ends in \.csv or \.npz"):
        write_detections(found, tmp_path / "found.txt")
    assert write_detections(found, None) == result

"""The paper's experiments end to end: a tiny colour pipeline, a folder of images, own features."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.evaluation import populations
from asced_analysis.realism import RealismModel, features, local_realism
from asced_analysis.realism.distances import frechet_distance, precision_recall
from asced_stores import open_runs
from asced_stores.errors import InputError
from experiments.paper import __main__ as bench
from experiments.paper import claims, detecting, judging, paper_tables, setting

RUNS, STEPS = 24, 8
OWN = """
import torch
from asced_analysis.realism import model_from_module

def first_layer(real):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(real.shape[1], 6, 3, stride=2), torch.nn.ReLU())
    return model_from_module("an untrained layer", net, real, local_layer="1", patches=400)

def nothing(real):
    return None
"""


@pytest.fixture(scope="module")
def folder(make_tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of random weights for 3x16x16, real images of another size, features, labels."""
    from PIL import Image

    path = tmp_path_factory.mktemp("paper")
    make_tiny("DDPM", 3).save_pretrained(path / "tiny")
    (path / "real").mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):
        coarse = rng.integers(0, 256, (6, 5, 3), np.uint8)
        Image.fromarray(coarse).resize((30, 36)).save(path / "real" / f"{i:02}.png")
    (path / "own.py").write_text(OWN, encoding="utf-8")
    with (path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["run", "broken"])
        table.writerows([[run, int(run % 3 == 0)] for run in range(RUNS)])
    return path


def command(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    """Run the bench in this process, and read what it wrote."""
    monkeypatch.setattr(populations, "RESAMPLES", 20)
    monkeypatch.setattr(detecting, "DRAWS", 50)
    given = f"--pipeline {folder / 'tiny'} --runs {RUNS} --steps {STEPS} --real {folder / 'real'} "
    given += f"--cache {folder / 'cache'} --out {folder / 'out.json'} --figures {folder / 'plots'} "
    given += f"--features {folder / 'own.py'}:first_layer"
    monkeypatch.setattr(sys, "argv", ["paper", *given.split(), *more])
    bench.main()
    found: dict[str, Any] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    """Every experiment once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return command(
            folder,
            monkeypatch,
            *f"--labels {folder / 'labels.csv'} --no-controls --share 0.5".split(),
            *f"--tables {folder / 'tables'}".split(),
        )


@pytest.fixture(scope="module")
def runs(folder: Path, results: dict[str, Any]) -> Path:
    """What it recorded."""
    (store,) = (folder / "cache").glob("tiny-*-8-steps-24.zarr")
    return store


@pytest.fixture(scope="module")
def model(folder: Path, runs: Path) -> RealismModel:
    return judging.judge_of(f"{folder / 'own.py'}:first_layer", folder / "real", runs)


def test_table_one_holds_the_figures_of_the_stores(
    folder: Path, results: dict[str, Any], runs: Path, model: RealismModel
) -> None:
    assert results["features"] == "an untrained layer"
    rows = results["table1"]["paper"]
    assert list(rows) == list(results["table1"]["released"])
    assert list(rows) == ["state_replacement", "score_clipping", "ttc"]
    before = open_runs(runs)["sample"].values
    for name, row in rows.items():
        (replayed,) = (folder / "cache").glob(f"*/paper-{name}.zarr")
        ds = open_runs(replayed)
        assert row["flagged"] == int(ds["flagged"].values.sum())
        for when, images in (("before", before), ("after", ds["sample"].values)):
            vectors = features(images, model)
            precision, recall = precision_recall(vectors, model.vectors)
            quality = {figure: one[when]["value"] for figure, one in row["quality"].items()}
            assert quality["precision"] == pytest.approx(precision)
            assert quality["recall"] == pytest.approx(recall)
            distance = frechet_distance(vectors, model.mean, model.covariance)
            assert quality["frechet_distance"] == pytest.approx(distance, rel=1e-3)
            local = local_realism(images, model).mean()
            assert quality["local_realism"] == pytest.approx(local, rel=1e-5)


def test_correction_changes_flagged_runs_alone(
    folder: Path, results: dict[str, Any], runs: Path
) -> None:
    before = open_runs(runs)["sample"].values
    for variant, flagged in (
        ("paper", RUNS),
        ("released", 0),
    ):  # sizes for 16x16: no region is left
        (replayed,) = (folder / "cache").glob(f"*/{variant}-ttc.zarr")
        ds = open_runs(replayed)
        changed = (ds["sample"].values != before).any((1, 2, 3))
        assert results["table1"][variant]["ttc"]["flagged"] == flagged
        np.testing.assert_array_equal(changed, ds["flagged"].values.astype(bool))
        eight = results["figure8"][variant]
        assert list(eight) == ["0.5"]
        assert eight["0.5"]["correction_step"] == 4


def test_table_two_counts_right_answers_at_equal_numbers(results: dict[str, Any]) -> None:
    two = results["table2"]
    assert two["labels_by"] == "people (labels.csv)"
    assert (two["broken"], two["whole"], two["each"]) == (8, 16, 8)
    assert list(two["detectors"]) == ["`released`, as printed", "`paper`, as printed"]
    for row in two["detectors"].values():
        expected = (row["flagged_broken"]["value"] + 1 - row["flagged_whole"]["value"]) / 2
        assert row["accuracy"] == pytest.approx(expected, abs=0.03)
    assert two["detectors"]["`paper`, as printed"]["flagged_whole"]["value"] == 1


def test_figures_count_runs_and_steps(results: dict[str, Any]) -> None:
    seven, four = results["figure7"], results["figure4"]
    assert seven["share_of_sampling"] == [k / STEPS for k in range(1, STEPS)]
    rule = seven["rules"]["paper"]
    for k in range(STEPS - 1):
        mixed = (8 * rule["broken"][k] + 16 * rule["whole"][k]) / RUNS
        assert rule["all"][k] == pytest.approx(mixed)
    inside = [k for k, share in enumerate(seven["share_of_sampling"]) if 0.24 <= share <= 0.52]
    share = sum(rule["all"][k] for k in inside) / sum(rule["all"])
    assert rule["within_0.24_0.52"] == pytest.approx(share)
    assert four["steps"] == STEPS
    for found in four["signals"].values():
        assert len(found["step"]) == STEPS - 1


def test_tables_and_plots_are_written(folder: Path, results: dict[str, Any]) -> None:
    found = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "tables").iterdir()}
    assert set(found) == {
        *("claims", "published", "table2"),
        *(f"{kind}-{name}" for kind in ("table1", "figure8") for name in ("paper", "released")),
    }
    claim = "ASCED lowers the FID and raises precision and recall (detector `released`)"
    assert claim in found["claims"]
    assert "8 with and 8 without artifacts, drawn from 8 and 16" in found["table2"]
    assert sorted(p.name for p in (folder / "plots").iterdir()) == [
        "paper-figure4.png",
        "paper-figure7.png",
        "paper-figure8.png",
    ]


def test_run_again_it_samples_nothing_and_adds_features(
    folder: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = {p: p.stat().st_mtime_ns for p in (folder / "cache").rglob("zarr.json")}
    more = ["--features", "patches", "--only", "table1", "--detector", "released", "--no-controls"]
    assert command(folder, monkeypatch, *more) == results
    assert {p: p.stat().st_mtime_ns for p in (folder / "cache").rglob("zarr.json")} == stores
    other = json.loads((folder / "out-patches.json").read_text(encoding="utf-8"))
    assert other["features"] == "patches of 30 real images"
    lines = paper_tables.tables(results, [other])["features"].splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| an untrained layer"] * 6 + [
        "| patches of 30 real images"
    ] * 3


def test_results_of_other_features_are_not_mixed(
    folder: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting, "key_of", lambda store: "other")
    (folder / "own.py").write_text(OWN.replace("untrained", "unlearnt"), encoding="utf-8")
    with pytest.raises(SystemExit, match="other runs or features"):
        command(folder, monkeypatch, "--only", "table2")


def test_wrong_features_and_images_are_named(folder: Path, runs: Path, tmp_path: Path) -> None:
    real = folder / "real"
    for features_, place, told in (
        (f"{folder / 'own.py'}:nothing", real, "returned NoneType"),
        (f"{folder / 'own.py'}:other", real, "no function 'other'"),
        (f"{folder / 'no.py'}:other", real, "no Python file"),
        ("imagenet", None, "need real images"),
        ("judge", real, "leave out --real"),
        ("patches", tmp_path, "there is no image in"),
    ):
        with pytest.raises(InputError, match=told):
            judging.judge_of(features_, place, runs)


def change(value: float, low: float, high: float) -> dict[str, Any]:
    return {"change": {"value": value, "low": low, "high": high}}


@pytest.mark.parametrize(
    ("recall", "verdict"),
    [((0.02, 0.01, 0.03), "holds"), ((0.0, -0.01, 0.01), "not shown"),
     ((-0.02, -0.03, -0.01), "does not hold")],
)  # fmt: skip
def test_a_claim_holds_by_its_interval(recall: tuple[float, ...], verdict: str) -> None:
    quality = {
        "frechet_distance": change(-0.2, -0.3, -0.1),
        "precision": change(0.2, 0.1, 0.3),
        "recall": change(*recall),
        "local_realism": change(-0.2, -0.3, -0.1),
    }
    rows = {"released": {"ttc": {"quality": quality}}}
    (judged,) = claims.claims({"table1": rows})
    assert judged.verdict == verdict
    late = {"released": {"0.48": {"quality": quality}}}
    (judged,) = claims.claims({"figure8": late})
    assert judged.verdict == "holds"
    late["released"]["0.8"] = {"quality": quality}
    (judged,) = claims.claims({"figure8": late})
    assert judged.verdict == "does not hold"

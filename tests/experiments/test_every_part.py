"""Every part of the bench at a tiny size, from nothing to the filled page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from asced_analysis.evaluation import populations
from experiments import truth
from experiments.correction import (
    every_correction,
    noise_energy,
    policies,
    shapes_repair,
    shapes_set,
    uplift,
    where_to_correct,
)
from experiments.datasets import committee
from experiments.detection import judge_check
from experiments.tables import truth as report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PARTS = (
    *("grid", "grid-repair", "judge", "natural", "planted", "options", "shapes"),
    *("where", "where-planted", "energy", "forms", "ideas", "policies", "equal", "uplift"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("truth")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        committee.garments(0, 1)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(committee, "IMAGES", 100)
    monkeypatch.setattr(committee, "PLACES", 500)
    monkeypatch.setattr(every_correction, "BRANCHES", {"ttc, additive": ("ttc", {})})
    monkeypatch.setattr(judge_check, "COUNT", 60)
    monkeypatch.setattr(noise_energy, "FRESH", {"runs": 32, "seed": 30_000})
    monkeypatch.setattr(noise_energy, "TARGETS", (1.0,))
    monkeypatch.setattr(noise_energy, "BLURS", (2.0,))
    monkeypatch.setattr(noise_energy, "STEPS_TRIED", (8,))
    monkeypatch.setattr(noise_energy, "SAMPLERS", {"DDIM": "ddim", "Euler, ancestral": "euler-a"})
    monkeypatch.setattr(noise_energy, "STRATA", 3)
    monkeypatch.setattr(noise_energy, "REAL", 100)
    monkeypatch.setattr(policies, "RESAMPLES", 5)
    monkeypatch.setattr(populations, "RESAMPLES", 5)
    monkeypatch.setattr(shapes_repair, "WHOLE", {"re-noised": ("renoise", {"where": "everywhere"})})
    monkeypatch.setattr(uplift, "LEARN", 32)
    monkeypatch.setattr(where_to_correct, "RESAMPLES", 5)
    few = ("outcome", "calibrated", "trajectory_variance")
    monkeypatch.setattr(shapes_set, "NAMES", few)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    given = f"--runs 400 --points 150 --shapes-runs 400 --cache {folder} --out {folder / 'results'}"
    monkeypatch.setattr(sys, "argv", ["truth", *given.split(), *more])
    truth.main()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_measures(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, monkeypatch, "--only", part)
    assert list((folder / "results").glob(f"{part}*.json"))


def test_every_table_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, monkeypatch, "--resume", *[w for p in PARTS for w in ("--only", p)])
    assert capsys.readouterr().out.count("there already") == len(PARTS)
    results: dict[str, Any] = {
        path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")
    }
    assert set(report.written(results)) == set(report.TABLES)
    given = f"{folder / 'results'} --out {folder / 'tables'} --images {folder / 'images'}"
    monkeypatch.setattr(sys, "argv", ["truth", *given.split()])
    report.main()
    assert {path.stem for path in (folder / "tables").iterdir()} == set(report.TABLES)
    assert [path.name for path in (folder / "images").iterdir()] == ["truth-risk-coverage.png"]
    assert results["grid"]["points"] == 150
    assert len(results["natural-8"]["rows"]) >= 10

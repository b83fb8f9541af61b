"""Every part of the bench at a tiny size, from nothing to the filled page."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "benchmarks" / "truth"
sys.path[:0] = [str(ROOT / "benchmarks"), str(BENCH)]
# ruff: noqa: E402
import committee
import every_correction
import judge_check
import noise_energy
import policies
import report
import shapes_repair
import shapes_set
import uplift
import where_to_correct
from marked_tables import fill

from asced_analysis.evaluation import populations

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
    spec = importlib.util.spec_from_file_location("truth_run", BENCH / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = f"--runs 400 --points 150 --shapes-runs 400 --cache {folder} --out {folder / 'results'}"
    monkeypatch.setattr(sys, "argv", ["run.py", *given.split(), *more])
    module.main()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_measures(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, monkeypatch, "--only", part)
    assert list((folder / "results").glob(f"{part}*.json"))


def test_the_page_is_filled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, monkeypatch, "--resume", *[w for p in PARTS for w in ("--only", p)])
    assert capsys.readouterr().out.count("there already") == len(PARTS)
    results: dict[str, Any] = {
        path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")
    }
    assert set(report.written(results)) == set(report.TABLES)
    page = (ROOT / "docs" / "truth.md").read_text(encoding="utf-8")
    text, missing = fill(page, report.written(results))
    assert not missing
    assert f"{results['grid']['points']}" == "150"
    assert text.count("<!-- end -->") == page.count("<!-- end -->")
    assert len(results["natural-8"]["rows"]) >= 10

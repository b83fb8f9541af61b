"""Reports about a pipeline of one's own, and inputs that do not belong together."""

from __future__ import annotations

from dataclasses import replace
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis import calibrate
from asced_analysis.evaluation import evaluate
from asced_analysis.replay import replay
from asced_analysis.report import write_report
from asced_analysis.report.corrections import evaluation_section
from asced_analysis.report.sections import case_study_section
from asced_cli.main import run
from asced_stores import open_runs
from asced_stores.errors import InputError


@pytest.fixture(scope="module")
def corrected(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    mask = np.zeros((16, 16), bool)
    mask[4:9, 5:10] = True
    path = tmp_path_factory.mktemp("report-pipeline") / "corrected.zarr"
    replay(tiny_runs, path, masks={3: mask, 8: mask.T}, step=6, pipeline=tiny_pipeline)
    return path


def test_report_evaluates_with_the_pipeline_given(
    tiny_runs: Path,
    corrected: Path,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "report.html"
    command = ["report", str(tiny_runs), "--replay", str(corrected), "--out", str(out)]
    assert run(command) == 2
    complaint = capsys.readouterr().err
    assert "pipeline of one's own" in complaint
    assert "--pipeline FOLDER" in complaint
    assert "DDIMPipeline" in complaint
    assert not out.exists()
    assert run([*command, "--pipeline", str(tiny_folder)]) == 0
    text = out.read_text()
    assert "2 of 2 flagged runs" in text
    assert "2 flagged runs are too few to say what the correction" in text
    assert "no clear difference" not in text
    assert "controls: another run&#39;s mask" in text  # sampled with this pipeline


def test_an_evaluation_of_another_replay_is_refused(
    tiny_runs: Path, corrected: Path, tmp_path: Path
) -> None:
    own = evaluate(tiny_runs, corrected, controls=False)
    out = tmp_path / "report.html"
    for name, value in (("replay_of", "0" * 32), ("runs", 19), ("flagged", 1)):
        other = replace(own, **{name: value})
        with pytest.raises(InputError, match=f"another replay: its {name} is {value}"):
            write_report(tiny_runs, out, replay=corrected, evaluation=other)
    assert not out.exists()
    write_report(tiny_runs, out, replay=corrected, evaluation=own)
    assert out.exists()


@pytest.mark.parametrize(("where", "place"), [("mask", "flagged"), ("foreground", "renewed")])
def test_the_case_study_names_what_was_edited(
    tiny_runs: Path, corrected: Path, where: str, place: str
) -> None:
    corrected = open_runs(corrected).assign_attrs(strategy_parameters={"where": where})
    caption = case_study_section(open_runs(tiny_runs), corrected, 3).figures[0].caption
    assert f"inside and outside the {place} region" in caption


def test_parts_of_a_figure_carry_its_name(tiny_runs: Path, corrected: Path) -> None:
    groups = evaluation_section(evaluate(tiny_runs, corrected, controls=False)).groups
    names = [name for one in groups for name, *_ in one.table.rows]
    assert "flagged, change of local distance to the other runs, in the damaged tenth" in names
    assert len(set(names)) == len(names)


def test_thresholds_of_another_model_are_refused(
    tiny_runs: Path, corrected: Path, tmp_path: Path
) -> None:
    own = calibrate(tiny_runs, "calibrated", false_alarm_rate=0.3)
    evaluation = evaluate(tiny_runs, corrected, controls=False)
    foreign = changed(
        own, fingerprint={**own.fingerprint, "model_fingerprint": "sha256:" + "0" * 64}
    )
    for parts in ({}, {"replay": corrected, "evaluation": evaluation}):
        with pytest.raises(InputError, match="model_fingerprint"):
            write_report(tiny_runs, tmp_path / "r.html", thresholds=foreign, **parts)
    write_report(
        tiny_runs, tmp_path / "r.html", thresholds=own, replay=corrected, evaluation=evaluation
    )

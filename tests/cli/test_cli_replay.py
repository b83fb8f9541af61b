"""``asced replay`` and ``asced evaluate`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asced_analysis.calibration import calibrate
from asced_cli.main import run
from asced_recorders import record


@pytest.fixture(scope="module")
def folder(tiny_folder: Path, tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli-replay")
    record(tiny_pipeline, path / "runs.zarr", runs=60, steps=10, batch_size=20, checkpoints=(5,))
    calibrate(path / "runs.zarr", "calibrated", false_alarm_rate=0.3).save(path / "t.json")
    return path


def test_the_path(folder: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = str(folder / "runs.zarr"), str(folder / "corrected.zarr")
    pipe = ["--pipeline", str(tiny_folder)]
    assert run(["replay", runs, "--strategy", "none", "--out", f"{out}.none", *pipe]) == 0
    assert "60 of 60 uncorrected runs came back bit for bit" in capsys.readouterr().out
    command = ["replay", runs, "--thresholds", str(folder / "t.json"), "--out", out, "--json"]
    assert run([*command, *pipe]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert replayed["exactness"]["bit_exact"]
    assert 0 < replayed["flagged"] < 60
    result = folder / "evaluation.json"
    assert run(["evaluate", runs, out, "--out", str(result), *pipe]) == 0
    table = capsys.readouterr().out
    assert "effect against the best control, all" in table
    assert json.loads(result.read_text())["flagged"] == replayed["flagged"]


def test_strategies_and_their_parameters(
    folder: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["replay", str(folder / "runs.zarr"), "--thresholds", str(folder / "t.json")]
    command += ["--pipeline", str(tiny_folder), "--start", "5", "--only-flagged", "--json"]
    for number, (options, expected) in enumerate(
        (
            (
                [
                    "renoise",
                    "--where",
                    "foreground",
                    "--renoise-step",
                    "8",
                    "--set",
                    "reverse_step=2",
                ],
                {"where": "foreground", "renoise_steps": [8.0], "reverse_step": 2},
            ),
            (
                ["best_of", "--draws", "2", "--choose", "8", "--teacher", "patches"],
                {"draws": 2, "choose": 8.0, "where": "foreground"},
            ),
            (["ttc", "--set", "perturbation=multiplicative"], {"perturbation": "multiplicative"}),
        )
    ):
        out = str(tmp_path / f"{number}.zarr")
        assert run([*command, "--out", out, "--strategy", *options]) == 0
        done = json.loads(capsys.readouterr().out)
        assert done["strategy"] == options[0]
        assert expected.items() <= done["parameters"].items()
    for setting, message in (("reverse_step", "NAME=VALUE"), ("colour=1", "no parameter")):
        assert run([*command, "--out", "x.zarr", "--strategy", "ttc", "--set", setting]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "{runs}", "--out", "x.zarr"], "needs thresholds"),
        (["replay", "{runs}", "--strategy", "none", "--start", "4", "--out", "x.zarr"], "4"),
        (["replay", "{runs}", "--start", "late", "--out", "x.zarr"], "init or a step"),
        (["replay", "nowhere.zarr", "--strategy", "none", "--out", "x.zarr"], "nowhere"),
        (["replay", "{runs}", "--strategy", "sorcery", "--out", "x.zarr"], "sorcery"),
        (["replay", "{runs}", "--thresholds", "no.json", "--out", "x.zarr"], "no.json"),
        (["evaluate", "{runs}", "{runs}"], "the same store"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str],
    message: str,
    folder: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [part.format(runs=folder / "runs.zarr") for part in arguments]
    status = run([*filled, "--pipeline", str(tiny_folder)])
    captured = capsys.readouterr()
    assert status in (2, 3)
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "x.zarr").exists()


def test_another_models_thresholds(
    folder: Path, tiny_pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((folder / "t.json").read_text())
    content["fingerprint"]["model_fingerprint"] = "sha256:" + "0" * 64
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    command = ["replay", str(folder / "runs.zarr"), "--thresholds", str(path)]
    assert run([*command, "--out", str(tmp_path / "x.zarr")]) == 2
    assert "model_fingerprint" in capsys.readouterr().err

"""``asced calibrate``, ``detect`` and ``export``: output, exit status, nothing half-written."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.thresholds.document import Thresholds
from asced_cli.main import run
from asced_recorders import record
from asced_stores.testing import synthetic_store

SHAPE = (1, 16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("commands")
    synthetic_store(path / "runs.zarr", runs=128, steps=12, shape=SHAPE, batch_size=32)
    synthetic_store(path / "finer.zarr", runs=64, steps=24, shape=SHAPE, batch_size=32, seed=900)
    synthetic_store(path / "wide.zarr", runs=64, steps=12, shape=(1, 16, 20), batch_size=32)
    command = ["calibrate", str(path / "runs.zarr"), "--false-alarm-rate", "0.1"]
    assert run([*command, "--out", str(path / "thresholds.json")]) == 0
    return path


def test_calibrate_prints_what_is_promised(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["calibrate", str(folder / "runs.zarr"), "--false-alarm-rate", "0.1"]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert "ttc, at 0.50 of sampling" in text
    assert "10 % of all runs" in text
    assert "0.01: 99" in text
    assert run([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["guarantee"]["promised"] == 0.1
    assert content["level"] == Thresholds.load(folder / "thresholds.json").levels.level


def test_parameters_of_the_variant(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    command = ["calibrate", str(folder / "runs.zarr"), "--false-alarm-rate", "0.1"]
    given = ["--set", "combine=peak", "--set", "floor=0.01", "--set"]
    assert run([*command, *given, "by_position=false", "--out", str(out)]) == 0
    parameters = Thresholds.load(out).parameters
    assert (parameters["combine"], parameters["floor"]) == ("peak", 0.01)
    assert parameters["by_position"] is False
    capsys.readouterr()
    for wrong, said in (
        ("combine", "NAME=VALUE"),
        ("magic=1", "magic"),
        ("combine=magic", "magic"),
    ):
        assert run([*command, "--set", wrong]) == 2
        assert said in capsys.readouterr().err


def test_bad_input_ends_with_status_two_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = str(folder / "runs.zarr"), str(tmp_path / "out.json")
    assert run(["calibrate", store, "--false-alarm-rate", "0.001", "--out", out]) == 2
    assert (
        "needs 999 runs to calibrate on to promise 0.001; of these 128 runs it has 51"
        in capsys.readouterr().err
    )
    assert run(["calibrate", store, "--out", str(folder / "thresholds.json")]) == 2
    assert "exists" in capsys.readouterr().err
    assert run(["calibrate", str(tmp_path / "none.zarr"), "--out", out]) == 2
    assert run(["calibrate", store, "--variant", "magic", "--out", out]) == 2
    assert run(["calibrate", store, "--transfer", store, "--check", store]) == 2
    assert list(tmp_path.iterdir()) == []


def test_transfer_and_check(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thresholds, finer = str(folder / "thresholds.json"), str(folder / "finer.zarr")
    out = tmp_path / "known.json"
    assert run(["calibrate", thresholds, "--transfer", finer, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["transfer"]["steps"] == 24
    assert len(Thresholds.load(out).transfers) == 1
    assert run(["calibrate", thresholds, "--check", str(folder / "runs.zarr")]) == 0
    assert "none found" in capsys.readouterr().out


def test_drift_ends_with_status_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((folder / "thresholds.json").read_text())
    for counts in content["counts"]["cells"]:
        counts["bins"] = [bin_ + 200 for bin_ in counts["bins"]]
    (tmp_path / "old.json").write_text(json.dumps(content))
    store = str(folder / "runs.zarr")
    assert run(["calibrate", str(tmp_path / "old.json"), "--check", store]) == 1
    assert "recalibrate" in capsys.readouterr().out


def test_detect(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thresholds, out = str(folder / "thresholds.json"), tmp_path / "flags.csv"
    command = ["detect", str(folder / "runs.zarr"), "--thresholds", thresholds]
    assert run([*command, "--out", str(out), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["runs"] == 128
    assert content["flagged"] == len(content["flagged_runs"])
    assert len(out.read_text().splitlines()) == 129
    wide = ["detect", str(folder / "wide.zarr"), "--thresholds", thresholds]
    assert run(wide) == 2
    assert "sample_shape is [1, 16, 20]" in capsys.readouterr().err
    assert run([*wide, "--override"]) == 2  # they were calibrated place by place
    assert "by position are for maps of (16, 16)" in capsys.readouterr().err
    assert run(["detect", str(folder / "runs.zarr"), "--thresholds", str(out)]) == 2


def test_export(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thresholds = str(folder / "thresholds.json")
    bundle, schema = tmp_path / "bundle", tmp_path / "schema.json"
    assert run(["export", thresholds, "--format", "bundle", "--out", str(bundle)]) == 0
    assert (bundle / "conformance.json").exists()
    assert run(["export", "--format", "schema", "--out", str(schema)]) == 0
    assert json.loads(schema.read_text())["title"].startswith("Thresholds")
    assert run(["export", thresholds, "--format", "schema", "--out", str(schema)]) == 2
    assert run(["export", "--format", "bundle", "--out", str(tmp_path / "b")]) == 2
    assert "needs a thresholds file" in capsys.readouterr().err


def test_a_promise_names_the_labels_and_not_where_they_lie(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text(
        "run,label\n" + "".join(f"{run},0\n" for run in range(128)), "utf-8"
    )
    command = ["calibrate", str(folder / "runs.zarr"), "--false-alarm-rate", "0.2", "--json"]
    assert run([*command, "--normal", str(tmp_path / "mine.csv")]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["guarantee"]["population"] == "runs called normal by mine"


def test_a_lookahead_from_the_command_line(
    tiny_pipeline: Any, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = str(tmp_path / "runs.zarr"), str(tmp_path / "lookahead.json")
    record(tiny_pipeline, store, runs=128, steps=10, batch_size=64, seed=3)
    command = ["calibrate", store, "--method", "outcome", "--false-alarm-rate", "0.2"]
    assert run([*command, "--lookahead", "0.3", "--out", out]) == 2  # the store knows no path
    assert "--pipeline" in capsys.readouterr().err
    asked = ["--pipeline", str(tiny_folder)]
    assert run([*command, "--lookahead", "0.3", *asked, "--out", out]) == 0
    assert Thresholds.load(out).parameters["lookahead"] is not None
    detect = ["detect", store, "--thresholds", out, "--json"]
    assert run(detect) == 2
    capsys.readouterr()
    assert run([*detect, *asked]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["flagged"] < 128
    view = ["view", store, "--thresholds", out, "--no-cache"]
    assert run(view) == 2
    assert "--pipeline" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends where it would serve
        assert run([*view, *asked, "--port", str(taken.getsockname()[1])]) == 2
    assert "--port 0" in capsys.readouterr().err
    assert run(["calibrate", out, "--check", store, *asked]) == 0
    assert run(["calibrate", out, "--transfer", store, *asked]) == 0
    assert run(["calibrate", store, *asked]) == 2
    assert run(["calibrate", store, "--lookahead", "0.3"]) == 2
    assert "--method outcome" in capsys.readouterr().err


def test_who_teaches_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, scores = tmp_path / "out.json", tmp_path / "scores.csv"
    scores.write_text("run,score\n" + "\n".join(f"{run},{run % 7}" for run in range(128)))
    network = tmp_path / "mine.py"
    network.write_text("def halve(sample, alpha, sigma):\n    return sample / 2\n")
    real = tmp_path / "real.npz"
    np.savez(real, images=np.random.default_rng(0).integers(0, 255, (40, 16, 16), np.uint8))
    command = ["calibrate", str(folder / "runs.zarr"), "--method", "outcome"]
    command += ["--false-alarm-rate", "0.2", "--out", str(out), "--overwrite"]
    for given, name, reference in (
        (["--outcomes", str(scores)], "outcomes of scores.csv", "given"),
        (["--network", f"{network}:halve"], "self-consistency", "model"),
        (["--real", str(real), "--keep-content"], "patches", "real"),
        (["--teacher", "patches", "--within-content"], "patches", "population"),
    ):
        assert run([*command, *given]) == 0
        shown = capsys.readouterr().out
        assert any(line.startswith("teacher ") and name in line for line in shown.splitlines())
        assert "rank correlation with" in shown
        taught = Thresholds.load(out).teacher
        assert taught is not None
        assert (taught["name"], taught["reference"]["kind"]) == (name, reference)
    assert taught["content"]["taken_off"] is True
    for given, said in (
        (["--teacher", "nobody"], "no features are called"),
        (["--teacher", "judge"], "cannot teach"),
        (["--real", str(tmp_path / "no")], "no real images at"),
        (["--outcomes", str(scores), "--real", str(real)], "teach by themselves"),
    ):
        assert run([*command, *given]) == 2
        assert said in capsys.readouterr().err

"""The way from recording to flags on object storage, by ``--endpoint``, as on a disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_cli.command import ENDPOINT
from asced_cli.main import run
from asced_stores import TrajectoryStore, open_runs


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_record_calibrate_and_detect_on_object_storage(
    tiny_folder: Path,
    s3_endpoint: str,
    s3_path: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = ("--endpoint", s3_endpoint, "--json")
    settings = ["--runs", "48", "--steps", "8", "--batch-size", "16", "--device", "cpu"]
    record = ["record", "--pipeline", str(tiny_folder), "--out", s3_path, *settings]
    assert run([*record, *place]) == 0
    recorded = said(capsys)
    assert (recorded["runs"], recorded["batches"]) == (48, 3)
    assert run([*record, "--resume", *place]) == 0
    assert said(capsys)["runs"] == 0
    assert run(["verify", s3_path, *place]) == 0
    assert said(capsys)["runs"] == 48
    assert run(["stats", s3_path, *place]) == 0
    stats = said(capsys)
    assert stats["runs"] == 48

    local = tmp_path / "local.zarr"
    assert run([*record[:4], str(local), *settings, "--json"]) == 0
    capsys.readouterr()
    assert run(["stats", str(local), "--json"]) == 0
    assert said(capsys)["median"] == stats["median"]

    thresholds = str(tmp_path / "t.json")
    rate = ("--false-alarm-rate", "0.2")
    assert run(["calibrate", s3_path, *rate, "--out", thresholds, *place]) == 0
    capsys.readouterr()
    assert run(["detect", s3_path, "--thresholds", thresholds, *place]) == 0
    there = said(capsys)
    assert run(["detect", str(local), "--thresholds", thresholds, "--json"]) == 0
    assert said(capsys)["flagged"] == there["flagged"]
    assert run(["seal", s3_path, *place]) == 0
    assert run(["info", s3_path, *place]) == 0
    assert ENDPOINT not in os.environ


def test_flagged_runs_are_kept_and_all_are_counted(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--steps", "8", "--batch-size", "16", "--device", "cpu", "--json"]
    record = ["record", "--pipeline", str(tiny_folder), *settings]
    teaching, thresholds = str(tmp_path / "teaching.zarr"), str(tmp_path / "t.json")
    assert run([*record, "--runs", "96", "--seed", "1000", "--out", teaching]) == 0
    rate = ("--false-alarm-rate", "0.2")
    assert run(["calibrate", teaching, *rate, "--out", thresholds, "--json"]) == 0
    whole, few = str(tmp_path / "whole.zarr"), str(tmp_path / "few.zarr")
    assert run([*record, "--runs", "80", "--out", whole]) == 0
    capsys.readouterr()
    assert run(["detect", whole, "--thresholds", thresholds, "--json"]) == 0
    flagged = said(capsys)["flagged_runs"]
    assert 0 < len(flagged) < 40

    keep = ["--keep", "flagged", "--thresholds", thresholds]
    assert run([*record, "--runs", "80", *keep, "--out", few]) == 0
    recorded = said(capsys)
    assert (recorded["runs"], recorded["kept"]) == (80, len(flagged))
    files = [
        file for file in Path(few).rglob("*") if file.is_file() and "zarr.json" not in file.name
    ]
    on_disk = sum(file.stat().st_size for file in files)
    assert recorded["bytes"] == pytest.approx(on_disk, rel=0.05)
    assert open_runs(few)["run"].values.tolist() == flagged

    assert run(["verify", few, "--json"]) == 0
    checked = said(capsys)
    assert (checked["runs"], checked["observed"]) == (len(flagged), 80)
    assert run(["info", few, "--json"]) == 0
    assert said(capsys)["observed"] == 80
    assert run(["info", few]) == 0
    assert "statistics of 80" in capsys.readouterr().out
    for signal in ("weighted_score", "innovation"):
        assert run(["stats", few, "--signal", signal, "--json"]) == 0
        seen = said(capsys)
        assert run(["stats", whole, "--signal", signal, "--json"]) == 0
        assert seen == said(capsys)
        assert seen["runs"] == 80
    assert run(["stats", few, "--measure", "magnitude", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["runs"] == len(flagged)
    assert "kept in full" in captured.err

    key = Path(few, "observations", "0.npz")
    data = bytearray(key.read_bytes())
    data[len(data) // 2] ^= 8
    key.write_bytes(data)
    assert run(["verify", few, "--json"]) == 1
    assert said(capsys)["problems"][0]["key"] == "observations/0.npz"
    assert run(["verify", few, "--drop", "--json"]) == 1
    capsys.readouterr()
    assert not key.exists()
    assert run([*record, "--runs", "80", *keep, "--out", few, "--resume"]) == 0
    assert said(capsys)["kept"] == len(flagged)
    assert TrajectoryStore.open(few).verify().ok


def test_observations_go_along_with_merge_and_repack_and_not_with_select(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--runs", "24", "--steps", "6", "--batch-size", "8", "--keep", "sample:0.3"]
    record = ["record", "--pipeline", str(tiny_folder), *settings, "--device", "cpu"]
    stores = [str(tmp_path / f"{seed}.zarr") for seed in (0, 24)]
    for seed, path in zip(("0", "24"), stores, strict=True):
        assert run([*record, "--seed", seed, "--out", path]) == 0
    whole, merged = str(tmp_path / "whole.zarr"), str(tmp_path / "merged.zarr")
    assert (
        run([*record[:3], "--runs", "48", *settings[2:6], "--device", "cpu", "--out", whole]) == 0
    )
    assert run(["merge", *stores, "--out", merged]) == 0
    repacked, chosen = str(tmp_path / "repacked.zarr"), str(tmp_path / "chosen.zarr")
    assert run(["repack", merged, "--batch-size", "2", "--out", repacked]) == 0
    kept = open_runs(merged)
    np.testing.assert_array_equal(kept["seed"].values, kept["run"].values)  # 24 + i, seeded 24 + i
    assert run(["select", merged, "--runs", str(kept["run"].values[0]), "--out", chosen]) == 0
    capsys.readouterr()
    assert run(["stats", whole, "--json"]) == 0
    expected = said(capsys)
    for path in (merged, repacked):
        assert TrajectoryStore.open(path).verify().observed == 48
        assert run(["stats", path, "--json"]) == 0
        assert said(capsys) == expected
    assert run(["stats", chosen, "--json"]) == 0
    assert said(capsys)["runs"] == 1
    assert run(["merge", merged, whole, "--out", str(tmp_path / "no.zarr")]) == 2
    assert "--keep" in capsys.readouterr().err

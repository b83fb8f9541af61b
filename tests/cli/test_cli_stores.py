"""Commands about stores, as a shell would call them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asced_cli.main import run
from asced_stores import TrajectoryStore, open_runs
from asced_stores.testing import synthetic_store

OPTIONS = {"runs": 10, "batch_size": 4, "steps": 3, "shape": (1, 8, 8)}


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "runs.zarr"
    synthetic_store(path, failed=(5,), **OPTIONS)  # type: ignore[arg-type]
    return str(path)


def test_info_tells_runs_completeness_and_writers(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["info", store, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"] == {"complete": 9, "failed": 1}
    assert facts["batches"] == {"committed": 3, "planned": 3, "missing": []}
    assert facts["writers"][0]["runs"] == 10
    assert run(["info", store]) == 0
    shown = capsys.readouterr().out
    assert "9 complete, 1 failed" in shown
    assert "rank 0 of 1" in shown
    (Path(store) / "commits/1.json").unlink()
    assert run(["info", store]) == 0
    assert "batches 1" in capsys.readouterr().out


def test_verify_drop_and_its_exit_status(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", store]) == 0
    shard = Path(store) / "eps/c/1/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    capsys.readouterr()
    assert run(["verify", store]) == 1
    assert "eps/c/1/0/0/0/0: does not match its checksum" in capsys.readouterr().out
    assert run(["verify", store, "--drop", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["dropped"] == [1]
    assert run(["verify", store]) == 0


def test_seal_and_reopen(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["seal", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sealed": True, "runs": 10, "batches": 3}
    assert TrajectoryStore.open(store).sealed is not None
    assert run(["seal", store, "--reopen"]) == 0
    assert TrajectoryStore.open(store).sealed is None


def test_select_repack_and_merge(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some, wide, both = (str(tmp_path / f"{name}.zarr") for name in ("some", "wide", "both"))
    assert run(["select", store, "--runs", "0-2,7", "--out", some]) == 0
    assert open_runs(some)["run"].values.tolist() == [0, 1, 2, 7]
    assert run(["repack", store, "--dtype", "float32", "--out", wide]) == 0
    assert str(open_runs(wide)["eps"].dtype) == "float32"
    assert run(["merge", store, some, "--out", both]) == 0
    assert open_runs(both).sizes["run"] == 13
    capsys.readouterr()
    for arguments, match in (
        (["select", store, "--runs", "5", "--out", f"{some}2"], "another status"),
        (["select", store, "--runs", "9-2", "--out", f"{some}2"], "0-9"),
        (["select", store, "--runs", "x", "--out", f"{some}2"], "0-9"),
        (["select", store, "--out", some], "exists"),
        (["merge", store, wide, "--out", f"{both}2"], "dtype"),
        (["merge", store, store, "--out", f"{both}2"], "more than one"),
        (["info", str(tmp_path / "nothing.zarr")], "no store"),
    ):
        assert run(arguments) == 2
        assert match in capsys.readouterr().err
    assert not Path(f"{some}2").exists()
    assert not Path(f"{both}2").exists()


def test_an_interrupted_copy_is_resumed(store: str, tmp_path: Path) -> None:
    out = str(tmp_path / "copy.zarr")
    assert run(["repack", store, "--batch-size", "2", "--out", out]) == 0
    copy = TrajectoryStore.open(out)
    (Path(out) / "commits/3.json").unlink()
    assert run(["repack", store, "--batch-size", "2", "--out", out, "--resume"]) == 0
    assert copy.verify().ok
    assert copy.verify().runs == 10
    assert run(["repack", store, "--batch-size", "3", "--out", out, "--resume"]) == 2


def test_no_command_replaces_its_own_source(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("select", "repack", "merge"):
        assert run([command, store, "--out", f"{store}/", "--overwrite"]) == 2
        assert "is the store that is read" in capsys.readouterr().err
    assert run(["repack", store, "--out", store, "--resume"]) == 2
    assert TrajectoryStore.open(store).verify().ok
    assert open_runs(store).sizes["run"] == 9

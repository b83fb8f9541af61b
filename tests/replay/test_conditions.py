"""Replay where the bits cannot come back: the difference is measured, and what differs is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asced_analysis.replay import exactness, replay
from asced_cli.main import run
from asced_recorders import record
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

MASK = np.zeros((16, 16), bool)
MASK[4:9, 5:10] = True


def samples(store: TrajectoryStore) -> np.ndarray:
    return np.asarray(open_runs(store.path)["sample"].values)


def test_what_batches_and_threads_change_is_measured(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"strategy": "none", "pipeline": tiny_pipeline}
    recorded = np.asarray(open_runs(tiny_runs)["sample"].values)
    replayed = replay(tiny_runs, tmp_path / "five.zarr", batch_size=5, **options)
    found = exactness(replayed)
    assert found.runs == 20
    assert found.conditions == ["5 runs together instead of the recorded batches"]
    assert found.largest_difference == np.abs(samples(replayed) - recorded).max() < 1e-3
    assert set(open_runs(replayed.path)["evaluations"].values) == {10}
    few = record(tiny_pipeline, tmp_path / "few.zarr", runs=1, steps=2, batch_size=1)
    recorded = np.asarray(open_runs(few.path)["sample"].values)
    here = replay(few, tmp_path / "threads.zarr", threads=2, **options)
    assert exactness(here).conditions == ["2 threads instead of 1"]
    assert exactness(here).largest_difference == np.abs(samples(here) - recorded).max() < 1e-3
    assert "2 threads instead of 1" in exactness(here).sentence() or exactness(here).bit_exact
    mine = torch.get_num_threads()
    with pytest.raises(InputError, match="at least 1"):
        replay(tiny_runs, tmp_path / "no.zarr", threads=0, **options)
    with pytest.raises(InputError, match="at least 1"):
        replay(tiny_runs, tmp_path / "no.zarr", batch_size=0, **options)
    assert torch.get_num_threads() == mine


def test_another_version_is_named_beside_what_it_changes(
    tiny_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asced_recorders.pipelines.environment as environment

    store = record(tiny_pipeline, tmp_path / "r.zarr", runs=2, steps=3, batch_size=2)
    monkeypatch.setattr(environment, "version", lambda name: "0.1.2")
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    replayed = replay(store, tmp_path / "n.zarr", strategy="none", pipeline=tiny_pipeline)
    found = exactness(replayed)
    assert [text.split(" instead")[0] for text in found.conditions] == [
        "torch 9.9.9",
        "diffusers 0.1.2",
    ]
    assert found.runs == 2  # sampled, compared and not merely copied
    recorded = np.asarray(open_runs(store.path)["sample"].values)
    assert found.largest_difference == np.abs(samples(replayed) - recorded).max()


def test_another_device_is_named() -> None:
    from types import SimpleNamespace

    from asced_recorders.pipelines.environment import differences

    here = SimpleNamespace(device=torch.device("cpu"))
    attributes = {"device": "cuda", "threads": 4}
    found = differences(attributes, here)
    assert found[0] == "device cpu instead of cuda"
    assert "instead of 4" in found[1]
    assert differences({"device": "cpu"}, here) == []


def test_another_way_of_computing_is_named(tiny_pipeline: Any, tmp_path: Path) -> None:
    from asced_recorders.pipelines.environment import differences

    with torch.autocast("cpu", torch.bfloat16):
        store = record(tiny_pipeline, tmp_path / "r.zarr", runs=1, steps=2, batch_size=1)
    compute = store.spec.attributes["compute"] | {"compiled": ["unet"]}
    compute["attention"] = {"unet": ["OtherProcessor"]}
    assert differences({"compute": compute}, tiny_pipeline) == [
        "autocast none instead of bfloat16",
        "attention of unet none instead of OtherProcessor",
        "compiled none instead of unet",
    ]
    here = replay(store, tmp_path / "a.zarr", strategy="none", pipeline=tiny_pipeline)
    assert exactness(here).conditions == ["autocast none instead of bfloat16"]
    with torch.autocast("cpu", torch.bfloat16):
        again = replay(store, tmp_path / "b.zarr", strategy="none", pipeline=tiny_pipeline)
    assert exactness(again).bit_exact


@pytest.fixture(scope="module")
def foreign(tiny_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny runs as if they came from another device, with another torch."""
    path = tmp_path_factory.mktemp("foreign") / "runs.zarr"
    shutil.copytree(tiny_runs, path)
    root = path / "zarr.json"
    content = json.loads(root.read_text())
    content["attributes"]["device"] = "cuda"
    content["attributes"]["versions"]["torch"] = "1.0.0"
    root.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("size", ["5", "8"])
def test_the_command_says_what_differs_and_by_how_much(
    size: str,
    foreign: Path,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "again.zarr"
    command = ["replay", str(foreign), "--strategy", "none", "--pipeline", str(tiny_folder)]
    assert run([*command, "--batch-size", size, "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for condition in (
        f"torch {torch.__version__} instead of 1.0.0",
        "device cpu instead of cuda",
        f"{size} runs together instead of the recorded batches",
    ):
        assert condition in said
    away = np.abs(samples(TrajectoryStore.open(out)) - samples(TrajectoryStore.open(foreign)))
    same = int((away == 0).all((1, 2, 3)).sum())
    assert f"{same} of 20 uncorrected runs came back bit for bit" in said
    if same < 20:
        assert f"the largest difference is {away.max():.2g}" in said


def test_under_other_conditions_copies_are_not_compared(
    foreign: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"masks": {3: MASK}, "step": 6, "pipeline": tiny_pipeline}
    alone = exactness(replay(foreign, tmp_path / "a.zarr", only_flagged=True, **options))
    assert (alone.runs, alone.copied) == (0, 19)
    assert "19 uncorrected runs were copied, not sampled: not compared (torch" in alone.sentence()
    whole = exactness(replay(foreign, tmp_path / "b.zarr", **options))
    assert (whole.runs, whole.copied) == (19, 0)
    assert "device cpu instead of cuda" in whole.sentence()
    checkpoint = replay(foreign, tmp_path / "c.zarr", start=6, **options)
    assert (exactness(checkpoint).runs, exactness(checkpoint).copied) == (19, 0)

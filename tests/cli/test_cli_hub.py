"""`asced push` and `asced pull`: the Hub's own client, its cache, and a server on the loopback."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import TOKEN, Hub, reached

from asced_analysis.calibration import calibrate
from asced_analysis.comfyui.correcting import LoadThresholds
from asced_analysis.thresholds import Thresholds
from asced_cli.main import run
from asced_stores import TrajectoryStore
from asced_stores.errors import InputError
from asced_stores.hub import HubReference
from asced_stores.testing import synthetic_store


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that the client in this process talks to, with a cache of its own."""
    with reached(monkeypatch, tmp_path / "cache/hub") as served:
        yield served


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "runs.zarr"
    synthetic_store(path, runs=12, batch_size=4, steps=3, shape=(1, 8, 8))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", HubReference("owner/name")),
        ("hf://owner/name@v1", HubReference("owner/name", None, "v1")),
        ("hf://o/n@v1/sub/t.json", HubReference("o/n", "sub/t.json", "v1")),
        ("o/n/runs.zarr", HubReference("o/n", "runs.zarr")),
    ],
)
def test_references(text: str, expected: HubReference) -> None:
    assert HubReference.parse(text) == expected
    assert HubReference.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["owner", "o/n/../x", "", "o/n@", "o//n", "https://h/o/n"])
def test_what_is_no_repository(text: str) -> None:
    with pytest.raises(InputError, match="expected owner/name"):
        HubReference.parse(text)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thresholds with a teacher, and weights beside them."""
    folder = tmp_path_factory.mktemp("learnt")
    synthetic_store(folder / "runs.zarr", runs=100, steps=4, shape=(1, 8, 8), batch_size=100)
    made = calibrate(
        folder / "runs.zarr",
        method="outcome",
        outcomes={run: float(run % 7) for run in range(100)},
        false_alarm_rate=0.2,
        outcome={"epochs": 1},
    )
    return made.save(folder / "thresholds.json")


def test_thresholds_go_and_are_loaded_by_their_name(
    hub: Hub, learnt: Path, tmp_path: Path, caplog: Any, capsys: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    assert run(["push", str(learnt), "me/broken", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["reference"] == "hf://me/broken/thresholds.json"
    assert hub.private["model", "me/broken"]
    before = Thresholds.load(learnt)
    files = hub.files("model", "me/broken")
    assert set(files) == {"README.md", "thresholds.json", before.weights["name"]}  # type: ignore[index]
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: asced-analysis\n")
    for said in (
        'Corrector.from_file("hf://me/broken/thresholds.json")',
        "| promised false-alarm rate | 20 % of all runs |",
        "It is a promise about false alarms alone.",
        before.teacher["name"],  # type: ignore[index]
        "| sample_shape | \\[1, 8, 8] |",
    ):
        assert said in card
    loaded = Thresholds.load("hf://me/broken")
    assert loaded == before
    assert loaded.weights_bytes() == before.weights_bytes()
    assert LoadThresholds().load(" hf://me/broken") == (before,)
    assert LoadThresholds.VALIDATE_INPUTS("hf://me/broken") is True
    assert "no such repository" in str(LoadThresholds.VALIDATE_INPUTS("hf://me/none"))
    assert LoadThresholds.IS_CHANGED("hf://me/broken") == LoadThresholds.IS_CHANGED(str(learnt))
    assert run(["pull", "me/broken", str(tmp_path / "own.json")]) == 0
    assert Thresholds.load(tmp_path / "own.json").weights_bytes() == before.weights_bytes()
    assert run(["pull", "me/broken", str(tmp_path / "own.json")]) == 2
    assert run(["pull", "me/broken", str(tmp_path / "own.json"), "--overwrite"]) == 0
    assert TOKEN not in caplog.text + "".join(capsys.readouterr())

    # another process finds them through its environment, and without a server in the cache
    code = "from asced_analysis import Thresholds; print(Thresholds.load('hf://me/broken').variant)"
    cache = {"HF_HUB_CACHE": str(tmp_path / "cache/hub")}
    for more in ({"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "new")}, cache):
        offline = {} if "HF_ENDPOINT" in more else {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **more, **offline},
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == ["outcome"]


def test_a_store_goes_resumes_and_comes_back(
    hub: Hub, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from huggingface_hub import _upload_pipeline

    monkeypatch.setattr(_upload_pipeline, "COMMIT_SIZE_SCALE", [8] * 10)
    hub.commits_until_failure = 2
    assert run(["push", str(store), "me/runs"]) == 3
    error = capsys.readouterr().err
    assert "this login may not do that" in error
    assert TOKEN not in error
    first = list(hub.sent)
    assert len(first) == 16
    assert not any("commits/" in path for path in first)
    hub.commits_until_failure = None
    assert run(["push", str(store), "me/runs"]) == 0
    assert sorted(hub.sent) == sorted({*first, *hub.sent}), "nothing is sent twice"
    assert "commits/" in hub.sent[-2], "markers go last, before the card"
    files = hub.files("dataset", "me/runs")
    here = {
        f"runs.zarr/{path.relative_to(store)}": path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }
    card = files.pop("README.md").decode()
    assert files == here
    assert "| runs | 12 complete, 0 failed |" in card
    assert "asced pull me/runs/runs.zarr runs.zarr" in card
    out = tmp_path / "back.zarr"
    assert run(["pull", "me/runs", str(out)]) == 0
    assert TrajectoryStore.open(out).verify().ok
    assert {path.name for path in tmp_path.iterdir()} <= {"back.zarr", "cache"}
    synthetic_store(store.with_name("smaller") / "runs.zarr", runs=4, steps=3, shape=(1, 8, 8))
    assert run(["push", str(store.with_name("smaller") / "runs.zarr"), "me/runs"]) == 0
    assert run(["pull", "me/runs", str(out), "--overwrite"]) == 0
    assert TrajectoryStore.open(out).verify().ok
    assert len(TrajectoryStore.open(out).index) == 4


def test_a_pull_that_is_cut_short_goes_on(
    hub: Hub, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the client tries five times, a second each
    assert run(["push", str(store), "me/runs", "--no-card"]) == 0
    out = tmp_path / "back.zarr"
    hub.downloads_until_failure = 5
    assert run(["pull", "me/runs", str(out)]) == 3
    assert "the same command again goes on" in capsys.readouterr().err
    assert not out.exists()
    first = set(hub.fetched)
    hub.fetched.clear()
    hub.downloads_until_failure = None
    assert run(["pull", "me/runs", str(out)]) == 0
    assert not first & set(hub.fetched), "nothing is fetched twice"
    assert first | set(hub.fetched) == set(hub.files("dataset", "me/runs"))
    assert TrajectoryStore.open(out).verify().ok
    assert {path.name for path in tmp_path.iterdir()} <= {"back.zarr", "cache"}


def test_what_is_not_there_is_said_in_one_line(
    hub: Hub, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    hub.repositories["dataset", "me/empty"] = [("1" * 40, {})]
    hub.repositories["model", "me/empty"] = [("1" * 40, {})]
    for arguments, status, expected in (
        (["pull", "me/none", str(tmp_path / "t.json")], 3, "no such repository"),
        (["pull", "me/empty", str(tmp_path / "t.json")], 3, "holds no file thresholds.json"),
        (["pull", "me/empty@v9", str(tmp_path / "t.json")], 3, "holds no revision v9"),
        (["pull", "me/empty", str(tmp_path / "r.zarr")], 2, "holds 0 stores"),
        (["pull", "me/empty", str(tmp_path / "t.txt")], 2, "ends in .json or .zarr"),
        (["push", str(tmp_path / "no.json"), "me/x"], 2, "does not exist"),
        (["push", "s3://b/runs.zarr", "me/x"], 2, "remote"),
    ):
        assert run(arguments) == status, arguments
        assert expected in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_wrongSecret")
    assert run(["push", str(store), "me/x"]) == 3
    error = capsys.readouterr().err
    assert "HF_TOKEN" in error
    assert "wrongSecret" not in error
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert run(["pull", "me/empty", str(tmp_path / "t.json")]) == 3
    assert "does not answer" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))

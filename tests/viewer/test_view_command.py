"""``asced view`` as a user calls it, and what it says when it can't."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from asced_cli.main import run
from asced_stores.testing import synthetic_store


def view(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "asced_cli", "view", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def test_it_says_where_serves_and_stops_at_ctrl_c(looked_at: Path) -> None:
    process = view(looked_at, "--port", 0, "--no-cache", "--json")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told["runs"] == 96
    assert told["url"].startswith(f"http://127.0.0.1:{told['port']}/?token=")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(told["url"], timeout=30) as answer:
        assert b"viewer.js" in answer.read()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not error
    assert not looked_at.with_name("runs.zarr.scores").exists()


def test_a_store_that_is_missing_or_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["view", str(tmp_path / "nothing.zarr")]) != 0
    assert "nothing.zarr" in capsys.readouterr().err
    synthetic_store(tmp_path / "empty.zarr", runs=8, batches=())
    assert run(["view", str(tmp_path / "empty.zarr")]) == 2
    assert "no complete run" in capsys.readouterr().err


def test_a_port_that_is_taken(looked_at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["view", str(looked_at), "--no-cache", "--port", str(port)]) == 2
    assert "--port 0" in capsys.readouterr().err


def test_thresholds_of_something_else(
    looked_at: Path, thresholds: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thresholds.save(tmp_path / "t.json")
    synthetic_store(tmp_path / "other.zarr", runs=8, steps=25, shape=(1, 20, 20))
    arguments = ["view", str(tmp_path / "other.zarr"), "--thresholds", str(tmp_path / "t.json")]
    assert run(arguments) == 2
    assert "calibrated on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("tornado", "from asced_cli.main import run; sys.exit(run(['view', sys.argv[1]]))"),
        (
            "anywidget",
            "from asced_analysis import open_runs\n"
            "try: open_runs(sys.argv[1]).asced.explore()\n"
            "except ValueError as e: print(e, file=sys.stderr); sys.exit(2)",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_get_it(
    looked_at: Path, missing: str, code: str
) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(looked_at)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"needs {missing}: pip install 'asced-analysis[viewer]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_with_a_real_replay(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    from asced_analysis.accessor import open_runs
    from asced_analysis.replay import replay
    from asced_analysis.viewer import open_session

    mask = np.zeros((16, 16), bool)
    mask[2:9, 2:9] = True
    replay(
        tiny_runs,
        tmp_path / "corrected.zarr",
        pipeline=tiny_pipeline,
        masks={3: mask},
        strategy="ttc",
    )
    session = open_session(tiny_runs, replay=tmp_path / "corrected.zarr", keep_scores=False)
    answer = session.answer("run", {"row": 3})
    assert answer.arrays["corrected_mask"].sum() >= mask.sum()
    assert ("replay", "corrected: ttc, step 5") in answer.header["details"]
    change = session.answer("table", {}).arrays["change"]
    assert change[3] > 0
    assert not change[[0, 1, 2, *range(4, 20)]].any()
    session.close()
    synthetic_store(tmp_path / "no.zarr", runs=8)
    arguments = ["view", str(tiny_runs), "--replay", str(tmp_path / "no.zarr"), "--port", "0"]
    assert run(arguments) == 2
    assert "is no replay" in capsys.readouterr().err
    corrected = str(tmp_path / "corrected.zarr")
    for wrong in ([corrected], [str(tiny_runs), "--replay", corrected, "--beside", corrected]):
        assert run(["view", *wrong, "--port", "0"]) == 2
        assert "corrected.zarr is a replay" in capsys.readouterr().err
    process = view(tiny_runs, "--beside", corrected, "--no-cache", "--port", 0, "--json")
    assert process.stdout is not None
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    told = json.loads(process.stdout.readline())
    opener.open(told["url"], timeout=30).close()
    asked = urllib.request.Request(
        told["url"].partition("?")[0] + "api/about", b"{}", {"Content-Type": "application/json"}
    )
    with opener.open(asked, timeout=30) as answer:
        assert b'"replay": true' in answer.read()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert open_runs(tiny_runs).sizes["run"] == 20

"""The server of docs/server.py: requests at once get what they would get alone."""

from __future__ import annotations

import importlib.util
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_pipelines
import torch

from asced_analysis.calibration import calibrate
from asced_analysis.correction import Corrector
from asced_analysis.detection.apply import detect
from asced_analysis.thresholds.fingerprints import PortabilityWarning
from asced_recorders import record
from asced_stores import open_runs

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

ROOT = Path(__file__).parents[2]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("prompts", [None, ["a b", "c d"]])
def test_two_requests_at_once(
    prompts: list[str] | None, tiny_pipeline: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    pipe = tiny_pipeline if prompts is None else tiny_pipelines.stable_diffusion()
    pipe.set_progress_bar_config(disable=True)
    steps, path = 8, tmp_path / "runs.zarr"
    record(pipe, path, runs=32, steps=steps, batch_size=16, prompts=prompts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        thresholds = calibrate(path, "calibrated", false_alarm_rate=0.5)
    client = TestClient(module(ROOT / "docs" / "server.py").make_app(pipe, thresholds))

    call = {} if prompts is None else {"prompt": "a b"}
    runs = range(32) if prompts is None else range(0, 32, 2)  # of this prompt; run i has seed i
    flagged = detect(open_runs(path), thresholds)["flagged"].values
    order = sorted(runs, key=lambda run: flagged[run])
    seeds = [*order[:3], *order[-3:]]

    def ask(seed: int) -> tuple[bytes, str]:
        answer = client.post("/images", json={"seed": seed, "steps": steps, **call})
        assert answer.status_code == 200, answer.text
        return answer.content, answer.headers["asced-flagged"]

    alone = [ask(seed) for seed in seeds]
    assert {flag for _, flag in alone} == {"true", "false"}
    with ThreadPoolExecutor(6) as clients:
        assert list(clients.map(ask, seeds)) == alone
    corrector = Corrector(thresholds)
    with corrector.attach(pipe):
        pipe(**call, num_inference_steps=steps, generator=torch.Generator().manual_seed(seeds[3]))
    assert str(corrector.report[0].flagged).lower() == alone[3][1]

    with pytest.warns(PortabilityWarning):
        few = client.post("/images", json={"steps": 2, **call})
    assert few.status_code == 422
    assert "never crosses" in few.json()["detail"] or "steps" in few.json()["detail"]
    assert client.post("/images", json={"steps": 0}).status_code == 422
    assert ask(seeds[0]) == alone[0]

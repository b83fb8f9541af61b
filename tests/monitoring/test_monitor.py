"""Metrics of a server: what a corrector and a recorder report is what Prometheus scrapes."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry, start_http_server

from asced_analysis.calibration import calibrate
from asced_analysis.correction import Corrector
from asced_analysis.monitoring import Monitor, write_dashboard
from asced_analysis.thresholds.document import Thresholds
from asced_recorders import Recorder, record
from asced_stores import open_runs
from asced_stores.errors import InputError

STEPS = 8


@pytest.fixture(scope="module")
def runs(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("monitored") / "runs.zarr"
    record(tiny_pipeline, path, runs=60, steps=STEPS, batch_size=30, seed=0)
    return path


@pytest.fixture(scope="module")
def thresholds(runs: Path) -> Thresholds:
    return calibrate(runs, "calibrated", false_alarm_rate=0.3, window=(0.1, 0.7))


@pytest.fixture
def monitor(thresholds: Thresholds) -> Monitor:
    return Monitor(thresholds, name="tiny", registry=CollectorRegistry())


def read(monitor: Monitor, name: str, **labels: str) -> float:
    value = monitor.registry.get_sample_value(f"asced_{name}", {"monitor": monitor.name, **labels})
    assert value is not None, name
    return float(value)


def generators(seeds: range) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("strategy", [None, "none"])
def test_a_corrector_is_counted(
    strategy: str | None, monitor: Monitor, thresholds: Thresholds, tiny_pipeline: Any
) -> None:
    corrector = Corrector(thresholds, strategy=strategy, monitor=monitor)
    flagged, scores, plain = 0, [], []
    with corrector.attach(tiny_pipeline):
        for start in (0, 12):
            images = tiny_pipeline(
                batch_size=12,
                num_inference_steps=STEPS,
                generator=generators(range(start, start + 12)),
                output_type="np",
            ).images
            plain.append(images)
            flagged += sum(image.flagged for image in corrector.report)
            scores += [image.score for image in corrector.report]
    assert flagged
    assert read(monitor, "images_total") == 24
    assert read(monitor, "flagged_images_total") == flagged
    assert read(monitor, "failed_images_total") == 0
    assert read(monitor, "edited_images_total") == (0 if strategy else flagged)
    assert read(monitor, "score_level") == thresholds.levels.level
    assert read(monitor, "promised_flagged_rate") == pytest.approx(0.3)
    tenths = [read(monitor, "scores_total", tenth=str(tenth)) for tenth in range(10)]
    assert sum(tenths) == 24
    assert read(monitor, "step_seconds_count") == 2
    assert 0 < read(monitor, "step_seconds_sum") < 60
    assert read(monitor, "drift_images") == 24
    assert read(monitor, "drift_p_value") > 1e-3  # the calibrating runs themselves
    if strategy:  # looked at, and not touched
        images = tiny_pipeline(
            batch_size=12,
            num_inference_steps=STEPS,
            generator=generators(range(12, 24)),
            output_type="np",
        ).images
        assert (images == plain[-1]).all()


def test_a_recorder_is_counted_alike(
    monitor: Monitor, runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    recorder = Recorder(tiny_pipeline, tmp_path / "served.zarr", observers=[monitor])
    with recorder, monitor.timed(STEPS):
        tiny_pipeline(batch_size=10, num_inference_steps=STEPS, generator=generators(range(10)))
    assert read(monitor, "images_total") == 10
    assert read(monitor, "step_seconds_count") == 1
    from asced_analysis.detection.apply import detect

    found = detect(open_runs(runs).isel(run=slice(10)), monitor.thresholds)
    assert read(monitor, "flagged_images_total") == int(found["flagged"].sum())


def test_failures_and_drift(monitor: Monitor) -> None:
    rng = np.random.default_rng(0)
    shipped = monitor.thresholds.counts["score"]
    usual = np.repeat(shipped["bins"], shipped["counts"]) * monitor.thresholds.counts["bin_width"]
    alike = rng.choice(usual, 200) + 0.001
    monitor.count(alike, alike > 1, np.arange(200) == 3)
    assert read(monitor, "failed_images_total") == 1
    assert read(monitor, "drift_p_value") > 1e-3
    monitor.count(alike + 2 * usual.std(), np.ones(200), np.zeros(200))
    moved = rng.choice(usual, 500) + 2 * usual.std()
    monitor.count(moved, np.ones(500), np.zeros(500))
    assert read(monitor, "drift_images") == 500
    assert read(monitor, "drift_distance") > 0.5
    assert read(monitor, "drift_p_value") < 1e-6
    assert read(monitor, "scores_total", tenth="9") > 0.6 * 500


def test_the_dashboard_asks_for_what_is_served(
    monitor: Monitor, thresholds: Thresholds, tmp_path: Path
) -> None:
    registry = monitor.registry
    Monitor(thresholds, name="another", registry=registry)  # side by side
    monitor.count([0.0], [False], [False], step_seconds=0.1)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        address = f"http://127.0.0.1:{server.server_port}/metrics"
        text = urllib.request.urlopen(address).read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    served = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line[:1] != "#"}
    board = json.loads(write_dashboard(tmp_path / "dashboard.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"asced_\w+", target["expr"])
    }
    assert len(asked) >= 9
    assert asked <= served
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_too_few_to_compare_are_refused(thresholds: Thresholds) -> None:
    with pytest.raises(InputError, match="at least 20"):
        Monitor(thresholds, registry=CollectorRegistry(), latest=5)

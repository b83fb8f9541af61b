"""Runs larger than a part of memory are read step by step, with the same numbers."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from asced_analysis.accessor import open_runs
from asced_analysis.audit import audit
from asced_analysis.calibration import calibrate
from asced_analysis.compute import stepped
from asced_analysis.compute.source import open_source
from asced_analysis.detection.apply import detect
from asced_analysis.detection.scoring import scores_of
from asced_analysis.phases.activity import activity_curves
from asced_analysis.statistics.by_pixel import pixel_maps
from asced_analysis.statistics.by_step import step_statistics
from asced_analysis.statistics.features import run_features
from asced_analysis.statistics.regions import artifact_regions
from asced_stores.reading import recorded
from asced_stores.testing import synthetic_store


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "video.zarr"
    synthetic_store(path, runs=3, batch_size=2, steps=8, shape=(2, 3, 8, 8))
    return open_runs(path)


WORK = {
    "features": lambda ds: run_features(ds, by_step=True).to_numpy(),
    "statistics": lambda ds: step_statistics(ds, by="channel")["counts"].values,
    "groups": lambda ds: step_statistics(ds, "x0", by="seed")["quantile"].values,
    "halves": lambda ds: step_statistics(ds, "eps", measure="value")["quantile"].values,
    "activity": lambda ds: activity_curves(ds, signal="innovation")[0],
    "maps": lambda ds: pixel_maps(ds)["quantile"].values,
    "regions": lambda ds: artifact_regions(ds, probability=0.8).to_numpy(float),
    "own regions": lambda ds: artifact_regions(ds, reference="run", cutoff=1).to_numpy(float),
    "audit": lambda ds: audit(ds).steps.to_array().values,
}


@pytest.mark.parametrize("name", WORK)
def test_numbers_are_the_same_step_by_step(video, name, monkeypatch):
    whole = WORK[name](video)
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    reads = []
    read = recorded.read_rows

    def watched(backend, layout, batches, slots, steps=None, **options):
        reads.append(steps.stop - steps.start)
        return read(backend, layout, batches, slots, steps, **options)

    monkeypatch.setattr(recorded, "read_rows", watched)
    np.testing.assert_array_equal(WORK[name](video), whole)
    assert max(reads) <= (8 if name == "halves" else 2)


@pytest.fixture(scope="module")
def flagged(tmp_path_factory):
    """Videos of which a quarter is flagged."""
    path = tmp_path_factory.mktemp("flagged") / "video.zarr"
    synthetic_store(path, runs=40, batch_size=8, steps=6, shape=(2, 3, 8, 8))
    return open_runs(path), calibrate(path, false_alarm_rate=0.25)


def test_detection_is_the_same_step_by_step(flagged, monkeypatch):
    ds, thresholds = flagged
    whole = detect(ds, thresholds).load()
    every = np.ones(40, bool)
    scores = scores_of(open_source(ds), thresholds, every)[1]
    assert 0 < whole["flagged"].values.sum() < 40
    cut = detect(ds.chunk(step=2), thresholds)
    np.testing.assert_array_equal(cut["mask"], whole["mask"])
    reads = []
    read = recorded.read_rows

    def watched(backend, layout, batches, slots, steps=None, **options):
        reads.append((len(slots), steps.stop - steps.start))
        return read(backend, layout, batches, slots, steps, **options)

    monkeypatch.setattr(recorded, "read_rows", watched)
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    np.testing.assert_array_equal(scores_of(open_source(ds), thresholds, every)[1], scores)
    found = detect(ds, thresholds)
    assert found["mask"].chunks is not None
    for name in ("mask", "score", "flagged"):
        np.testing.assert_array_equal(found[name], whole[name], strict=True)
    assert set(reads) == {(1, 1)}
    assert calibrate(open_source(ds), false_alarm_rate=0.25) == thresholds


def test_what_it_takes_is_said_beforehand(video, monkeypatch, capsys):
    assert stepped.memory_note(video, ["eps", "x0"]) == ""
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    for work, name in (
        (run_features, "Features of"),
        (artifact_regions, "Regions of"),
        (audit, "Auditing"),
    ):
        work(video, progress=True)
        said = f"{name} 3 runs of 0 MB each, step by step in about 3"
        assert said in capsys.readouterr().err


PEAKS = """
import sys
from pathlib import Path
import dask
import pandas as pd
from asced_analysis import open_runs, run_features, segment_phases, step_statistics
from asced_analysis.audit import audit
from asced_analysis.compute import stepped
from asced_analysis.statistics.regions import artifact_regions, region_profile

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

stepped.LARGE_RUN_BYTES = 0
ds, few = open_runs(sys.argv[1]), int(sys.argv[2])
region = pd.Series({"run": 0, "top": 0, "left": 0, "height": 4, "width": 4})
with dask.config.set(scheduler="synchronous"):
    for work in (
        step_statistics,
        run_features,
        segment_phases,
        audit,
        artifact_regions,
        lambda ds: artifact_regions(ds, reference="run"),
        lambda ds: region_profile(ds, region),
    ):
        work(ds.isel(step=slice(0, few)))
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        work(ds)
        print(status("VmHWM") - before)
"""


@pytest.mark.parametrize(
    ("frames", "steps"), [(4, 48), pytest.param(21, 64, marks=pytest.mark.slow)]
)
def test_memory_does_not_follow_the_number_of_steps(frames, steps, tmp_path):
    """Several steps of the run widened, and tables of counts: never the run as it is stored."""
    shape = (frames, 4, 96, 96)
    synthetic_store(tmp_path / "video.zarr", runs=1, steps=steps, shape=shape)
    code = [sys.executable, "-c", PEAKS, str(tmp_path / "video.zarr"), "6"]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    counting, *others = map(float, done.stdout.split())
    step = 2 * math.prod(shape)
    most = 8e6 + 36 * step
    assert most < 0.7 * 2 * steps * step  # of the run, eps and x0
    assert len(others) == 6
    assert max(others) < most, done.stdout
    assert counting < most + 2.2e6 * steps, done.stdout

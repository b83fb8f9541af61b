"""Runs larger than a part of memory are read step by step, with the same numbers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from asced_analysis.accessor import open_runs
from asced_analysis.audit import audit
from asced_analysis.calibration import calibrate
from asced_analysis.compute import stepped
from asced_analysis.compute.source import open_source
from asced_analysis.counts import changes
from asced_analysis.detection import VARIANTS, row_means
from asced_analysis.detection.apply import detect
from asced_analysis.detection.scoring import scores_of
from asced_analysis.phases.activity import activity_curves
from asced_analysis.statistics.by_pixel import pixel_maps
from asced_analysis.statistics.by_step import step_statistics
from asced_analysis.statistics.features import run_features
from asced_analysis.statistics.regions import artifact_regions
from asced_cli.options import note_memory
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
    monkeypatch.setattr(changes, "PART", 256)  # less than a step, as it is of a large run
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    reads = []
    read = recorded.read_rows

    def watched(backend, layout, batches, slots, steps=None, **options):
        reads.append(steps.stop - steps.start)
        return read(backend, layout, batches, slots, steps, **options)

    monkeypatch.setattr(recorded, "read_rows", watched)
    np.testing.assert_allclose(WORK[name](video), whole, rtol=1e-5, atol=1e-7)
    assert max(reads) <= 2  # frames of a sample, and one step


@pytest.fixture(scope="module", params=["videos", "images"])
def flagged(request, tmp_path_factory):
    """Runs of which a quarter is flagged; images whose last row of cells sticks out."""
    path = tmp_path_factory.mktemp("flagged") / "runs.zarr"
    shape = (2, 3, 8, 8) if request.param == "videos" else (2, 71, 9)
    synthetic_store(path, runs=40, batch_size=8, steps=6, shape=shape)
    parameters = {} if request.param == "videos" else {"contrast": "local"}
    return open_runs(path), calibrate(path, false_alarm_rate=0.25, parameters=parameters)


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
    parameters = thresholds.parameters
    assert calibrate(open_source(ds), false_alarm_rate=0.25, parameters=parameters) == thresholds


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Runs whose cells of every map stick out of the image."""
    path = tmp_path_factory.mktemp("images") / "runs.zarr"
    synthetic_store(path, runs=104, batch_size=26, steps=6, shape=(3, 39, 34))
    return path


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """The same of one channel."""
    path = tmp_path_factory.mktemp("grey") / "runs.zarr"
    synthetic_store(path, runs=104, batch_size=26, steps=6, shape=(1, 41, 37))
    return path


@pytest.mark.parametrize("options", [{"probability": 0.9}, {"reference": "run", "cutoff": 1.0}])
@pytest.mark.parametrize("store", ["images", "grey"])
def test_regions_that_last_are_the_same_step_by_step(store, options, request, monkeypatch):
    """Many of an image, over several steps, with pixels that are not abnormal at each of them."""
    ds = open_runs(request.getfixturevalue(store)).isel(run=slice(0, 6))
    whole = artifact_regions(ds, smallest_area=3, **options)
    assert len(whole) > 30
    assert (whole["persistence"] > 2).any()
    monkeypatch.setattr(changes, "PART", 500)
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    pd.testing.assert_frame_equal(artifact_regions(ds, smallest_area=3, **options), whole)


@pytest.mark.parametrize(
    ("variant", "store"),
    [
        *((name, "images") for name in VARIANTS if name not in ("calibrated", "self_consistency")),
        *((name, "grey") for name in ("paper", "released", "outcome")),
    ],
)
def test_variants_find_the_same_by_bands(variant, store, request, monkeypatch):
    """Sums by rows and products of bands differ in their last bits: no score is near the level."""
    images = request.getfixturevalue(store)
    options = {"false_alarm_rate": 0.25}
    if VARIANTS.get(variant).learnt:
        drawn = dict(enumerate(np.random.default_rng(0).normal(size=104)))
        options |= {"method": "outcome", "outcomes": drawn, "outcome": {"epochs": 1}}
    fitted = calibrate(images, variant, **options)
    ds = open_runs(images).isel(run=slice(0, 24))
    order = np.sort(detect(ds, fitted)["score"].values)
    place = 8 + int(np.diff(order[8:20]).argmax())
    thresholds = fitted.with_levels(level=float(order[place : place + 2].mean()))
    whole = detect(ds, thresholds).load()
    assert 0 < whole["flagged"].values.sum() < 24
    monkeypatch.setattr(row_means, "AT_ONCE", 1000)
    monkeypatch.setattr(changes, "PART", 500)
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    found = detect(ds, thresholds)
    np.testing.assert_allclose(found["score"], whole["score"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["flagged"], whole["flagged"])
    assert (found["mask"].values != whole["mask"].values).mean() < 1e-4


def test_numbers_that_are_fitted_are_the_same_by_bands(images, monkeypatch):
    ds = open_runs(images).isel(run=slice(0, 40))
    options = {"variant": "trajectory_variance", "false_alarm_rate": 0.25}
    whole = calibrate(ds, **options).levels
    monkeypatch.setattr(row_means, "AT_ONCE", 1000)
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    found = calibrate(ds, **options).levels
    np.testing.assert_allclose(found.location + found.scale, whole.location + whole.scale, 1e-4)


@pytest.mark.parametrize("variant", ["released", "paper", "score_norm"])
def test_numbers_that_are_not_finite_are_flagged_by_bands(images, variant, monkeypatch):
    """As they are of small images."""
    thresholds = calibrate(images, variant, false_alarm_rate=0.25)
    ds = open_runs(images).isel(run=slice(0, 2)).load()
    (name,) = VARIANTS.get(variant).reads(thresholds.parameters)
    ds[name].values[1, :, 1, 5, 7] = np.nan
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    found = detect(ds.chunk(run=1), thresholds, override=True)
    assert found["score"].values[1] == np.inf
    assert found["flagged"].values[1]
    assert np.isfinite(found["score"].values[0])


def test_what_it_takes_is_said_beforehand(video, monkeypatch, capsys):
    assert stepped.memory_note(video, ["eps", "x0"]) == ""
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    for work, name in (
        (run_features, "Features of"),
        (artifact_regions, "Regions of"),
        (audit, "Auditing"),
    ):
        work(video, progress=True)
        said = f"{name} 3 runs of 0 MB each, step by step in about 4"
        assert said in capsys.readouterr().err


def bench():
    """The module that measures it for docs/performance.md."""
    path = Path(__file__).parents[2] / "benchmarks" / "bench_step_memory.py"
    spec = importlib.util.spec_from_file_location("bench_step_memory", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measured = bench()


def measured_rows():
    """Of few runs; `make test` takes two variants, and regions beyond a run's own levels."""
    for name, row in measured.ROWS.items():
        if row.runs < 3:
            some = name.endswith(("(paper)", "(final_variance)"))
            of_all = name in ("regions of images", "regions of grey images")
            late = ("(" in name and not some) or of_all
            yield pytest.param(name, marks=[pytest.mark.slow] if late else [])


@pytest.mark.parametrize("name", list(measured_rows()))
def test_so_many_steps_of_a_run_lie_in_memory_at_most(name, tmp_path, monkeypatch):
    """As they are stored, whatever the run's size: the peak grows by no more with a step's.

    Three, and of detection of images what the variant says, which is no more than it needs.
    """
    held = measured.ROWS[name].held
    measured.read_plainly(monkeypatch.setattr)
    found = measured.measure(name, tmp_path, (16, 4, 96, 96), 5)
    assert found["ratio"] <= held + 0.05, found
    assert held == stepped.STEPS_HELD or found["ratio"] > held / 2, found
    assert found["constant_mb"] < stepped.THREAD_BYTES / 1e6, found


def test_what_is_said_beforehand_is_what_is_measured(monkeypatch):
    """Three steps for each thread, beside what does not depend on the runs."""
    monkeypatch.setattr("dask.system.CPU_COUNT", 2)
    values = dask.array.zeros((3, 20, 21, 16, 90, 160), dtype=np.float16)
    dims = ("run", "step", "frame", "channel", "y", "x")
    ds = xr.Dataset(dict.fromkeys(("eps", "x0"), (dims, values)))
    said = " of {} MB each, step by step in about {} MB of memory"
    assert stepped.memory_note(ds, ["eps"]) == said.format(194, round(300 + 2 * (3 * 9.6768 + 64)))
    more = stepped.memory_note(ds, ["eps"], held=16)
    assert more == said.format(194, round(300 + 2 * (16 * 9.6768 + 64)))
    both = stepped.memory_note(ds, ["eps", "x0"])
    assert both == said.format(387, round(300 + 2 * (3 * 2 * 9.6768 + 64)))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_command_says_what_the_variant_needs(variant, grey, tmp_path, monkeypatch, capsys):
    """Of an image what the variant says of what it reads; with statistics beside, the larger."""
    monkeypatch.setattr("dask.system.CPU_COUNT", 1)
    channels = 1 if grey else 3
    synthetic_store(tmp_path / "runs.zarr", runs=1, batch_size=1, steps=4, shape=(channels, 64, 64))
    ds = open_runs(tmp_path / "runs.zarr")
    own = VARIANTS.get(variant)
    reads = own.reads(own.parameters())
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    monkeypatch.setattr(stepped, "PROGRAM_BYTES", 0)
    monkeypatch.setattr(stepped, "THREAD_BYTES", 0)
    monkeypatch.setattr(stepped, "memory_note", lambda ds, names, held: f": {len(names)} x {held}")
    for statistics in (False, True):
        note_memory(ds, variant, statistics=statistics)
        blocks = max(own.steps_held, own.pixel_bytes // 2 if grey else 0)
        most = (2, 3) if statistics and len(reads) * blocks <= 6 else None
        names, held = most or (len(reads), blocks)
        assert capsys.readouterr().err == f"note: 1 runs: {names} x {held}\n"

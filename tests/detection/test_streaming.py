"""One kernel, two callers: blocks of NumPy offline and torch step by step give the same masks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from asced_analysis.calibration import calibrate
from asced_analysis.compute.source import open_source
from asced_analysis.detection.apply import detect
from asced_analysis.detection.log_snr_grid import GridSignal, GridState, make_grid
from asced_analysis.detection.streaming import make_detector
from asced_analysis.thresholds.document import Thresholds
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store

MAPS = ("calibrated", "released", "paper")
RUN_SCORES = ("trajectory_variance", "final_variance", "score_norm", "diffpath")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "runs.zarr"
    synthetic_store(path, runs=96, steps=12, shape=(3, 20, 24), batch_size=16)
    return path


def in_the_loop(thresholds: Thresholds, store: Path) -> tuple[Any, Any, Any]:
    """What a sampling loop would find: torch tensors, one step after the other."""
    runs = open_runs(store).load()
    numbers = {name: runs[name].values.tolist() for name in ("alpha", "sigma", "log_snr")}
    detector = make_detector(thresholds, **numbers)
    eps, x0 = (torch.from_numpy(runs[name].values) for name in ("eps", "x0"))
    state = detector.start(eps[:, 0])
    for step in range(runs.sizes["step"]):
        state = detector.update(state, step, eps=eps[:, step], x0=x0[:, step])
        if step == detector.last_step:
            found = detector.result(state)
    assert torch.equal(found.mask, detector.result(state).mask)  # nothing counts after the window
    assert found.mask.dtype == torch.bool
    return found.mask.numpy(), np.asarray(found.score), found.flagged.numpy()


@pytest.mark.parametrize("variant", [*MAPS, *RUN_SCORES])
def test_loop_and_store_agree(variant: str, store: Path) -> None:
    thresholds = calibrate(store, variant, false_alarm_rate=0.2)
    mask, score, flagged = in_the_loop(thresholds, store)
    offline = detect(open_runs(store), thresholds)
    assert (mask == offline["mask"].values).mean() >= 0.9999
    np.testing.assert_allclose(score, offline["score"].values, rtol=2e-5, atol=2e-5)
    level = thresholds.levels.level
    clear = np.abs(score - level) > 1e-3 * abs(level)
    np.testing.assert_array_equal(flagged[clear], offline["flagged"].values[clear])
    assert 0 < flagged.sum() < flagged.size
    np.testing.assert_array_equal(flagged, score > level)
    if variant in MAPS:
        np.testing.assert_array_equal(flagged, mask.any(axis=(1, 2)))


@pytest.mark.parametrize("signal", ["weighted_score", "innovation"])
@pytest.mark.parametrize(
    "options",
    [
        {"combine": "persistent", "direction": "both"},
        {"combine": "mean", "by_position": True},
        {"contrast": "local", "direction": "low", "resolution": 8},
    ],
)
def test_calibrated_options_agree_in_the_loop(
    signal: str, options: dict[str, Any], store: Path
) -> None:
    parameters = {"signal": signal, **options}
    thresholds = calibrate(store, false_alarm_rate=0.2, parameters=parameters)
    mask, _, _ = in_the_loop(thresholds, store)
    offline = detect(open_runs(store), thresholds)
    assert (mask == offline["mask"].values).mean() >= 0.999
    assert mask.shape == (96, 20, 24)


def test_detection_is_lazy(store: Path) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.2)
    found = detect(open_runs(store), thresholds)
    assert found["mask"].chunks is not None
    assert found["mask"].chunks[0] == (16,) * 6


def test_masks_shrink_as_the_level_rises(store: Path) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.2)
    source = open_source(store)
    batch = next(source.batches(("x0",)))
    previous = None
    for level in (-1.0, 0.5, 1.5, 2.5):
        detector = make_detector(
            thresholds, alpha=source.alpha, sigma=source.sigma, log_snr=source.log_snr, level=level
        )
        state = detector.start((16, 3, 20, 24))
        for step in range(12):
            state = detector.update(state, step, x0=batch.arrays["x0"][:, step])
        mask = detector.result(state).mask
        if previous is not None:
            assert not (mask & ~previous).any()
        previous = mask


def steady(
    rate: npt.NDArray[np.float64], log_snr: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """A signal that is linear in log-SNR."""
    return (rate * log_snr[:, None, None, None, None]).astype(np.float32)


@pytest.mark.parametrize("steps", [9, 25, 50, 100])
def test_the_grid_sees_the_same_whatever_the_step_count(steps: int) -> None:
    log_snr = np.linspace(-6, 5, steps)
    rate = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
    x0 = steady(rate, log_snr)
    numbers = tuple(log_snr.tolist())
    signal = GridSignal("predicted_x0", (-4.0, -2.5, -1.0, 0.5), numbers, numbers, numbers)
    state, seen = GridState(), {}
    for step in range(steps):
        state, cells = signal.advance(state, step, x0=x0[step])
        seen.update(cells)
    assert sorted(seen) == [0, 1, 2]
    for change in seen.values():
        np.testing.assert_allclose(change, rate * 1.5, rtol=1e-4, atol=1e-4)


def test_the_grid_is_no_finer_than_the_sampler() -> None:
    log_snr = [-8.0, -5.0, -3.0, -2.0, -1.0, 0.0, 4.0]
    grid = make_grid(log_snr, 1, 5)
    assert grid[0] == -5.0
    assert grid[-1] == 0.0
    assert len(grid) == 3
    with pytest.raises(InputError, match="at least two"):
        make_grid(log_snr, 3, 3)


def test_a_sampler_that_never_crosses_the_window_is_refused(store: Path) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.2)
    with pytest.raises(InputError, match="never crosses"):
        make_detector(thresholds, alpha=(1, 1), sigma=(1, 1), log_snr=(30.0, 40.0))


def test_the_loop_needs_no_torch_zarr_or_xarray(store: Path, tmp_path: Path) -> None:
    path = calibrate(store, false_alarm_rate=0.2).save(tmp_path / "thresholds.json")
    code = f"""
import sys
from asced_analysis.thresholds.document import Thresholds
from asced_analysis.detection.streaming import make_detector
thresholds = Thresholds.load({str(path)!r})
numbers = dict(alpha=(1, 1, 1), sigma=(1, 1, 1), log_snr=(-9.0, 0.0, 9.0))
make_detector(thresholds, **numbers).start((1, 3, 20, 24))
heavy = {{"torch", "zarr", "xarray", "dask", "sklearn", "diffusers", "pandas"}} & set(sys.modules)
sys.exit(f"loaded {{heavy}}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

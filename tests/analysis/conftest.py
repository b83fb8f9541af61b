"""Runs for the tests of the analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from asced_analysis.accessor import open_runs
from asced_stores.testing import synthetic_store
from asced_stores.testing.synthetic import ddim_levels


@pytest.fixture(scope="session")
def runs_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty runs in batches of eight, one of them failed, two channels."""
    path = tmp_path_factory.mktemp("analysis") / "runs.zarr"
    synthetic_store(path, runs=30, batch_size=8, shape=(2, 12, 10), failed=(5,))
    return path


@pytest.fixture
def runs(runs_path: Path) -> xr.Dataset:
    return open_runs(runs_path)


def plant_runs(
    *,
    runs: int = 40,
    steps: int = 25,
    first: int = 8,
    second: int = 17,
    share: float = 0.15,
    calm: float = 0.01,
    strength: float = 12.0,
    size: int = 20,
    jitter: int = 0,
    seed: int = 0,
) -> xr.Dataset:
    """DDIM runs in memory whose pixels move locally from step `first` to before step `second`.

    The innovation per unit of log-SNR is standard normal, and `strength` times as large in a
    `share` of the pixels (`calm` outside of the Mutation phase).
    """
    rng = np.random.default_rng(seed)
    timestep, alpha, sigma = ddim_levels(steps)
    snr = 2 * np.log(alpha / sigma)
    kappa = sigma / alpha
    starts = first + rng.integers(-jitter, jitter + 1, runs)
    ends = second + rng.integers(-jitter, jitter + 1, runs)
    shape = (runs, steps, 1, size, size)
    rate = rng.standard_normal(shape)
    step = np.arange(steps)
    active = (step >= starts[:, None]) & (step < ends[:, None])
    chance = np.where(active, share, calm)[:, :, None, None, None]
    rate = np.where(rng.random(shape) < chance, strength * rate, rate)
    change = np.zeros(shape)
    change[:, 1:] = rate[:, 1:] * np.diff(snr)[None, :, None, None, None] / 200
    eps = rng.standard_normal((runs, 1, 1, size, size)) + np.cumsum(
        change / -kappa[None, :, None, None, None], axis=1
    )
    # kept in float32: the planted truth is about estimation, not about rounding
    data: dict[str, Any] = {
        "eps": (("run", "step", "channel", "y", "x"), eps.astype(np.float32)),
        "x0": (("run", "step", "channel", "y", "x"), np.cumsum(change, axis=1).astype(np.float32)),
    }
    return xr.Dataset(
        data,
        {
            "run": np.arange(runs),
            "seed": ("run", np.arange(runs)),
            "step": step,
            "timestep": ("step", timestep),
            "alpha": ("step", alpha),
            "sigma": ("step", sigma),
            "log_snr": ("step", snr),
            "truth_first": ("run", starts),
            "truth_second": ("run", ends),
        },
    )


@pytest.fixture(scope="session")
def planted_runs() -> Any:
    """The function that plants runs; see `plant_runs`."""
    return plant_runs

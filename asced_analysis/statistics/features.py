"""Features of runs: a few interpretable numbers each, streamed, for tables and outlier models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.shard_graphs import Blocks
from asced_analysis.signals import dynamics as kernels
from asced_analysis.signals import fields
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats: TypeAlias = npt.NDArray[np.float64]

DESCRIPTIONS: dict[str, str] = {
    "innovation_early": "mean log rms innovation per log-SNR in the first third of the steps",
    "innovation_middle": "the same in the second third",
    "innovation_late": "the same in the last third",
    "innovation_peak_time": "normalised time of the largest local innovation",
    "local_peak": "natural log of the largest ratio, over steps, of the 99 % quantile of "
    "|innovation| to its median",
    "acceleration_peak": "largest acceleration of the predicted x0, 99 % quantile over pixels",
    "reversal": "share of the predicted x0's movement that is undone by the next step",
    "path_length": "rms distance that the predicted x0 travels in all",
    "straightness": "rms distance from its first to its last value, by the path length",
    "trajectory_variance": "variance of the predicted x0 over the last third of the steps",
    "final_contrast": "standard deviation of the last predicted x0",
    "final_roughness": "rms difference of neighbouring pixels of the last predicted x0",
    "eps_power_1": "sum over steps of the mean of |eps| (arXiv:2405.11881)",
    "eps_power_2": "the same of eps squared",
    "eps_power_3": "the same of |eps| cubed",
    "eps_rate_power_1": "sum over steps of the mean of |d eps / d normalised time|",
    "eps_rate_power_2": "the same squared",
    "eps_rate_power_3": "the same cubed",
}
"""What each column of `run_features` means."""

_TINY = 1e-12


def run_features(ds: xr.Dataset, *, by_step: bool = False, progress: bool = False) -> pd.DataFrame:
    """Eighteen numbers a run, from its recorded eps and x0.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; read one shard at a time.
    by_step : bool, optional
        Also the log rms innovation per log-SNR of every step (``innovation_<step>``) and the
        natural log of the ratio of the 99 % quantile of its size to the median (``local_<step>``).
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    pandas.DataFrame
        One row a run, indexed by ``run``; the columns are explained in `DESCRIPTIONS`. A run with
        a number that is not finite has NaN throughout. Steps with an infinite log-SNR are left
        out, and ``attrs["dropped_steps"]`` and ``attrs["note"]`` say so.

    Raises
    ------
    InputError
        With fewer than four usable steps, or without eps and x0.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> features = aa.run_features(aa.open_runs("runs.zarr"))
    >>> features.shape
    (48, 18)
    """
    import pandas as pd

    first = kernels.first_regular_step(np.asarray(ds["alpha"].values))
    used = ds.isel(step=slice(first, None))
    snr = np.asarray(used["log_snr"].values, np.float64)
    finite = np.flatnonzero(np.isfinite(snr))
    if finite.size < 4:
        raise InputError(f"{finite.size} steps with a finite log-SNR found; expected at least 4")
    tasks = streaming.shard_tasks(
        ds,
        ["eps", "x0"],
        _feature_block,
        steps=finite + first,
        log_snr=snr[finite],
        time=ds["step"].values[finite + first] / fields.recorded_steps(ds),
        by_step=by_step,
        alpha=np.asarray(used["alpha"].values, np.float64)[finite],
        sigma=np.asarray(used["sigma"].values, np.float64)[finite],
    )
    label = f"Features of {ds.sizes['run']} runs"
    table = streaming.concatenate(tasks, progress=progress, label=label)
    later = ds["step"].values[(finite + first)[1:]]
    names = list(DESCRIPTIONS)
    if by_step:
        names += [f"innovation_{k}" for k in later] + [f"local_{k}" for k in later]
    frame = pd.DataFrame(table, index=pd.Index(ds["run"].values, name="run"), columns=names)
    frame.attrs |= fields.left_out(np.delete(ds["step"].values, finite + first).tolist())
    return frame


def _feature_block(
    blocks: Blocks,
    *,
    steps: npt.NDArray[np.int64],
    alpha: Floats,
    sigma: Floats,
    log_snr: Floats,
    time: Floats,
    by_step: bool,
) -> Floats:
    """Features of the runs of one task, shape (run, feature); one run in memory at a time."""
    rows: list[Floats] = []
    for block in blocks:
        for eps, x0 in zip(block["eps"], block["x0"], strict=True):
            with np.errstate(invalid="ignore", over="ignore"):
                row = _features(eps[steps], x0[steps], alpha, sigma, log_snr, time, by_step)
            rows.append(row if np.isfinite(row).all() else np.full_like(row, np.nan))
    return np.stack(rows)


def _features(
    eps: npt.NDArray[Any],
    x0: npt.NDArray[Any],
    alpha: Floats,
    sigma: Floats,
    log_snr: Floats,
    time: Floats,
    by_step: bool,
) -> Floats:
    """Features of one run; eps and x0 of shape (step, [frame,] channel, y, x)."""
    if eps.ndim == 5:  # video: the kernels want the frame before the step
        eps, x0 = np.swapaxes(eps, 0, 1), np.swapaxes(x0, 0, 1)
    else:
        eps, x0 = eps[np.newaxis], x0[np.newaxis]
    rate = kernels.log_snr_rate(kernels.innovation(eps, alpha, sigma), log_snr)
    size = np.abs(_by_step(rate))
    loudness = np.log(np.sqrt(np.mean(np.square(size), axis=1)) + _TINY)
    median, upper = np.quantile(size, [0.5, 0.99], axis=1)
    local = np.log((upper + _TINY) / (median + _TINY))
    change = kernels.predicted_x0_change(x0)
    moved = _rms(change)
    moves = _by_step(change)
    # what the next step takes back, at most what there was; a movement that goes on undoes nothing
    undone = np.clip(-moves[1:] * np.sign(moves[:-1]), 0, np.abs(moves[:-1]))
    faster = np.quantile(_by_step(kernels.acceleration(change)), 0.99, axis=1)
    final = x0[..., -1, :, :, :].astype(np.float32)
    thirds = [part.mean() for part in np.array_split(loudness, 3)]
    speed = kernels.score_dynamics(eps) / np.diff(time).astype(np.float32)[:, None, None, None]
    powers = [
        np.sum(np.mean(np.abs(_by_step(eps)).astype(np.float32) ** p, axis=1)) for p in (1, 2, 3)
    ]
    speeds = [np.sum(np.mean(np.abs(_by_step(speed)) ** p, axis=1)) for p in (1, 2, 3)]
    path = float(moved.sum())
    rough = np.concatenate([np.diff(final, axis=-1).ravel(), np.diff(final, axis=-2).ravel()])
    row = [
        *thirds,
        time[1:][np.argmax(local)],
        local.max(),
        faster.max(),
        undone.sum() / (np.abs(moves).sum() + _TINY),
        path,
        float(_rms(x0[..., -1:, :, :, :].astype(np.float32) - x0[..., :1, :, :, :])[0])
        / (path + _TINY),
        float(kernels.trajectory_variance(x0, last=max(2, len(time) // 3)).mean()),
        final.std(),
        np.sqrt(np.mean(np.square(rough))) if rough.size else 0.0,
        *powers,
        *speeds,
    ]
    if by_step:
        row += [*loudness, *local]
    return np.asarray(row, np.float64)


def _by_step(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values of shape (step, everything else)."""
    return np.moveaxis(values, kernels.STEP_AXIS, 0).reshape(values.shape[kernels.STEP_AXIS], -1)


def _rms(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Root mean square by step."""
    result: npt.NDArray[Any] = np.sqrt(np.mean(np.square(_by_step(values)), axis=1))
    return result

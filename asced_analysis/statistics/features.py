"""Features of runs: a few interpretable numbers each, streamed, for tables and outlier models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.shard_graphs import Blocks
from asced_analysis.compute.stepped import memory_note
from asced_analysis.counts.counting import widen
from asced_analysis.signals import fields
from asced_analysis.signals.dimensions import with_all_dims
from asced_analysis.signals.dynamics import first_regular_step, noise_ratio
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
    ds = with_all_dims(ds)
    import pandas as pd

    first = first_regular_step(np.asarray(ds["alpha"].values))
    used = ds.isel(step=slice(first, None))
    snr = np.asarray(used["log_snr"].values, np.float64)
    finite = np.flatnonzero(np.isfinite(snr))
    if finite.size < 4:
        raise InputError(f"{finite.size} steps with a finite log-SNR found; expected at least 4")
    tasks = streaming.shard_tasks(
        ds,
        ["eps", "x0"],
        _feature_block,
        stepwise=True,
        steps=finite + first,
        log_snr=snr[finite],
        time=ds["step"].values[finite + first] / fields.recorded_steps(ds),
        by_step=by_step,
        alpha=np.asarray(used["alpha"].values, np.float64)[finite],
        sigma=np.asarray(used["sigma"].values, np.float64)[finite],
    )
    label = f"Features of {ds.sizes['run']} runs{memory_note(ds, ['eps', 'x0'])}"
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
    """Features of the runs of one task, shape (run, feature)."""
    scale = noise_ratio(alpha, sigma)[1:] / np.abs(np.diff(log_snr))
    rows: list[Floats] = []
    for block in blocks:
        for eps, x0 in zip(block["eps"], block["x0"], strict=True):
            with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
                row = _features(eps, x0, steps, scale, time, by_step)
            rows.append(row if np.isfinite(row).all() else np.full_like(row, np.nan))
    return np.stack(rows)


def _features(
    eps: npt.NDArray[Any],
    x0: npt.NDArray[Any],
    steps: npt.NDArray[np.int64],
    scale: Floats,
    time: Floats,
    by_step: bool,
) -> Floats:
    """Features of one run; eps and x0 of shape (step, [frame,] channel, y, x).

    Two steps of the run lie in memory at a time, widened, beside the run as it is stored; of a
    large run those two alone (`asced_analysis.compute.stepped`).
    """
    later = len(steps) - 1
    loudness, local, moved = np.empty((3, later))
    faster = np.empty(later - 1)
    powers, speeds = np.zeros((2, 3))
    undone = total = 0.0
    before = _wide(eps[steps[0]])
    powers += _moments(before)
    for k in range(later):
        now = _wide(eps[steps[k + 1]])
        powers += _moments(now)
        np.subtract(now, before, out=before)
        np.abs(before, out=before)
        mean = _moments(before)
        speeds += mean / (time[k + 1] - time[k]) ** np.arange(1, 4)
        loudness[k] = np.log(scale[k] * np.sqrt(mean[1]) + _TINY)
        median, upper = _ranked(before, (0.5, 0.99))
        local[k] = np.log((scale[k] * upper + _TINY) / (scale[k] * median + _TINY))
        before = now
    first = before = _wide(x0[steps[0]])
    move: npt.NDArray[np.float32] | None = None
    late, begin = _Welford(), len(steps) - max(2, len(time) // 3)
    for k in range(later):
        if k == 0 and begin == 0:
            late.add(before)
        now = _wide(x0[steps[k + 1]])
        if k + 1 >= begin:
            late.add(now)
        last, move = move, now - before
        moved[k] = _rms(move)
        total += float(np.abs(move).sum())
        if last is not None:
            size = np.abs(last)
            # what this step takes back, at most what there was; a movement that goes on undoes
            # nothing
            back = np.multiply(move, np.sign(last), out=last)
            np.clip(np.negative(back, out=back), 0, size, out=back)
            undone += float(back.sum())
            faster[k - 1] = _ranked(np.subtract(np.abs(move), size, out=size), (0.99,))[0]
        before = now
    final = before
    path = float(moved.sum())
    rough = [np.diff(final, axis=axis) for axis in (-1, -2)]
    count = sum(part.size for part in rough)
    squares = sum(float(np.square(part).sum(dtype=np.float64)) for part in rough)
    row = [
        *(part.mean() for part in np.array_split(loudness, 3)),
        time[1:][np.argmax(local)],
        local.max(),
        faster.max(),
        undone / (total + _TINY),
        path,
        _rms(final - first) / (path + _TINY),
        late.variance(),
        final.std(dtype=np.float64),
        np.sqrt(squares / count) if count else 0.0,
        *powers,
        *speeds,
    ]
    if by_step:
        row += [*loudness, *local]
    return np.asarray(row, np.float64)


def _wide(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A step in float32, a copy."""
    wide = np.empty(values.shape, np.float32)
    widen(values, wide)
    return wide


def _moments(values: npt.NDArray[np.float32]) -> Floats:
    """Means of the absolute values, of their squares and of their cubes."""
    size = np.abs(values)  # sums in float32 are pairwise: 1e-6 of their value
    square = np.square(size)
    means = [size.mean(), square.mean()]
    return np.array([*means, np.multiply(square, size, out=size).mean()], np.float64)


def _ranked(values: npt.NDArray[np.float32], levels: tuple[float, ...]) -> list[float]:
    """Quantiles as `numpy.quantile` gives them; the values are put into another order."""
    flat = values.reshape(-1)
    ranks = np.asarray(levels) * (flat.size - 1)
    low = np.floor(ranks).astype(int)
    high = np.minimum(low + 1, flat.size - 1)
    flat.partition(np.unique(np.concatenate([low, high])))
    if np.isnan(flat[low.max() :]).any():
        return [float("nan")] * len(levels)
    between = (ranks - low) * (flat[high].astype(np.float64) - flat[low])
    return [float(value) for value in flat[low] + between]


def _rms(values: npt.NDArray[np.float32]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.square(values).mean()))


class _Welford:
    """Variance over steps, averaged over the image, by Welford's updates."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """One step more."""
        self.count += 1
        if self.count == 1:
            self.mean = values.astype(np.float64)
            self.squares = np.zeros_like(self.mean)
            return
        gap = values - self.mean
        self.mean += gap / self.count
        gap *= values - self.mean
        self.squares += gap

    def variance(self) -> float:
        """Of all steps so far."""
        return float(self.squares.mean()) / self.count

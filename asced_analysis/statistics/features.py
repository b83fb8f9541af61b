"""Features of runs: a few interpretable numbers each, streamed, for tables and outlier models."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.shard_graphs import Blocks
from asced_analysis.compute.stepped import memory_note
from asced_analysis.counts.changes import PART, parts_of, widen
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
    """A few numbers a run, those of `DESCRIPTIONS`, from its recorded eps and x0.

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

    A few steps lie in memory as they are stored, and one widened, whose values are ranked; of a
    large run those alone (`asced_analysis.compute.stepped`).
    """
    loudness, local, powers, speeds = _follow_noise(eps, steps, scale, time)
    moved, faster, total, undone = _follow_image(x0, steps)
    late = _variance(x0, steps[len(steps) - max(2, len(time) // 3) :])
    path = float(moved.sum())
    first, final = _stored(x0[steps[0]]), _stored(x0[steps[-1]])
    far = sum(float(np.square(one - other).sum()) for one, other in _together(final, first))
    contrast, roughness = _at_the_end(final, *x0.shape[-2:])
    row = [
        *(part.mean() for part in np.array_split(loudness, 3)),
        time[1:][np.argmax(local)],
        local.max(),
        faster.max(),
        undone / (total + _TINY),
        path,
        np.sqrt(far / final.size) / (path + _TINY),
        late,
        contrast,
        roughness,
        *powers,
        *speeds,
    ]
    if by_step:
        row += [*loudness, *local]
    return np.asarray(row, np.float64)


def _follow_noise(
    eps: npt.NDArray[Any], steps: npt.NDArray[np.int64], scale: Floats, time: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Log rms and log peak of the innovation by step, powers of eps and of its rate of change."""
    loudness, local = np.empty((2, len(steps) - 1))
    powers, speeds = np.zeros((2, 3))
    last = _stored(eps[steps[0]])
    change = np.empty(last.size, np.float32)
    powers += sum(_sums(np.abs(_wide(last[part]))) for part in parts_of(last.size)) / last.size
    for k in range(len(loudness)):
        now = _stored(eps[steps[k + 1]])
        size, sums = np.zeros((2, 3))
        for part in parts_of(now.size):
            wide, own = _wide(now[part]), change[part]
            size += _sums(np.abs(wide))
            sums += _sums(np.abs(np.subtract(wide, _wide(last[part]), out=own), out=own))
        last = now
        del now  # before the next step is read
        powers += size / last.size
        mean = sums / last.size
        speeds += mean / (time[k + 1] - time[k]) ** np.arange(1, 4)
        loudness[k] = np.log(scale[k] * np.sqrt(mean[1]) + _TINY)
        median, upper = _ranked(change, (0.5, 0.99))
        local[k] = np.log((scale[k] * upper + _TINY) / (scale[k] * median + _TINY))
    return loudness, local, powers, speeds


def _follow_image(
    x0: npt.NDArray[Any], steps: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, float, float]:
    """Of predicted x0: rms movement and largest acceleration by step, movement in all and undone.

    What a step takes back is at most what there was; a movement that goes on undoes nothing.
    """
    moved, faster = np.empty(len(steps) - 1), np.empty(len(steps) - 2)
    total = undone = 0.0
    earlier: npt.NDArray[Any] | None = None
    last = _stored(x0[steps[0]])
    gain = np.empty(last.size, np.float32)
    for k in range(len(moved)):
        now = _stored(x0[steps[k + 1]])
        squares = 0.0
        for part in parts_of(now.size):
            middle = _wide(last[part])
            move = _wide(now[part]) - middle
            size = np.abs(move)
            squares += float(np.square(move).sum())
            total += float(size.sum())
            if earlier is None:
                continue
            before = middle - _wide(earlier[part])
            own = np.abs(before, out=gain[part])
            back = np.multiply(move, np.sign(before, out=before), out=move)
            undone += float(np.clip(np.negative(back, out=back), 0, own, out=back).sum())
            np.subtract(size, own, out=own)
        moved[k] = np.sqrt(squares / now.size)
        earlier, last = last, now
        del now
        if k:
            faster[k - 1] = _ranked(gain, (0.99,))[0]
    return moved, faster, total, undone


def _variance(x0: npt.NDArray[Any], steps: npt.NDArray[np.int64]) -> float:
    """Variance over some steps, averaged over the image.

    Distances from the first of these steps are added up: small numbers, of which float32 keeps
    what float64 keeps of the values.
    """
    first = _stored(x0[steps[0]])
    sums, squares = np.zeros(first.size, np.float32), 0.0
    for step in steps[1:]:
        for wide, start, own in _together(_stored(x0[step]), first, sums):
            far = wide - start
            own += far
            squares += float(np.square(far, out=far).sum())
    level = sum(float(np.square(sums[part]).sum()) for part in parts_of(sums.size))
    return (squares - level / len(steps)) / (len(steps) * first.size)


def _at_the_end(final: npt.NDArray[Any], height: int, width: int) -> tuple[float, float]:
    """Standard deviation, and rms difference of neighbouring pixels; shape (pixel,)."""
    mean = sum(float(_wide(final[part]).sum(dtype=np.float64)) for part in parts_of(final.size))
    mean /= final.size
    spread = squares = 0.0
    plane = height * width
    for part in parts_of(final.size, plane * max(1, PART // plane)):
        images = _wide(final[part]).reshape(-1, height, width)
        spread += float(np.square(images - np.float64(mean)).sum())
        for axis in (-1, -2):
            squares += float(np.square(np.diff(images, axis=axis)).sum(dtype=np.float64))
    count = final.size // plane * (height * (width - 1) + (height - 1) * width)
    return np.sqrt(spread / final.size), np.sqrt(squares / count) if count else 0.0


def _stored(step: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values of a step, shape (pixel,): as they are stored, or widened at once where few."""
    values = np.ascontiguousarray(step).reshape(-1)
    return _wide(values) if values.size <= PART else values


def _wide(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The values in float32; not a copy where they are."""
    if values.dtype == np.float32:
        return values
    wide = np.empty(values.shape, np.float32)
    widen(values, wide)
    return wide


def _together(*arrays: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[np.float32], ...]]:
    """The same parts of some arrays, in float32."""
    for part in parts_of(arrays[0].size):
        yield tuple(_wide(one[part]) for one in arrays)


def _sums(size: npt.NDArray[np.float32]) -> Floats:
    """Sums of magnitudes, of their squares and of their cubes; the values stay as they are."""
    square = np.square(size)  # sums in float32 are pairwise: 1e-6 of their value
    sums = [size.sum(), square.sum()]
    return np.array([*sums, np.multiply(square, size, out=square).sum()], np.float64)


def _ranked(values: npt.NDArray[np.float32], levels: tuple[float, ...]) -> list[float]:
    """Quantiles as `numpy.quantile` gives them; the values are put into another order."""
    flat = values.reshape(-1)
    low, high, share = _places(flat.size, levels)
    flat.partition([*low, *high])
    if np.isnan(flat[max(low) :].max()):
        return [float("nan")] * len(levels)
    below, above = flat[list(low)].astype(np.float64), flat[list(high)]
    found: list[float] = (below + share * (above - below)).tolist()
    return found


@lru_cache(maxsize=64)
def _places(
    size: int, levels: tuple[float, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], Floats]:
    """Ranks next to each quantile of so many values, and how far it lies beyond the lower one."""
    ranks = np.asarray(levels) * (size - 1)
    low = np.floor(ranks).astype(int)
    high = np.minimum(low + 1, size - 1)
    return tuple(low.tolist()), tuple(high.tolist()), ranks - low
